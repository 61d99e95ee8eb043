"""Reads the record: past runs, for ``fleet history``, resume and revert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fleet.errors import FleetError, UsageError
from fleet.record.place import record_url, sqlite_file

if TYPE_CHECKING:
    from fleet.intent import Project
    from fleet.record.store import Store

T = TypeVar("T")


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
    addresses: tuple[str, ...] = ()


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
    of: str = ""
    attempt: int = 1


def runs(project: Project | Path, last: int = 20) -> list[PastRun]:
    """Return the last runs, newest first; an empty list where there is no record yet."""
    found = _read(project, lambda store: store.last_runs(last))
    return found if found is not None else []


def run(project: Project | Path, name: str) -> PastRun:
    """Return one run in full, by its id or an unambiguous beginning; raises UsageError."""
    found = _read(project, lambda store: store.load_run(name))
    if found is None:
        raise UsageError(f"there is no record yet, and so no run {name!r}")
    return found


def url_of(project: Project | Path, make: bool = False) -> str:
    """Return the URL of a project's record."""
    if isinstance(project, Path):
        return record_url(project, None, make)
    settings = project.inventory.defaults.data.get("fleet")
    return record_url(Path(project.path), settings if isinstance(settings, dict) else None, make)


def _read(project: Project | Path, work: Callable[[Store], T]) -> T | None:
    url = url_of(project)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return None
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from fleet.record.store import Store, connect

    try:
        engine = connect(url)
        try:
            with Session(engine) as session:
                return work(Store(session))
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip()
        raise FleetError(f"the record cannot be read: {said}") from error
