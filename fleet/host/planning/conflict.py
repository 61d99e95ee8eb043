"""What a state's resources claim twice; pure, and before anything is compared with the host."""

from __future__ import annotations

from fleet.host import registry
from fleet.host.kernel import ip
from fleet.host.links.address import listed as addresses_of
from fleet.host.links.link_diff import device_of
from fleet.host.links.route import listed as routes_of
from fleet.host.planning.draft import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.change import Problem, Resource

#: RFC 8200, 5: the least MTU IPv6 works with; below it the kernel turns IPv6 off.
IPV6_MTU = 1280


class _Unobserved:
    """Stands for a host that nobody has asked: intent's names are the kernel's."""

    aliases: dict[str, str] = {}


def claims(resources: Iterable[Resource]) -> tuple[Problem, ...]:
    """Return a problem for each thing that two resources of a state claim; contacts no host.

    What intent calls two names may be one NIC; only a host's own plan can tell.
    """
    found: list[Problem] = []
    spaces: dict[str, list[Resource]] = {}
    for resource in resources:
        spaces.setdefault(resource.namespace, []).append(resource)
    for namespace, own in spaces.items():
        nobody: Any = _Unobserved()
        draft = Draft(namespace, own, nobody)
        check(draft)
        found += draft.problems
    return tuple(found)


def check(draft: Draft) -> None:
    """Add a problem for each thing that two resources claim."""
    devices = [r for r in draft.resources if r.kind in registry.DEVICES]
    _names(draft, devices)
    _ports(draft, devices)
    _addresses(draft, devices)
    _subnets(draft, devices)
    _routes(draft, devices)


def _names(draft: Draft, devices: list[Resource]) -> None:
    seen: dict[str, Resource] = {}
    for resource in devices:
        name = device_of(draft.observation, resource.name)
        if name in seen:
            draft.problem(
                resource.key,
                f"the device {name} to itself",
                f"{seen[name].key} is the same device",
                "name each device once",
            )
        seen.setdefault(name, resource)


def _ports(draft: Draft, devices: list[Resource]) -> None:
    masters: dict[str, Resource] = {}
    bridges = {resource.name for resource in devices if resource.kind == "bridge"}
    for resource in devices:
        for port in (resource.spec or {}).get("interfaces") or ():
            if port in bridges and resource.kind != "vrf":
                draft.problem(
                    resource.key,
                    "ports that are not bridges",
                    f"{port} is a bridge",
                    "join two bridges with a veth pair",
                    "interfaces",
                )
            if port in masters:
                draft.problem(
                    resource.key,
                    f"{port} as a port",
                    f"{masters[port].key} names it too",
                    "a device is a port of one bridge: take it off one of them",
                    "interfaces",
                )
            masters.setdefault(port, resource)


def _addresses(draft: Draft, devices: list[Resource]) -> None:
    holders: dict[str, Resource] = {}
    for resource in devices:
        spec = resource.spec or {}
        for text in addresses_of(spec.get("addresses")):
            address = ip.host(text)
            if ip.link_local(text):
                continue
            if address in holders and holders[address] is not resource:
                draft.problem(
                    resource.key,
                    f"{address} on one device",
                    f"{holders[address].key} names it too",
                    "take it off one of them",
                    "addresses",
                )
            holders.setdefault(address, resource)
            if ip.family(text) == 6 and (spec.get("mtu") or IPV6_MTU) < IPV6_MTU:
                draft.problem(
                    resource.key,
                    f"an MTU of at least {IPV6_MTU} for {text}",
                    str(spec["mtu"]),
                    "raise mtu or take the IPv6 addresses away",
                    "mtu",
                )


def _subnets(draft: Draft, devices: list[Resource]) -> None:
    """Two devices in overlapping subnets: the kernel would answer for one through the other."""
    taken: dict[tuple[str, int, int, int], tuple[str, Resource]] = {}
    vrfs = _vrfs(devices)
    lengths: set[int] = set()
    texts = [(text, r) for r in devices for text in addresses_of((r.spec or {}).get("addresses"))]
    # The larger first: what overlaps a smaller one is then in it or around it.
    for text, resource in sorted(texts, key=lambda item: ip.length(item[0])):
        size = ip.length(text)
        if size == ip.bits(text) or ip.link_local(text):
            continue  # an address of its own, as a service's, or of its own link
        family, number, _ = ip.subnet(text)
        vrf = vrfs.get(resource.name, "")
        for length in lengths:
            other = taken.get((vrf, family, number >> (size - length), length))
            if other is None or other[1] is resource:
                continue
            if ip.host(other[0]) != ip.host(text):
                draft.problem(
                    resource.key,
                    f"{text} in a subnet of its own",
                    f"{other[1].key} has {other[0]}, which overlaps it",
                    "correct a prefix length, or give the devices different subnets",
                    "addresses",
                )
            break
        taken.setdefault((vrf, family, number, size), (text, resource))
        lengths.add(size)


def _vrfs(devices: list[Resource]) -> dict[str, str]:
    """Return the VRF of each device that is in one, by device; a VRF is in itself."""
    found: dict[str, str] = {}
    for resource in devices:
        if resource.kind == "vrf":
            found[resource.name] = resource.name
            members = (resource.spec or {}).get("interfaces") or ()
            found.update(dict.fromkeys(members, resource.name))
    return found


def _routes(draft: Draft, devices: list[Resource]) -> None:
    ways: dict[object, Resource] = {}
    for resource in devices:
        for key in routes_of((resource.spec or {}).get("routes")):
            if key in ways:
                _, to, table, metric = key
                draft.problem(
                    resource.key,
                    f"one route to {to} with metric {metric} in table {table}",
                    f"{ways[key].key} names one too",
                    "give one of them another metric",
                    "routes",
                )
            ways.setdefault(key, resource)
