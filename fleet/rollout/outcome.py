"""How a host ended, and what a run as a whole came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.host.change import Problem
from fleet.report.run import Row
from fleet.report.run import exit_code as code_of

COMMITTED, UNCHANGED, NOT_STARTED = "committed", "unchanged", "not started"
REVERTED, REFUSED, FAILED = "reverted", "refused", "failed"
UNREACHABLE, REVERT_FAILED, UNKNOWN = "unreachable", "revert failed", "unknown"

#: The host is as intended; every other outcome counts against the failure budget.
WELL = frozenset({COMMITTED, UNCHANGED})
#: How a transaction's end on the host reads as an outcome.
OF_STATE = {
    "COMMITTED": COMMITTED,
    "REVERTED": REVERTED,
    "REVERT_FAILED": REVERT_FAILED,
    "ABANDONED": FAILED,
}


@dataclass(frozen=True)
class Trouble:
    """Why a host could not be asked: ``kind`` is an outcome (unreachable, refused, failed)."""

    kind: str
    message: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class HostOutcome:
    """One host's end of a run; ``wave`` counts from 1, None for a host that was in none."""

    host: str
    outcome: str
    message: str = ""
    problems: tuple[Problem, ...] = ()
    wave: int | None = None
    changes: int = 0
    seconds: float | None = None
    transaction: str = ""

    @property
    def well(self) -> bool:
        """Whether the host is as intended."""
        return self.outcome in WELL

    def row(self) -> Row:
        """Return the outcome as the reports take it."""
        return Row(
            self.host,
            self.outcome,
            self.wave,
            self.changes,
            self.seconds,
            self.message,
            self.problems,
            self.transaction,
        )


@dataclass(frozen=True)
class Run:
    """A rollout or a revert that has ended, for whatever reason.

    ``stopped`` is why it ended early, empty where it went through; ``revision`` the inventory's
    git revision (``-dirty`` appended where files differ from it), empty outside git.
    """

    id: str
    hosts: dict[str, HostOutcome] = field(default_factory=dict)
    stopped: str = ""
    revision: str = ""
    reverted_by: str = ""

    @property
    def rows(self) -> list[Row]:
        """The outcomes as the reports take them."""
        return [outcome.row() for outcome in self.hosts.values()]


def exit_code(run: Run) -> int:
    """Return the program's exit code: 5 needs a person, 4 reverted, 1 failed somewhere, else 0."""
    code = code_of(outcome.outcome for outcome in run.hosts.values())
    return code or (1 if run.stopped else 0)


def failures(outcomes: Iterable[HostOutcome]) -> int:
    """Return how many outcomes count against the failure budget; hosts never begun do not."""
    return sum(not each.well and each.outcome != NOT_STARTED for each in outcomes)
