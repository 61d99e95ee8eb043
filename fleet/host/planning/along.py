"""What is others' and goes along with an address or a device: it stays, moves along, or is told.

With a device's last IPv4 address the kernel drops its routes of every table and its permanent
neighbours (net/ipv4/fib_frontend.c, fib_disable_ip), whoever put them there. What is possible
without the address is put back in the same step (``link_apply.keeping_others``); what is not needs
to be allowed by name. See docs/decisions/0006-what-goes-along-with-an-address.md.
"""

from __future__ import annotations

from fleet.host import registry
from fleet.host.change import Change
from fleet.host.kernel import ip
from fleet.host.links.address import foreign, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.planning.draft import Draft

    Targets = dict[str, list[tuple[str, str]]]

#: include/uapi/linux/neighbour.h
_PERMANENT = 0x80


def stays(draft: Draft, device: str, route: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    """Say whether a route is possible on a device that has lost its last IPv4 address.

    ``others`` are the device's routes: one without a gateway that covers this one's will do.
    """
    if device in draft.gone() or route.get("from"):
        return False
    via = route.get("via")
    if via is None or "onlink" in _flags(route):
        return True
    return any(
        other.get("via") is None
        and not other.get("from")
        and other["family"] == route["family"]
        and (other["to"] == "default" or ip.inside(via, other["to"]))
        for other in others
    )


def _flags(route: dict[str, Any]) -> Any:
    flags = route.get("flags") or 0
    if isinstance(flags, int):
        return ("onlink",) if flags & 4 else ()
    return flags


def tell(draft: Draft, device: str, words: str) -> None:
    """Say of the change that takes something of others' along what it takes."""
    leaving = [c for c in draft.of("addresses") if c.touches[0] == device and c.after is None]
    removal = draft.gone().get(device) or next(iter(leaving), None)
    if removal is not None and words not in removal.takes:
        reason = "; ".join(filter(None, (removal.reason, f"takes {words} along")))
        draft.amend(removal, reason=reason, takes=(*removal.takes, words))


def see_to_addresses(draft: Draft, moved: Iterable[str]) -> None:
    """Tell of addresses that somebody gave to a device that the plan deletes.

    ``moved`` are those that go to another device.
    """
    gone = draft.gone()
    back: set[tuple[str, str]] = set()
    for change in draft.of("addresses"):
        after = change.after if isinstance(change.after, (list, tuple)) else [change.after]
        back |= {(change.touches[0], text) for text in listed(each for each in after if each)}
    specs = {entry.name: entry.spec for entry in draft.removals if entry.kind in registry.DEVICES}
    for device in gone:
        resource = draft.by_device.get(device)
        spec = (resource.spec if resource is not None else specs.get(device)) or {}
        own = {*listed(spec.get("addresses")), *moved}
        for item in draft.observation.addresses.get(device, []):
            text = item["address"]
            if not foreign(item) and text not in own and (device, text) not in back:
                tell(draft, device, f"the address {text}")


def see_to_neighbours(draft: Draft, changed: set[str], targets: Targets) -> None:
    """Carry permanent neighbours to where their subnet goes; tell of those that go with a device.

    The rest stays: the kernel needs no address on a device for its neighbours.
    """
    devices = {name for name in changed if name in targets or name in draft.gone()}
    if not devices:
        return
    own = _named(draft)
    for item in draft.observation.neighbours:
        device, address = item["dev"], item["address"]
        if device not in devices or not item["state"] & _PERMANENT or not item["mac"]:
            continue
        if (device, address) in own:
            continue
        places = targets.get(device, [])
        target = next((name for name, text in places if ip.inside(address, text)), None)
        if target is None:
            if device in draft.gone():
                tell(draft, device, f"the neighbour {address}")
        elif (target, "") not in own:
            _carry(draft, device, target, item)


def _named(draft: Draft) -> set[tuple[str, str]]:
    """Return (device, address) of neighbours that are fleet's; (device, "") for a named list."""
    found: set[tuple[str, str]] = set()
    items: list[Any] = [*draft.resources, *draft.removals]
    for item in items:
        if item.kind == "neighbour":
            device = draft.observation.aliases.get(item.name, item.name)
            found.add((device, ""))
            entries = (item.spec or {}).get("entries") or ()
            found |= {(device, ip.normal(each["address"])) for each in entries}
    return found


def _carry(draft: Draft, device: str, target: str, item: dict[str, Any]) -> None:
    resource = draft.by_device[target]
    address = item["address"]
    words = {"address": address, "macaddress": item["mac"]}
    needs = [draft.token(word, target) for word in ("device", "up", "addresses", "mac")]
    if device not in draft.gone():
        needs.append(draft.token("port", f"{target}/{device}"))
        needs += [
            draft.token("free", ip.host(each["address"]))
            for each in draft.observation.addresses.get(device, [])
            if each["family"] == (6 if ":" in address else 4)
        ]
    draft.changes.append(
        Change(
            draft.namespace, resource.kind, resource.name, "update", "neighbours",
            {**words, "dev": device}, words, "none", (),
            f"carried over from {device}, where its subnet no longer is",
            (), tuple(needs), (target, device),
        )
    )  # fmt: skip
