"""Addresses of a device: what intent names against what the kernel has."""

from __future__ import annotations

from fleet.host.kernel import ip
from fleet.host.links.link import Address
from fleet.host.spec import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.links.steps import Steps

#: include/uapi/linux/if_addr.h
DEPRECATED = 0x20
#: RTPROT_STATIC, as systemd-networkd may mark its addresses (IFA_PROTO, Linux 5.18).
_OURS = (None, 0, 4)


def foreign(observed: dict[str, Any]) -> bool:
    """Say whether an address is somebody else's to manage: the kernel's, a lease's, a daemon's."""
    return bool(observed["kernel"] or observed["dynamic"] or observed.get("protocol") not in _OURS)


def written(observed: dict[str, Any], device: str) -> Any:
    """Return an observed address as intent would write it."""
    extra: dict[str, Any] = {}
    if observed.get("label") and observed["label"] != device:
        extra["label"] = observed["label"]
    if observed["flags"] & DEPRECATED and not observed["dynamic"]:
        extra["lifetime"] = "0"
    return {"address": observed["address"], **extra} if extra else observed["address"]


def plain(address: Address) -> Any:
    """Return a wanted address as intent writes it."""
    data = {name: value for name, value in encode(address).items() if value is not None}
    return data if len(data) > 1 else data["address"]


def listed(items: Iterable[Any] | None) -> dict[str, Address]:
    """Return addresses of a spec, records or plain data, by their text in the kernel's spelling."""
    found: dict[str, Address] = {}
    for item in items or ():
        if isinstance(item, str):
            item = Address(item)
        elif isinstance(item, dict):
            item = Address(item["address"], item.get("label"), item.get("lifetime"))
        found[ip.normal(item.address)] = item
    return found


def diff_addresses(
    steps: Steps,
    wanted: tuple[Address, ...] | None,
    previous: Iterable[Any] | None,
    original: Iterable[Any] | None,
    observed: list[dict[str, Any]],
) -> None:
    """Add the changes of ``addresses`` to steps.

    ``previous`` is the list of the last commit, ``original`` the one before adoption: entries
    that fleet put go when intent no longer names them, even where it no longer names the list.
    """
    have = {item["address"]: item for item in observed}
    before, names = listed(previous), listed(wanted)
    order = [item["address"] for item in observed]
    last: dict[tuple[int, int, int], str] = {}
    for text, address in names.items():
        after, last[ip.subnet(text)] = last.get(ip.subnet(text), ""), f"address:{ip.host(text)}"
        if text not in have:
            # One that another device has yet to free must not come behind those listed after it.
            _add(steps, text, address, after)
        elif _compare(steps, address, before.get(text), have[text]):
            # Taken off and added again, it comes last.
            order.remove(text)
    # A device without the field still loses what fleet put there.
    put = [text for text in before if text not in listed(original)]
    for text, item in have.items():
        ours = text in put and not item["kernel"]
        if text not in names and (ours or (wanted is not None and not foreign(item))):
            _remove(steps, item)
    if wanted:
        _order(steps, list(names), order)


def _add(steps: Steps, text: str, address: Address, after: str) -> None:
    tokens = (f"address:{ip.host(text)}", f"addresses:{steps.device}")
    needs = (f"free:{ip.host(text)}", *((after,) if after else ()))
    steps.add("addresses", None, plain(address), provides=tokens, requires=needs)


def _remove(steps: Steps, item: dict[str, Any]) -> None:
    steps.add(
        "addresses",
        written(item, steps.device),
        None,
        impact="blip",
        provides=(f"free:{ip.host(item['address'])}",),
    )


def _compare(
    steps: Steps, wanted: Address, before: Address | None, observed: dict[str, Any]
) -> bool:
    """Add the change of an address that is there; say whether it has to be taken off for it."""
    label = wanted.label or (steps.device if before and before.label else None)
    if ip.family(wanted.address) == 6 or label == observed["label"]:
        label = None
    old = bool(observed["flags"] & DEPRECATED)
    lifetime = wanted.lifetime or ("forever" if before and before.lifetime else None)
    off = lifetime is not None and (lifetime == "0") != old
    reason, failed = "", bool(observed.get("dadfailed"))
    if observed["dynamic"]:
        off, reason = True, "the lease would expire"
    elif failed:
        reason = "duplicate address detection failed: another host has it"
    if not (label or off or failed):
        return False
    after = {"address": wanted.address, "lifetime": lifetime or ("0" if old else "forever")}
    if label:
        after["label"] = label
    tokens = (f"address:{ip.host(wanted.address)}",)
    was = written(observed, steps.device)
    steps.add("addresses", was, after, impact="blip", reason=reason, provides=tokens)
    return bool(label or failed)


def _order(steps: Steps, wanted: list[str], have: list[str]) -> None:
    """The first IPv4 address of a subnet is its primary: the source of what the host sends."""
    now = [text for text in have if text in wanted and ip.family(text) == 4]
    # What is about to be added comes after what is there.
    now += [text for text in wanted if text not in now and ip.family(text) == 4]
    then = [text for text in wanted if ip.family(text) == 4]
    moved: list[str] = []
    first, second = by_subnet(now), by_subnet(then)
    for net, texts in second.items():
        same = 0
        while same < len(texts) and first[net][same] == texts[same]:
            same += 1
        moved += texts[same:]
    if moved:
        tokens = [f"address:{ip.host(text)}" for text in moved]
        steps.add(
            "addresses",
            now,
            then,
            impact="blip",
            reason="the first address of a subnet is the source of what the host sends",
            requires=tokens,
        )


def by_subnet(texts: Iterable[str]) -> dict[tuple[int, int, int], list[str]]:
    """Return addresses by their subnet, each list in the order given."""
    found: dict[tuple[int, int, int], list[str]] = {}
    for text in texts:
        found.setdefault(ip.subnet(text), []).append(text)
    return found
