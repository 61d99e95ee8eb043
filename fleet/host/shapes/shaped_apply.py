"""Sets limits: whole sides of devices, over plain netlink."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, nest, pack_text
from fleet.host.kernel.raw import Unknown
from fleet.host.kernel.raw_link import DELLINK, NEWLINK, UP, set_message
from fleet.host.kernel.traffic import DELQDISC, goes_first, read_traffic, removal, request_of
from fleet.host.reverting.snapshot_parts import read_links
from fleet.host.shapes import shaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

    Record = dict[str, Any]


def apply(system: System, change: Change, ifb_of: Callable[[str], str]) -> None:
    """Carry out one change of a device's limits; raises HostError."""
    device = change.touches[0]
    try:
        if change.what != "ingress":
            _set(system, device, "egress", _wanted(change))
        elif change.after is not None:
            _set_ingress(system, device, ifb_of(device), shaped.tbf(change.after))
        elif "ifb" in change.before:
            system.netlink.request(DELLINK, 0, set_message(_indexes(system)[device]))
        else:
            _set(system, device, "ingress", [])
    except (OSError, KeyError, Unknown) as error:
        said = getattr(error, "strerror", None) or f"no device {error}"
        raise HostError(
            change.key, "the kernel to take it", said, "see the kernel's log", change.what
        ) from error


def _wanted(change: Change) -> list[Record]:
    if change.after is None:
        return []
    return shaped.tbf(change.after) if change.what == "egress" else shaped.htb(change.after)


def _indexes(system: System) -> dict[str, int]:
    return {name: record["index"] for name, record in read_links(system.netlink).items()}


def _set(system: System, device: str, side: str, wanted: list[Record]) -> None:
    indexes = _indexes(system)
    names = {index: name for name, index in indexes.items()}
    now = read_traffic(system.netlink, names, {device}).get(f"{device}/{side}", [])
    try:
        _make(system, indexes, device, side, now, wanted)
    except OSError:
        _put_back(system, indexes, device, side, now)
        raise


def _make(
    system: System,
    indexes: dict[str, int],
    device: str,
    side: str,
    now: list[Record],
    wanted: list[Record],
) -> None:
    if goes_first(now, wanted):
        system.netlink.request(DELQDISC, 0, removal(side, indexes[device]))
    for record in wanted:
        kind, payload = request_of(record, indexes[device], indexes)
        more = NLM_F_EXCL if record["object"] == "filter" else NLM_F_REPLACE
        system.netlink.request(kind, NLM_F_CREATE | more, payload)


def _put_back(
    system: System, indexes: dict[str, int], device: str, side: str, then: list[Record]
) -> None:
    names = {index: name for name, index in indexes.items()}
    now = read_traffic(system.netlink, names, {device}).get(f"{device}/{side}", [])
    try:
        _make(system, indexes, device, side, now, then)
    except OSError:
        return  # the first refusal is what is told; the transaction's revert looks again


def _set_ingress(system: System, device: str, ifb: str, limit: list[Record]) -> None:
    """The ifb is limited before anything goes through it."""
    indexes = _indexes(system)
    index = indexes[device]
    if ifb not in indexes:
        parts = (pack_text(3, ifb), nest(18, pack_text(1, "ifb")))
        flags = NLM_F_CREATE | NLM_F_EXCL
        system.netlink.request(NEWLINK, flags, set_message(0, *parts))
        indexes = _indexes(system)
    if indexes.get(device) != index:
        raise KeyError(device)
    _set(system, ifb, "egress", limit)
    system.netlink.request(NEWLINK, 0, set_message(indexes[ifb], flags=UP, change=UP))
    names = {number: name for name, number in indexes.items()}
    now = read_traffic(system.netlink, names, {device}).get(f"{device}/ingress", [])
    if shaped.target(now) != ifb:
        _set(system, device, "ingress", shaped.ingress(ifb))
