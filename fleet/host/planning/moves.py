"""Passes over a plan's changes: addresses that change their device, and the routes they take along.

See docs/decisions/0003-how-management-moves.md.
"""

from __future__ import annotations

from fleet.host.change import Change
from fleet.host.kernel import ip
from fleet.host.links.address import listed as addresses_of
from fleet.host.links.route import (
    foreign,
    key_of,
    listed,
    normal,
    of_device,
    route_of,
    token_of,
    written,
)
from fleet.host.planning import along

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.links.route import Key
    from fleet.host.planning.draft import Draft

#: RTPROT_DHCP: a lease's routes go with its address, so they are carried like a person's.
_DHCP = 16


def check_management(draft: Draft) -> None:
    """Management may not stay behind on a port, which no longer answers, or go with a device."""
    joining, gone = draft.joining(), draft.gone()
    given = {token for change in draft.of("addresses") for token in change.provides}
    for item in draft.observation.management:
        address, port = item["address"], item["dev"]
        if port in gone and draft.token("address", address) not in given:
            draft.problem(
                gone[port].key,
                f"another device to have {address}, through which the host is managed",
                f"no resource names it, and {port} goes",
                f"name {address} in the addresses of a NIC, or keep {port} in the intent",
            )
        held = [
            other
            for other in draft.observation.addresses.get(port, ())
            if ip.host(other["address"]) == address and not other["dynamic"]
        ]
        if port not in joining or not held or _leaving(draft, port, address):
            continue
        bridge = joining[port]
        if draft.by_device[bridge].kind == "vrf":
            # No socket that is not bound to the VRF takes what comes in (vrf.rst, Applications).
            draft.problem(
                draft.by_device[bridge].key,
                f"{port}, through which the host is managed, in no VRF",
                f"sshd is not bound to {bridge}",
                f"leave {port} out of the interfaces, or move management to another NIC first",
                "interfaces",
            )
            continue
        draft.problem(
            draft.by_device[bridge].key,
            f"{address}, through which the host is managed, on {bridge}",
            f"it stays on {port}, which as a port no longer answers",
            f"name {held[0]['address']} in the addresses of {bridge}",
            "interfaces",
        )


def move_addresses(draft: Draft) -> dict[str, tuple[str, str, str]]:
    """Order the addresses that change their device; return (from, to, address/length) by address.

    Between a port and its bridge the new one comes first, so that the host is never without;
    the old one goes right after the port has joined.
    """
    moved: dict[str, tuple[str, str, str]] = {}
    joining, gone = draft.joining(), draft.gone()
    for change in draft.of("addresses"):
        if change.before is not None:
            continue
        text = change.after if isinstance(change.after, str) else change.after["address"]
        address, target = ip.host(ip.normal(text)), change.touches[0]
        if ip.link_local(address):
            continue
        for source in _holders(draft, address, target):
            leaving = _leaving(draft, source, address)
            family = joining.get(source) == target or _was_port(draft, target, source)
            if leaving is None and source not in gone:
                if not family:
                    draft.problem(
                        change.key,
                        f"{address} on {target} alone",
                        f"{source} has it too",
                        f"take it off {source}, or name {source} with addresses: []",
                        "addresses",
                    )
                    continue
                leaving = _take_off(draft, target, source, address)
            moved[address] = (source, target, ip.normal(text))
            if family:
                change = _make_before_break(draft, change, leaving, source, target, address)
    for source, target, text in strays(draft):
        address = ip.host(text)
        if address not in moved:
            moved[address] = (source, target, text)
            if _leaving(draft, source, address) is None:
                _take_off(draft, target, source, address)
    return moved


def _holders(draft: Draft, address: str, target: str) -> list[str]:
    return [
        device
        for device, items in draft.observation.addresses.items()
        if device != target
        and any(ip.host(item["address"]) == address and not item["kernel"] for item in items)
    ]


def _leaving(draft: Draft, source: str, address: str) -> Change | None:
    for change in draft.of("addresses"):
        if change.after is None and change.touches[0] == source:
            text = change.before if isinstance(change.before, str) else change.before["address"]
            if ip.host(text) == address:
                return change
    return None


def _was_port(draft: Draft, target: str, source: str) -> bool:
    link = draft.observation.links.get(target)
    return link is not None and link["master"] == source


