"""A host's network as it was: all that a plan touches, and all that depends on it.

``capture`` reads, ``differences`` compares; both are what a revert stands on, so they use the plain
netlink client only, and work from memory. A snapshot is plain JSON of the kernel's own messages,
see raw. What the kernel writes by itself (states, counters, ages) is not in it.
"""

from __future__ import annotations

from fleet.host.kernel import bridge_timers
from fleet.host.kernel.raw_link import passes_through
from fleet.host.kernel.traffic import read_traffic
from fleet.host.reverting import snapshot_parts as parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.kernel.system import System

    Record = dict[str, Any]
    Snapshot = dict[str, Any]


def capture(system: System, scope: Record, like: Snapshot | None = None) -> Snapshot:
    """Return what is touched, and what depends on it, as it is now.

    ``scope``: ``devices`` (names, also of devices that a plan will make), ``sysctls``, ``files``,
    ``rules`` (bool), ``tables`` (nftables, ``family/table``),
    ``settings`` (devices, for what ethtool sets), ``functions`` (NICs, for SR-IOV),
    ``drivers`` (PCI addresses), ``mounts`` (paths), ``modules`` (names), ``values`` (files of /sys
    and /proc), ``whole`` (bool: all that is in the namespace), and ``namespaces`` (a scope for each
    name). With ``like`` the same things are read that another snapshot holds. Raises OSError.
    """
    netlink = system.netlink
    links = parts.read_links(netlink)
    names = {record["index"]: name for name, record in links.items()}
    named = sorted({*(scope.get("devices") or ()), *(links if scope.get("whole") else ())})
    wide = parts.read_wide_leaves(scope.get("sysctls") or ())
    if like is not None:
        devices, own_keys = like["devices"], like["keyed"]
    else:
        devices, own_keys = depending(links, named)
        if any(directory == "net/ipv6/conf" for directory, leaf in wide if leaf == "disable_ipv6"):
            devices = sorted({*devices, *links})
    inside = set(devices)
    addresses = parts.read_addresses(netlink, names, inside)
    sources = set(like["sources"]) if like is not None else parts.read_sources(addresses)
    nexthops = parts.read_nexthops(netlink, names, inside)
    ids = {record["id"] for record in nexthops}
    ids |= {record["id"] for record in like["nexthops"]} if like is not None else set()
    inside_links = {name: links.get(name) for name in devices}
    bridge_timers.put_own(system, inside_links)
    return {
        "scope": scope,
        "at": system.boottime(),
        "named": named,
        "devices": devices,
        "keyed": own_keys,
        "sources": sorted(sources),
        "links": inside_links,
        "addresses": addresses,
        "routes": parts.read_routes(netlink, names, inside, sources, ids),
        "nexthops": nexthops,
        "rules": parts.read_rules(netlink) if _wants(scope, "rules") else [],
        "neighbours": parts.read_neighbours(netlink, names, inside),
        "fdb": parts.read_fdb(netlink, names, inside, links),
        "mdb": parts.read_mdb(netlink, names, inside),
        "vlans": parts.read_vlans(netlink, names, inside),
        "traffic": read_traffic(netlink, names, {*named, *own_keys}),
        "sysctls": parts.read_sysctls(system, _sysctls(system, scope, like), own_keys, wide, links),
        "tables": _tables(system, scope, like),
        "settings": _settings(system, scope),
        "functions": _functions(system, scope, inside_links),
        "drivers": _drivers(system, scope),
        **_mounts(system, scope),
        "values": _values(system, scope),
        **_switches(system, scope),
        **_networks(system, scope),
        "files": {path: parts.read_file(system, path) for path in scope.get("files") or ()},
        "namespaces": _namespaces(system, scope, like),
    }


def require_way_back(system: System, snapshot: Snapshot) -> None:
    """Raise HostError where what a snapshot keeps could not be given back to the kernel."""
    from fleet.host.tables import ruleset

    ruleset.require_way_back(system, snapshot["tables"])
    for name, inner in snapshot["namespaces"].items():
        if inner is not None:
            require_way_back(system.at(name), inner)


def _settings(system: System, scope: Record) -> Record:
    if not scope.get("settings"):
        return {}
    from fleet.host.reverting.restore_settings import read_settings

    return {name: read_settings(system, name) for name in scope["settings"]}


