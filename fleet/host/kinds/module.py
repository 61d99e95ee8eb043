"""Modules of the kernel that have to be loaded (modprobe(8)): vfio-pci, br_netfilter."""

from __future__ import annotations

import posix

from fleet.host.change import HostError
from fleet.host.kernel.system import exists
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.machine_fields import DriverName

    #: What a resource is called.
    NAME = DriverName


@spec
class Module:
    """A module without parameters; these are the business of modprobe.d(5)."""


SPEC = Module


def loaded(system: System, name: str) -> bool:
    """Say whether the kernel has a module, loaded or built in."""
    return exists(f"{system.root}/sys/module/{_plain(name)}") or _built_in(system, name)


def unused(system: System, name: str) -> bool:
    """Say whether a module is loaded, and nothing needs it."""
    return (system.read(f"/sys/module/{_plain(name)}/refcnt") or "").strip() == "0"


def _plain(name: str) -> str:
    return name.replace("-", "_")


def available(system: System, name: str) -> bool:
    """Say whether modprobe would find a module for the running kernel."""
    return _listed(system, name, "modules.dep")


def _built_in(system: System, name: str) -> bool:
    return _listed(system, name, "modules.builtin")


def _listed(system: System, name: str, index: str) -> bool:
    said = system.read(f"/lib/modules/{posix.uname().release}/{index}") or ""
    files = (line.partition(":")[0].rpartition("/")[2] for line in said.splitlines())
    return any(_plain(file.partition(".ko")[0]) == _plain(name) for file in files)


def names(observation: Observation) -> list[str]:
    """Return nothing: a host has hundreds, and only those that intent names matter."""
    return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a module as intent would write it, None where it is not loaded."""
    return {} if loaded(observation.system, name) else None


def original(resource: Resource, observation: Observation) -> dict[str, Any] | None:
    """Return whether a module was loaded before fleet came."""
    return {"loaded": loaded(observation.system, resource.name)}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that loads a module; raises HostError where the host has none."""
    name = resource.name
    has: bool = observation.once(f"module {name}", lambda system: loaded(system, name))
    if has:
        return []
    there: bool = observation.once(f"modules {name}", lambda system: available(system, name))
    if not there:
        raise HostError(
            resource.key,
            f"a module {name} for the running kernel",
            "modprobe would find none",
            "correct the name, install its package, or reboot into the kernel that was installed",
        )
    steps = Steps(resource)
    steps.add("loaded", False, True, provides=(f"module:{name}",), touches=(f"module:{name}",))
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return nothing: what uses a module is not told, and a loaded one does no harm."""
    return []


def apply(system: System, change: Change) -> None:
    """Load one module; raises HostError with modprobe's words."""
    from fleet.host.kernel.system import CommandError

    try:
        system.run(["modprobe", "--", change.name])
    except CommandError as error:
        raise HostError(
            change.key,
            f"modprobe to load {change.name}",
            str(error)[:300],
            "look at dmesg and at modprobe.d(5)",
            "loaded",
        ) from error
