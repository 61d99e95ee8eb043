"""Whom a change touches: the guests on its devices, and what cannot be undone."""

from __future__ import annotations

from fleet.host.change import DELETE, IMPACTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.change import Change, Problem
    from fleet.host.kernel.observation import Observation
    from fleet.host.planning.draft import Draft


def count_guests(draft: Draft) -> None:
    """Name the guests of every change that interrupts, and raise what cannot be taken back.

    The processes of the host are read only when there is such a change.
    """
    on_top = _on_top(draft.observation)
    for change in list(draft.changes):
        if change.impact == "none" and change.action != DELETE:
            continue
        devices = reach(draft.observation, change, on_top)
        holders = draft.observation.holders
        held = [holder for device in devices for holder in holders.get(device, ())]
        found = {_words(holder) for holder in held if holder.get("guest")}
        guests = tuple(sorted({*change.guests, *found}))
        own = holders.get(change.touches[0], ()) if change.touches else ()
        final = change.action == DELETE or change.after == "off"
        impact = "drain" if final and (guests or own) else change.impact
        if guests != change.guests or impact != change.impact:
            draft.amend(change, guests=guests, impact=impact)


def _words(holder: dict[str, Any]) -> str:
    guest = holder["guest"]
    return guest if isinstance(guest, str) else f"{holder['command']} ({holder['pid']})"


def reach(observation: Observation, change: Change, on_top: dict[str, list[str]]) -> list[str]:
    """Return the devices whose traffic a change interrupts.

    A bridge reaches its ports; a NIC that is a port reaches all of its bridge, for it is their
    way out; and what is stacked on a device goes with it.
    """
    if change.what.startswith("ports."):
        # Cost and priority move the traffic of one port only.
        return list(change.touches[1:])
    links = observation.links
    found: dict[str, None] = {}
    waiting = list(change.touches)
    while waiting:
        device = waiting.pop()
        if device in found or device not in links:
            continue
        found[device] = None
        waiting += on_top.get(device, ())
        link = links[device]
        if link["master"] and device in change.touches and link["kind"] not in ("tun", "macvtap"):
            waiting.append(link["master"])
    return list(found)


def _on_top(observation: Observation) -> dict[str, list[str]]:
    """Return what is stacked on each device: a bridge's ports, a NIC's macvtaps."""
    stacked: dict[str, list[str]] = {}
    for name, link in observation.links.items():
        if link["master"]:
            stacked.setdefault(link["master"], []).append(name)
        if isinstance(link["link"], str) and link["kind"] != "veth":
            stacked.setdefault(link["link"], []).append(name)
    return stacked


def allowed(changes: Iterable[Change], allow: Iterable[str]) -> tuple[Problem, ...]:
    """Return a problem for each change that cannot be undone, or takes along what is others',
    and that nobody allowed.

    ``allow`` holds impacts (``drain``, ``reboot``), ``foreign`` for what is others', and keys of
    resources. To allow ``reboot`` does not allow ``drain``: guests are in no plan for a reboot.
    """
    permitted = set(allow)
    found: list[Problem] = []
    for change in changes:
        final = IMPACTS.index(change.impact) >= IMPACTS.index("drain")
        if final and not permitted & {change.impact, change.key}:
            found.append(_final(change))
        if change.takes and not permitted & {"foreign", change.key}:
            found.append(_takes(change))
    return tuple(found)


def _final(change: Change) -> Problem:
    from fleet.host.change import Problem

    return Problem(
        change.key,
        change.what,
        "nothing that cannot be undone",
        f"a change of impact {change.impact}"
        + (f" with guests {', '.join(change.guests)}" if change.guests else ""),
        f"move the guests away, or allow it: --allow {change.impact} or --allow {change.key}",
    )


def _takes(change: Change) -> Problem:
    from fleet.host.change import Problem

    return Problem(
        change.key,
        change.what,
        "nothing that is others' to be lost",
        f"it takes {', '.join(change.takes)} along",
        f"name it where it shall be, or allow it: --allow foreign or --allow {change.key}",
    )