def _functions(system: System, scope: Record, links: Record) -> Record:
    if not scope.get("functions"):
        return {}
    from fleet.host.reverting.restore_functions import read_functions

    return {name: read_functions(system, name, links.get(name)) for name in scope["functions"]}


def _drivers(system: System, scope: Record) -> Record:
    if not scope.get("drivers"):
        return {}
    from fleet.host.reverting.restore_drivers import read_drivers

    return read_drivers(system, scope["drivers"])


def _mounts(system: System, scope: Record) -> Record:
    paths, names = scope.get("mounts") or [], scope.get("modules") or []
    if not paths and not names:
        return {"mounts": {}, "modules": {}}
    from fleet.host.reverting.restore_mounts import read_modules, read_mounts

    return {"mounts": read_mounts(system, paths), "modules": read_modules(system, names)}


def _values(system: System, scope: Record) -> Record:
    if not scope.get("values"):
        return {}
    from fleet.host.reverting.restore_values import read_values

    return read_values(system, scope["values"])


def _switches(system: System, scope: Record) -> Record:
    if not parts.has_switches(scope):
        return {"switches": {}, "flows": {}}
    from fleet.host.reverting.restore_switches import read_flows, read_switches

    return {
        "switches": read_switches(system, scope["switches"]),
        "flows": read_flows(system, scope["flows"]),
    }


def _networks(system: System, scope: Record) -> Record:
    if not any(map(scope.get, ("networks", "nwfilters", "guests"))):
        return {"networks": {}, "nwfilters": {}, "guests": {}}
    from fleet.host.reverting.restore_guests import read_guests
    from fleet.host.reverting.restore_networks import read_filters, read_networks

    return {
        "networks": read_networks(system, scope.get("networks") or []),
        "nwfilters": read_filters(system, scope.get("nwfilters") or []),
        "guests": read_guests(system, scope.get("guests") or []),
    }


def _namespaces(system: System, scope: Record, like: Snapshot | None) -> Record:
    found: Record = {}
    for name, inner in (scope.get("namespaces") or {}).items():
        there = system.at(name)
        before = like["namespaces"].get(name) if like is not None else None
        # A socket would keep a namespace alive, and one of an older namespace see that one.
        there.shut()
        found[name] = capture(there, inner, before) if there.exists() else None
        there.shut()
    return found


def _wants(scope: Record, word: str) -> bool:
    return bool(scope.get(word) or scope.get("whole"))


def _sysctls(system: System, scope: Record, like: Snapshot | None) -> list[str]:
    """Return the keys to read: those named, and of a whole namespace all but the devices' own."""
    if not scope.get("whole"):
        return list(scope.get("sysctls") or ())
    if like is not None:
        own = set(like["devices"])
        return [name for name in like["sysctls"] if own.isdisjoint(name.split("/")[3:4])]
    return [*(scope.get("sysctls") or ()), *parts.settable_keys(system)]


def _tables(system: System, scope: Record, like: Snapshot | None) -> Record:
    if not _wants(scope, "tables"):
        return {}
    from fleet.host.tables import ruleset

    named = set(scope.get("tables") or ())
    if scope.get("whole"):
        named |= set(like["tables"]) if like is not None else set(ruleset.tables(system))
    return {name: ruleset.picture(system, name) for name in sorted(named)}


def depending(links: dict[str, Record], named: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the devices that a change of the named ones can alter, and those it can delete.

    Deleting a device deletes what stands on it (VLANs, macvlans) and a veth's peer; a bridge's
    ports lose their master and port attributes with it; a bridge's MAC and MTU follow its ports.
    What is below a macvlan in passthru mode has its MAC address.
    """
    gone = set(named)
    while True:
        above = {n for n, record in links.items() if record["link"] in gone}
        peers = {
            links[n]["link"]
            for n in gone
            if n in links and links[n]["kind"] == "veth" and isinstance(links[n]["link"], str)
        }
        if above | peers <= gone:
            break
        gone |= above | peers
    every = set(gone)
    every |= {n for n, record in links.items() if record["master"] in named}
    every |= {links[n]["master"] for n in gone if n in links and links[n]["master"]}
    every |= {links[n]["link"] for n in gone if n in links and passes_through(links[n])}
    return sorted(every), sorted(gone | {n for n in every - gone if _is_master(links, n)})


def _is_master(links: dict[str, Record], name: str) -> bool:
    return any(record["master"] == name for record in links.values())
