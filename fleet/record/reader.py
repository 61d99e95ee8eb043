"""Reads the record: past runs, for ``fleet history``, resume and revert."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet.intent import Project


@dataclass(frozen=True)
class PastHost:
    """One host's part in a past run.

    ``phases`` are (name, seconds since the run began, seconds it took); ``confirms`` are
    (address, state, seconds since the epoch); ``plan`` is the plan as plain data, None where none
    was made.
    """

    host: str
    outcome: str = ""
    message: str = ""
    problems: tuple[dict[str, Any], ...] = ()
    wave: int | None = None
    changes: int = 0
    seconds: float | None = None
    transaction: str = ""
    plan: dict[str, Any] | None = None
    plan_digest: str = ""
    state_digest: str = ""
    phases: tuple[tuple[str, float, float], ...] = ()
    confirms: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class PastRun:
    """A past run; ``ended`` None says that its controller died, or still runs.

    ``kind`` is rollout or revert, times are seconds since the epoch, ``outcomes`` counts hosts by
    outcome, ``hosts`` is filled where one run was asked for.
    """

    id: str
    kind: str
    started: float
    ended: float | None
    controller: str
    pid: int
    revision: str
    options: dict[str, Any]
    stopped: str = ""
    outcomes: dict[str, int] = field(default_factory=dict)
    hosts: dict[str, PastHost] = field(default_factory=dict)


def runs(project: Project | Path, last: int = 20) -> list[PastRun]:
    """Return the last runs, newest first; an empty list where there is no record yet."""
    raise NotImplementedError


def run(project: Project | Path, name: str) -> PastRun:
    """Return one run in full, by its id or an unambiguous beginning; raises UsageError."""
    raise NotImplementedError