def _take_off(draft: Draft, target: str, source: str, address: str) -> Change:
    resource = draft.by_device.get(source) or draft.by_device[target]
    before = next(
        item["address"]
        for item in draft.observation.addresses[source]
        if ip.host(item["address"]) == address
    )
    off = Change(
        draft.namespace, resource.kind, resource.name,
        "update", "addresses", before, None, "blip", (), f"moves to {target}",
        (draft.token("free", address),),
        (draft.token("device", source), draft.token("port", f"{target}/{source}")), (source,),
    )  # fmt: skip
    draft.changes.append(off)
    return off


def strays(draft: Draft) -> list[tuple[str, str, str]]:
    """Return (from, to, address/length) of addresses that a port shares with its bridge.

    A move that was interrupted leaves both; the port's is of no use and answers for the other.
    """
    found = []
    joining = draft.joining()
    for target in draft.by_device:
        for text in addresses_of(draft.spec_of(target).get("addresses")):
            for source in _holders(draft, ip.host(text), target):
                link = draft.observation.links.get(source)
                port = joining.get(source) == target or (link and link["master"] == target)
                if port and not ip.link_local(text):
                    found.append((source, target, text))
    return found


def _make_before_break(
    draft: Draft, change: Change, leaving: Change | None, source: str, target: str, address: str
) -> Change:
    free = draft.token("free", address)
    after = change.after
    if ip.family(address) == 6:
        words = {"address": after} if isinstance(after, str) else after
        after = {**words, "moved": True}
    change = draft.amend(
        change,
        after=after,
        reason=f"moves from {source}",
        requires=tuple(token for token in change.requires if token != free),
    )
    waits = (draft.token("address", address), draft.token("port", f"{target}/{source}"))
    if leaving is not None:
        draft.amend(leaving, requires=(*leaving.requires, *waits), reason=f"moves to {target}")
    elif source in draft.gone():
        gone = draft.gone()[source]
        draft.amend(gone, requires=(*gone.requires, *waits))
    return change


def restore_routes(draft: Draft, moved: dict[str, tuple[str, str, str]]) -> None:
    """See to the routes that the kernel drops with a device's last address, or with the device.

    Those that intent names elsewhere are added there; the rest goes with the addresses to the
    device that takes them, so that nobody loses the way in for not having written it down.
    """
    targets: dict[str, list[tuple[str, str]]] = {}
    for source, target, text in moved.values():
        targets.setdefault(source, []).append((target, text))
    changed = {change.touches[0] for change in draft.of("addresses")} | set(draft.gone())
    # What is made again gets its routes with its addresses.
    changed -= draft.made_again()
    for device in sorted(changed):
        if device not in draft.observation.links:
            continue
        for route in of_device(draft.observation.routes, device):
            if _goes(draft, device, route, targets):
                _restore(draft, device, route, targets.get(device, []))
    along.see_to_neighbours(draft, changed, targets)
    _check_places(draft)


def _goes(
    draft: Draft, device: str, route: dict[str, Any], targets: dict[str, list[tuple[str, str]]]
) -> bool:
    """Say whether a route goes, or should, given where the addresses go."""
    if device in draft.gone():
        return True
    if _loses_source(draft, device, route):
        return True
    places = [text for _, text in targets.get(device, []) if ip.family(text) == route["family"]]
    via = route.get("via")
    if via and any(ip.inside(via, text) for text in places):
        # The kernel may keep it; but a gateway behind a bridge is not reached through its port.
        return True
    if route["family"] == 6:
        return bool(places) and via is None
    have = {i["address"] for i in draft.observation.addresses.get(device, []) if i["family"] == 4}
    if not have:
        return False
    for change in draft.of("addresses"):
        if change.touches[0] != device or isinstance(change.before, list):
            continue
        for item in (change.before, change.after):
            if item is None:
                continue
            text = ip.normal(item if isinstance(item, str) else item["address"])
            if item is change.after:
                have.add(text)
            else:
                have.discard(text)
    return not any(ip.family(text) == 4 for text in have)


def _loses_source(draft: Draft, device: str, route: dict[str, Any]) -> bool:
    """Say whether the address that a route sends from goes, and to no other device of the host.

    Then the kernel drops the route (fib_sync_down_addr in net/ipv4/fib_semantics.c).
    """
    source = route.get("from")
    if not source or _leaving(draft, device, source) is None:
        return False
    given = {token for change in draft.of("addresses") for token in change.provides}
    return draft.token("address", source) not in given


