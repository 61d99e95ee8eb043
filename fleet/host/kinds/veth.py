"""Pairs of virtual Ethernet devices (netplan ``virtual-ethernets``; veth(4))."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError, amended
from fleet.host.kernel.observation import HOST
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, diff_link, observe_link
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import DeviceName, NamespaceName


@spec
class Veth(Link):
    """One end of a pair; the peer is an entry of its own.

    ``peer_namespace`` is where the peer is, ``host`` for the host's own; it names this end too.
    """

    peer: DeviceName = ""
    peer_namespace: NamespaceName | None = None


SPEC = Veth


def names(observation: Observation) -> list[str]:
    """Return the names of the ends whose peer is in a namespace that has a name."""
    return sorted(name for name in observation.links if observe(observation, name) is not None)


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return one end as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "veth":
        return None
    where, peer = observation.peer(link)
    if not peer:
        return None
    there = {"peer-namespace": where} if where else {}
    return {"peer": peer, **there, **observe_link(observation, name)}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make one end what its spec says; the first by name makes the pair."""
    wanted = decode(Veth, resource.spec)
    name = resource.name
    link = observation.links.get(name)
    _check(resource, wanted, observation)
    steps = Steps(resource, name)
    if link is None:
        _make(steps, wanted)
    diff_link(steps, wanted, entry, observation)
    return steps.changes


def _there(wanted: Veth, observation: Observation) -> Observation:
    if not wanted.peer_namespace:
        return observation
    if wanted.peer_namespace == HOST:
        return observation.root
    return observation.at(wanted.peer_namespace)


def _check(resource: Resource, wanted: Veth, observation: Observation) -> None:
    """Raise HostError where one of the two names is something else already."""
    there = _there(wanted, observation)
    here = resource.namespace or HOST
    ends = (
        (observation, resource.name, wanted.peer_namespace or "", wanted.peer),
        (there, wanted.peer, here if wanted.peer_namespace else "", resource.name),
    )
    for where, end, space, other in ends:
        link = where.links.get(end)
        if link is None or (link["kind"] == "veth" and where.peer(link) == (space, other)):
            continue
        now = link["kind"] or "a NIC"
        if link["kind"] == "veth":
            now = "a veth to " + (where.peer(link)[1] or str(link["link"]))
        raise HostError(
            resource.key,
            f"a veth pair {resource.name} and {wanted.peer}",
            f"{end} is {now}",
            f"name another device, or delete {end} by hand",
            "peer",
        )


def _make(steps: Steps, wanted: Veth) -> None:
    name, here = steps.device, steps.resource.namespace
    there = here if wanted.peer_namespace is None else wanted.peer_namespace
    there = "" if there == HOST else there
    first = (here, name) < (there, wanted.peer)
    made: dict[str, Any] = {"peer": wanted.peer}
    if wanted.peer_namespace:
        made["peer-namespace"] = wanted.peer_namespace
    if wanted.macaddress:
        made["macaddress"] = wanted.macaddress
    if wanted.mtu:
        made["mtu"] = wanted.mtu
    steps.add(
        "",
        None,
        made,
        action=CREATE,
        reason="" if first else f"made together with {wanted.peer}",
        provides=(f"device:{name}",),
        requires=(f"absent:{name}",),
    )
    maker = f"{there}|device:{wanted.peer}" if there else f"device:{wanted.peer}"
    space = (f"namespace:{there}",) if there else ()
    made_by = space if first else (*space, maker)
    steps.changes[-1] = amended(steps.changes[-1], requires=(*steps.changes[-1].requires, *made_by))


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a pair that fleet created; its peer goes with it."""
    changes = delete_device(entry, observation)
    if not changes or changes[0].action != DELETE:
        return changes
    where, peer = observation.peer(observation.links[entry.name])
    if not peer:
        return changes
    space = "" if where == HOST else where
    touched = f"{space}|{peer}" if where else peer
    reason = f"its peer {peer} goes with it"
    return [amended(changes[0], touches=(*changes[0].touches, touched), reason=reason)]


def apply(system: System, change: Change) -> None:
    """Carry out one change of an end."""
    from fleet.host.links import link_apply

    link_apply.apply(system, change)
