"""Network namespaces (ip-netns(8)); what is inside them are resources of their own.

A namespace with a process in it is that process's network: deleting it cannot be undone.
"""

from __future__ import annotations

import os

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.spec import spec
from fleet.host.steps import Steps
from fleet.host.system import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.ledger import Entry
    from fleet.host.observation import Observation
    from fleet.host.system import System


IP = "/usr/sbin/ip"


@spec
class Namespace:
    """One namespace; its loopback device is up."""


SPEC = Namespace


def names(observation: Observation) -> list[str]:
    """Return the names under /run/netns."""
    try:
        return sorted(os.listdir(observation.system.root + NAMESPACES))
    except FileNotFoundError:
        return []


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
    """Return the deletion of a namespace that fleet made; drain where processes are in it."""
    if not entry.created or entry.name not in names(observation):
        return []
    inside = processes(observation.system, entry.name)
    steps = Steps(entry)
    steps.add(
        "",
        {},
        None,
        action=DELETE,
        impact="drain" if inside else "none",
        reason=f"processes in it: {', '.join(inside[:5])}" if inside else "",
        touches=(f"namespace:{entry.name}",),
    )
    return steps.changes


def processes(system: System, name: str) -> list[str]:
    """Return the processes in a namespace as ``command (pid)``."""
    try:
        own = os.stat(f"{system.root}{NAMESPACES}/{name}").st_ino
    except OSError:
        return []
    found = []
    for pid in os.listdir(f"{system.root}/proc"):
        if not pid.isdigit():
            continue
        try:
            if os.stat(f"{system.root}/proc/{pid}/ns/net").st_ino == own:
                command = system.read(f"/proc/{pid}/comm") or "?"
                found.append(f"{command.strip()} ({pid})")
        except OSError:
            continue  # it has ended meanwhile
    return found


def apply(system: System, change: Change) -> None:
    """Make or delete a namespace, or bring its loopback device up."""
    name = change.name
    if change.action == DELETE:
        if change.impact != "drain" and processes(system, name):
            raise HostError(
                change.key,
                "no process in the namespace",
                ", ".join(processes(system, name)[:5]),
                "end them, or allow the deletion by name",
            )
        system.at(name).close()
        system.run([IP, "netns", "delete", name])
        return
    if change.action == CREATE:
        system.run([IP, "netns", "add", name])
    system.run([IP, "-n", name, "link", "set", "dev", "lo", "up"])
