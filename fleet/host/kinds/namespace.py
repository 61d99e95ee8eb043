"""Network namespaces (ip-netns(8)); what is inside them are resources of their own.

A namespace with a process in it is that process's network: deleting it cannot be undone.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.kernel.observation import HOST
from fleet.host.links.steps import Steps
from fleet.host.spec import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

#: net/core/dev.c: a NIC that is in a namespace when it ends goes to the first one of all.
_NIC = ""


@spec
class Namespace:
    """One namespace; its loopback device is up."""


SPEC = Namespace


def names(observation: Observation) -> list[str]:
    """Return the names under /run/netns."""
    return observation.namespaces


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return an empty form where the namespace exists."""
    return {} if name in names(observation) else None


def _loopback_down(observation: Observation, name: str) -> bool:
    return not observation.at(name).links.get("lo", {"up": True})["up"]


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the creation of a namespace the host lacks, and its loopback brought up."""
    steps = Steps(resource)
    name = resource.name
    if name not in names(observation):
        provides = (f"namespace:{name}",)
        steps.add("", None, {}, action=CREATE, provides=provides, touches=())
    elif _loopback_down(observation, name):
        steps.add("loopback", "down", "up", touches=(f"namespace:{name}",))
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a namespace that fleet made; drain where somebody is in it."""
    if not entry.created or entry.name not in names(observation):
        return []
    inside = observation.at(entry.name)
    nics = [n for n, link in inside.links.items() if link["kind"] == _NIC and n != "lo"]
    if nics:
        raise HostError(
            entry.key,
            "a namespace without NICs",
            ", ".join(nics),
            f"move them out first: ip -n {entry.name} link set {nics[0]} netns 1",
        )
    held = [holder["guest"] for each in inside.holders.values() for holder in each]
    users = [*inside.inhabitants, *held]
    pairs = []
    for name, link in inside.links.items():
        if link["kind"] == "veth":
            where, peer = inside.peer(link)
            if where and peer:
                pairs.append(f"{'' if where == HOST else where}|{peer}")
            pairs.append(f"{entry.name}|{name}")
    steps = Steps(entry)
    steps.add(
        "",
        {},
        None,
        action=DELETE,
        impact="drain" if users else "none",
        reason=f"processes in it: {', '.join(users[:5])}" if users else "",
        touches=(f"namespace:{entry.name}", *pairs),
    )
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Make or delete a namespace, or bring its loopback device up."""
    from fleet.host.kernel.guests import inhabitants
    from fleet.host.kernel.spaces import IP, delete_namespace, make_namespace

    name = change.name
    if change.action == DELETE:
        users = [] if change.impact == "drain" else inhabitants(system.at(name))
        if users:
            raise HostError(
                change.key,
                "no process in the namespace",
                ", ".join(users[:5]),
                "end them, or allow the deletion by name",
            )
        delete_namespace(system, name)
        return
    if change.action == CREATE:
        make_namespace(system, name)
    system.run([IP, "-n", name, "link", "set", "dev", "lo", "up"])
