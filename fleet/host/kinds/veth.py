"""Pairs of virtual Ethernet devices (netplan ``virtual-ethernets``; veth(4))."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.link import Link
from fleet.host.link_diff import delete_device, diff_link, observe_link
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.ledger import Entry
    from fleet.host.observation import Observation
    from fleet.host.system import System

if not ON_HOST:
    from fleet.host.fields import DeviceName


@spec
class Veth(Link):
    """One end of a pair; the peer is an entry of its own."""

    peer: DeviceName = ""


SPEC = Veth


def names(observation: Observation) -> list[str]:
    """Return the names of the ends whose peer is in the same namespace."""
    return sorted(
        name
        for name, link in observation.links.items()
        if link["kind"] == "veth" and isinstance(link["link"], str)
    )


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return one end as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "veth" or not isinstance(link["link"], str):
        return None
    return {"peer": link["link"], **observe_link(observation, name)}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make one end what its spec says; the first by name makes the pair."""
    wanted = decode(Veth, resource.spec)
    name, links = resource.name, observation.links
    link, peer = links.get(name), links.get(wanted.peer)
    for taken, other, expected in ((link, name, wanted.peer), (peer, wanted.peer, name)):
        if taken is not None and (taken["kind"] != "veth" or taken["link"] != expected):
            now = "a veth to " + str(taken["link"]) if taken["kind"] == "veth" else taken["kind"]
            raise HostError(
                resource.key,
                f"a veth pair {name} and {wanted.peer}",
                f"{other} is {now or 'a NIC'}",
                f"name another device, or delete {other} by hand",
                "peer",
            )
    steps = Steps(resource, name)
    if link is None:
        first = min(name, wanted.peer)
        made: dict[str, Any] = {"peer": wanted.peer}
        if wanted.macaddress:
            made["macaddress"] = wanted.macaddress
        if wanted.mtu:
            made["mtu"] = wanted.mtu
        steps.add(
            "",
            None,
            made,
            action=CREATE,
            reason="" if name == first else f"made together with {first}",
            provides=(f"device:{name}",),
            requires=(f"absent:{name}", *(() if name == first else (f"device:{first}",))),
        )
    diff_link(steps, wanted, entry, observation)
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a pair that fleet created; its peer goes with it."""
    changes = delete_device(entry, observation)
    if not changes or changes[0].action != DELETE:
        return changes
    from fleet.host.change import Change
    from fleet.host.spec import field_names

    peer = observation.links[entry.name]["link"]
    if not isinstance(peer, str):
        return changes
    fields = {name: getattr(changes[0], name) for name in field_names(changes[0])}
    fields["touches"] = (*changes[0].touches, peer)
    fields["reason"] = f"its peer {peer} goes with it"
    return [Change(**fields)]


def apply(system: System, change: Change) -> None:
    """Carry out one change of an end."""
    from fleet.host import link_apply

    link_apply.apply(system, change)