def _restore(
    draft: Draft, device: str, route: dict[str, Any], targets: list[tuple[str, str]]
) -> None:
    key = key_of(route)
    own = [change for change in draft.of("routes") if _key(change) == key]
    removal = next((c for c in own if c.after is None and c.touches[0] == device), None)
    other = next((c for c in own if c.after is not None and c.touches[0] != device), None)
    if other is not None:
        _after_drop(draft, device, route, other, removal)
        return
    if removal is not None:
        return
    gone = [entry.spec or {} for entry in draft.removals if entry.name == device]
    if any(key in listed(spec.get("routes")) for spec in gone):
        return  # fleet put it there, and intent has let go of the device and all it named
    if key in listed(draft.spec_of(device).get("routes")):
        draft.problem(
            draft.by_device[device].key,
            f"an address on {device} for its route to {route['to']}",
            f"{device} loses its last address",
            f"name the route where the address goes, or keep an address on {device}",
            "routes",
        )
        return
    if foreign(route) and route["protocol"] != _DHCP:
        return
    via = route.get("via")
    target = next((t for t, text in targets if via is None or ip.inside(via, text)), None)
    if target is not None:
        _carry(draft, device, route, target)
        return
    table = "" if route["table"] == 254 else f" of table {route['table']}"
    if not along.stays(draft, device, route, of_device(draft.observation.routes, device)):
        along.tell(draft, device, f"the route to {route['to']}{table}")


def _key(change: Change) -> Key:
    return key_of(normal(route_of(change.before if change.after is None else change.after)))


def _after_drop(
    draft: Draft, device: str, route: dict[str, Any], other: Change, removal: Change | None
) -> None:
    """Let a route's new place replace the old one, as soon as the old one is of no use."""
    if removal is not None:
        draft.drop(removal)
    needs = (*other.requires, *_useless(draft, device, route, other.touches[0]))
    draft.amend(other, before=written(route), requires=needs)


def _useless(draft: Draft, device: str, route: dict[str, Any], target: str) -> list[str]:
    """Return the tokens after which a route out of a device leads nowhere.

    IPv4's routes go with the last address; IPv6's stay, but the gateway is behind the bridge.
    """
    if device in draft.gone():
        return [draft.token("absent", device)]
    port = draft.token("port", f"{target}/{device}")
    if route["family"] == 6:
        return [port]
    return [port] + [
        draft.token("free", ip.host(item["address"]))
        for item in draft.observation.addresses.get(device, [])
    ]


def _carry(draft: Draft, device: str, route: dict[str, Any], target: str) -> None:
    resource = draft.by_device[target]
    words = written(route, device)
    if draft.spec_of(target).get("routes") is not None:
        draft.problem(
            resource.key,
            f"the route to {route['to']} via {route.get('via') or device} to be named",
            f"{device} has it, and loses it with its address",
            f"name it in the routes of {target}",
            "routes",
        )
        return
    needs = [draft.token(word, target) for word in ("device", "up", "addresses")]
    needs += _useless(draft, device, route, target)
    draft.changes.append(
        Change(
            draft.namespace, resource.kind, resource.name, "update", "routes",
            written(route), words, "none", (),
            f"carried over from {device}, which would lose it with its address",
            (draft.token(*token_of(key_of(route)).split(":", 1)),), tuple(needs), (target,),
        )
    )  # fmt: skip


def _check_places(draft: Draft) -> None:
    """A route's place (destination, table, metric) that another device holds is a conflict."""
    for change in draft.of("routes"):
        if change.before is not None:
            continue
        key, device = _key(change), change.touches[0]
        for route in draft.observation.routes:
            if key_of(route) != key or route["dev"] in (device, None) or _frees(draft, route):
                continue
            if route.get("type") not in (None, "unicast"):
                continue
            draft.problem(
                change.key,
                f"the route to {key[1]} with metric {key[3]} in table {key[2]} to be free",
                f"{route['dev']} has one via {route.get('via') or 'the link'}",
                f"give this one another metric, or name the routes of {route['dev']}",
                "routes",
            )


def _frees(draft: Draft, route: dict[str, Any]) -> bool:
    device = route["dev"]
    if device in draft.gone():
        return True
    removed = any(
        change.after is None and change.touches[0] == device and _key(change) == key_of(route)
        for change in draft.of("routes")
    )
    return removed or (route["family"] == 4 and _goes(draft, device, route, {}))
