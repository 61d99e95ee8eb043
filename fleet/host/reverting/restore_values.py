"""Put back single values of /sys and /proc: hugepages, steering, affinities, governors."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]


def read_values(system: System, paths: list[str]) -> Record:
    """Return what each file says, by its path; None where there is none, or it does not say."""
    return {path: _read(system, path) for path in paths}


def _read(system: System, path: str) -> str | None:
    try:
        said = system.read(path)
    except OSError:
        return None
    return None if said is None else said.strip()


def value_differences(snapshot: Record, now: Record) -> dict[str, tuple[str, str]]:
    """Return the values that are not as they were, by path, as (then, now)."""
    found = {}
    for path, then in snapshot["values"].items():
        have = now["values"].get(path)
        # A file that is not there is its device's, whose absence is a difference of its own.
        if then is not None and have is not None and then != have:
            found[path] = (then, have)
    return found


def restore_values(step: Step) -> None:
    """Write each value that is not as it was."""
    for path, (then, _) in value_differences(step.then, step.now).items():
        # An empty list of CPUs is written as a line without any.
        step.attempt("values", path, step.system.write, path, then + "\n")
