"""Physical NICs (netplan ``ethernets``): found by name or by match, never created or deleted."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.links.link import Link
from fleet.host.links.link_diff import diff_link, observe_link
from fleet.host.links.steps import Steps
from fleet.host.pattern import matches
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import MAC, DeviceName, NamePattern, PCIAddress


@spec
class Match:
    """How a NIC is found, whatever the kernel called it this boot (netplan ``match``)."""

    name: NamePattern | None = None
    macaddress: MAC | None = None
    driver: NamePattern | None = None
    #: ``0000:01:00.0``: our word; netplan has none.
    pci_address: PCIAddress | None = None


@spec
class Ethernet(Link):
    """One NIC."""

    match: Match | None = None
    set_name: DeviceName | None = None


SPEC = Ethernet

#: Devices that somebody made here on purpose are never a NIC, whatever their name.
_MADE = ("bridge", "bond", "team", "vlan", "vxlan", "dummy", "vrf", "openvswitch", "tun", "ifb")


def names(observation: Observation) -> list[str]:
    """Return the names of all NICs; a container's NIC is the end of a veth that leads out."""
    return sorted(
        name
        for name, link in observation.links.items()
        if name != "lo"
        and (not link["kind"] or (link["kind"] == "veth" and not isinstance(link["link"], str)))
    )


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a NIC as intent would write it."""
    if name not in observation.links or observation.links[name]["kind"] in _MADE:
        return None
    return observe_link(observation, name)


def device(resource: Resource, observation: Observation) -> str:
    """Return the kernel's present name of the NIC; raises HostError where the host lacks it."""
    wanted = decode(Ethernet, resource.spec)
    match = wanted.match
    if match is None:
        if resource.name in observation.links:
            return resource.name
        found: list[str] = []
    else:
        found = [n for n in names(observation) if _matches(match, observation.links[n])]
        # A VLAN or macvlan shares its NIC's MAC; names() has left those out already.
        if wanted.set_name in found:
            return wanted.set_name
    if len(found) == 1:
        return found[0]
    words = _words(match) if match else f"name {resource.name}"
    if found:
        raise HostError(
            resource.key,
            f"one NIC with {words}",
            f"{len(found)}: {', '.join(found)}",
            "make match name one of them",
            "match",
        )
    raise HostError(
        resource.key,
        f"a NIC with {words}",
        f"only {_inventory(observation)}",
        "correct the name or the match, or check that the card and its driver are there",
        "match" if match else "",
    )


def _matches(match: Match, link: dict[str, Any]) -> bool:
    mac = link.get("perm_mac") or link["mac"]
    return (
        (match.name is None or matches(link["name"], match.name))
        and (match.macaddress is None or match.macaddress == mac)
        and (match.driver is None or matches(link.get("driver") or "", match.driver))
        and (match.pci_address is None or match.pci_address == link.get("pci_address"))
    )


def _words(match: Match) -> str:
    named = {
        "name": match.name,
        "macaddress": match.macaddress,
        "driver": match.driver,
        "pci-address": match.pci_address,
    }
    return ", ".join(f"{word} {value}" for word, value in named.items() if value) or "any name"


def _inventory(observation: Observation) -> str:
    nics = []
    for name in names(observation):
        link = observation.links[name]
        more = [link.get("perm_mac") or link["mac"], link.get("driver"), link.get("pci_address")]
        nics.append(f"{name} ({', '.join(str(word) for word in more if word)})")
    return "; ".join(nics) or "the loopback device"


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a NIC what its spec says."""
    wanted = decode(Ethernet, resource.spec)
    now = device(resource, observation)
    kind = observation.links[now]["kind"]
    if kind in _MADE:
        raise HostError(
            resource.key,
            "a NIC, or no device of this name",
            f"a device of kind {kind}",
            f"name {now} where devices of kind {kind} belong, or rename the device",
        )
    steps = Steps(resource, now)
    if wanted.set_name and wanted.set_name != now:
        if wanted.set_name in observation.links:
            raise HostError(
                resource.key,
                f"the name {wanted.set_name} to be free",
                f"another device of that name beside {now}",
                "choose another set-name",
                "set-name",
            )
        # The graph runs it last, so that every other step finds the device under its old name.
        steps.add(
            "set-name",
            now,
            wanted.set_name,
            impact="blip",
            provides=(f"device:{wanted.set_name}",),
            touches=(now, wanted.set_name),
        )
    diff_link(steps, wanted, entry, observation, mtu_impact="blip")
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return nothing: a NIC is released as it is."""
    return []


def apply(system: System, change: Change) -> None:
    """Carry out one change of a NIC."""
    from fleet.host.links import link_apply

    link_apply.apply(system, change)
