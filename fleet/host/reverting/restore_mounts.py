"""Put back where hugepages are mounted, and take modules out that a plan loaded."""

from __future__ import annotations

from fleet.host.kinds import module, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]


def read_mounts(system: System, paths: list[str]) -> Record:
    """Return how hugepages are mounted at each path, None where they are not."""
    found = mount.read(system) if paths else {}
    return {path: found.get(path) for path in paths}


def read_modules(system: System, names: list[str]) -> dict[str, str]:
    """Return what each module is: ``used``, ``unused``, or empty where it is not loaded."""
    return {name: _state(system, name) for name in names}


def _state(system: System, name: str) -> str:
    if not module.loaded(system, name):
        return ""
    return "unused" if module.unused(system, name) else "used"


def module_differences(snapshot: Record, now: Record) -> dict[str, tuple[str, str]]:
    """Return the modules that were loaded since, and that nothing has begun to use meanwhile."""
    return {
        name: ("", "loaded")
        for name, then in snapshot["modules"].items()
        if not then and now["modules"].get(name) == "unused"
    }


def mount_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return the paths where hugepages are not mounted as they were, as (then, now)."""
    return {
        path: (then, now["mounts"].get(path))
        for path, then in snapshot["mounts"].items()
        if then != now["mounts"].get(path)
    }


def restore_mounts(step: Step) -> None:
    """Mount what was mounted, unmount what was not, and unload what was not loaded."""
    for path, (then, have) in mount_differences(step.then, step.now).items():
        gone = have is None or step.attempt("mounts", path, mount.unmount, step.system, path)
        if gone and then is not None:
            step.attempt("mounts", path, mount.mount, step.system, path, then)
    for name in module_differences(step.then, step.now):
        step.attempt("modules", name, step.system.run, ["modprobe", "-r", "--", name])
