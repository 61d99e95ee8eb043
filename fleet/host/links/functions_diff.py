"""What has to change for a NIC's virtual functions to be as intended; pure."""

from __future__ import annotations

from fleet.host.change import HostError, amended
from fleet.host.links.held import holders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.observation import Observation
    from fleet.host.links.steps import Steps

    Words = dict[str, Any]

COUNT, MODE, EACH, DRIVER = (
    "virtual-function-count", "embedded-switch-mode", "virtual-functions", "driver",
)  # fmt: skip
#: The driver that hands a function to a guest, or to a program of its own.
VFIO = "vfio-pci"


def changes(steps: Steps, wanted: Words, have: Words, observation: Observation) -> list[Change]:
    """Return the changes from ``have`` (kernel.functions.read) to what is wanted.

    ``wanted`` has intent's words, its functions each by its number. Raises HostError for what the
    NIC or its driver cannot have, and where management runs through a function that would go.
    """
    count: int = wanted[COUNT] if COUNT in wanted else have["count"]
    _check(steps, wanted, have, count)
    if wanted.get(MODE, have["mode"]) != have["mode"]:
        _switch_mode(steps, wanted[MODE], have, observation)
    fresh = count != have["count"]
    if fresh:
        _count(steps, count, have, observation)
    for index in sorted(wanted[EACH], key=int):
        now = {} if fresh else have["functions"].get(index, {})
        _function(steps, index, wanted[EACH][index], now, observation)
    named = [index for index, words in wanted[EACH].items() if words.get(DRIVER)]
    if fresh and have["autoprobe"] and len(named) < count:
        # Last: a function's own driver asks for its address once, and only of a NIC that is up.
        needs = (f"up:{steps.device}", f"functions:{steps.device}")
        steps.add(f"{EACH}.{DRIVER}", None, "default", requires=needs)
    return steps.changes


def _check(steps: Steps, wanted: Words, have: Words, count: int) -> None:
    key = steps.resource.key
    if count > have["total"]:
        raise HostError(
            key,
            f"{count} virtual functions",
            f"{steps.device} has at most {have['total']}",
            f"name at most {have['total']}, or raise it in the card's firmware",
            COUNT,
        )
    beyond = [index for index in wanted[EACH] if int(index) >= count]
    if beyond:
        raise HostError(
            key,
            f"function {beyond[0]}",
            f"{steps.device} has {count}, and the first is 0",
            f"write {COUNT}: {max(map(int, beyond)) + 1}",
            f"{EACH}.{beyond[0]}",
        )
    if wanted.get(MODE) and not have["mode"]:
        raise HostError(
            key,
            f"{MODE} {wanted[MODE]}",
            f"the driver of {steps.device} has no embedded switch",
            f"take {MODE} away",
            MODE,
        )
    told = next(iter(have["functions"].values()), None)
    for index, words in wanted[EACH].items():
        for word in words.keys() - {DRIVER, "protocol"}:
            if told is not None and word not in have["functions"].get(index, told):
                raise HostError(
                    key,
                    f"{word} of function {index}",
                    f"the driver of {steps.device} does not have it",
                    f"take {word} away",
                    f"{EACH}.{index}",
                )


def _switch_mode(steps: Steps, mode: str, have: Words, observation: Observation) -> None:
    """The drivers of functions have to leave them for it, and take them up again."""
    lost, guests, impact = _lost(steps, have["functions"].values(), observation, MODE)
    provides = (f"switched:{steps.device}",)
    steps.add(
        MODE, have["mode"], mode, impact=impact, provides=provides, touches=(steps.device, *lost)
    )
    steps.changes[-1] = amended(steps.changes[-1], guests=guests)


def _count(steps: Steps, count: int, have: Words, observation: Observation) -> None:
    device = steps.device
    lost, guests, impact = _lost(steps, have["functions"].values(), observation, COUNT)
    reason = "the kernel takes all of them away first" if have["count"] and count else ""
    steps.add(
        COUNT,
        have["count"],
        count,
        impact=impact,
        reason=reason,
        provides=(f"functions:{device}",),
        requires=(f"switched:{device}",),
        touches=(device, *lost),
    )
    steps.changes[-1] = amended(steps.changes[-1], guests=guests)


def _lost(
    steps: Steps, functions: Any, observation: Observation, what: str
) -> tuple[list[str], tuple[str, ...], str]:
    """Return the devices of functions that go, who uses them, and the impact of it.

    Raises HostError where management runs through one of them.
    """
    lost = sorted(device for each in functions for device in each["devices"])
    carriers = {item["dev"] for item in observation.management}
    masters = {n: observation.links[n]["master"] for n in lost if n in observation.links}
    carrying = [n for n in lost if n in carriers or (masters.get(n) or "") in carriers]
    if carrying:
        raise HostError(
            steps.resource.key,
            "functions that carry no management",
            f"{carrying[0]} does, and would go",
            "move management to another device first",
            what,
        )
    guests = {
        _guest(holder) for each in functions for holder in holders(observation, each["handles"])
    }
    guests |= {f"a namespace's {each['address']}" for each in functions if each["elsewhere"]}
    stacked = any(observation.holders.get(name) for name in _stacked(observation, lost))
    return lost, tuple(sorted(guests)), "drain" if guests or stacked else "blip"


def _stacked(observation: Observation, devices: list[str]) -> list[str]:
    on_top = [name for name, link in observation.links.items() if link["link"] in devices]
    return [*devices, *on_top]


def _guest(holder: Words) -> str:
    return str(holder["guest"])


def _function(
    steps: Steps, index: str, wanted: Words, now: Words, observation: Observation
) -> None:
    """One change for what the NIC's driver keeps of a function, and one for its own driver."""
    what, device = f"{EACH}.{index}", steps.device
    token = f"functions:{device}"
    settings = {word: value for word, value in wanted.items() if word != DRIVER}
    changed = {word: value for word, value in settings.items() if now.get(word) != value}
    held = holders(observation, now["handles"]) if now else []
    if changed:
        before = {word: now[word] for word in changed if word in now} or None
        steps.add(
            what,
            before,
            changed,
            impact="blip" if now else "none",
            reason=_late(changed, now),
            provides=(f"function:{device}/{index}",),
            # Drivers take a rate only while the NIC knows its link's speed.
            requires=(token, f"up:{device}") if any("rate" in w for w in changed) else (token,),
        )
        steps.changes[-1] = amended(steps.changes[-1], guests=tuple(sorted(map(_guest, held))))
    driver = wanted.get(DRIVER)
    # libvirt gives a guest's function to vfio-pci while the guest runs, and then back.
    if not driver or now.get(DRIVER) == driver or (held and now[DRIVER] == VFIO):
        return
    lost, guests, impact = _lost(steps, [now] if now else [], observation, f"{what}.{DRIVER}")
    steps.add(
        f"{what}.{DRIVER}",
        now.get(DRIVER) or None,
        driver,
        impact=impact if now else "none",
        requires=(f"up:{device}", token, f"function:{device}/{index}"),
        touches=(device, *lost),
    )
    steps.changes[-1] = amended(steps.changes[-1], guests=guests)


def _late(changed: Words, now: Words) -> str:
    """Drivers of functions ask the NIC for their address when they start."""
    if "macaddress" not in changed or not now.get("devices"):
        return ""
    return f"{now['devices'][0]} may keep its own address until its driver starts again"
