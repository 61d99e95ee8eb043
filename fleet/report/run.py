"""How a rollout ended: a summary that tells the outcomes apart, and the exit code they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.host.change import Problem
from fleet.report.plan import problem_json, problem_lines
from fleet.report.text import Paint, clean, counted, duration, listed, table

#: Every outcome, best first, with what it means for the operator.
MEANING = {
    "committed": "changed, verified and confirmed",
    "unchanged": "already as intended",
    "not started": "nothing was changed",
    "unreachable": "no connection; nothing was changed",
    "refused": "the host declined the plan; nothing was changed",
    "failed": "stopped before anything changed",
    "reverted": "put back as before",
    "revert failed": "NOT put back; needs a person",
    "unknown": "state unknown; needs a person",
}
#: Exit codes, the gravest first (design: 5 needs a person, 1 failed, 4 reverted).
EXITS = (
    (5, {"revert failed", "unknown"}),
    (4, {"reverted"}),
    (1, {"unreachable", "refused", "failed", "not started"}),
)


@dataclass(frozen=True)
class Row:
    """One host's part in a run."""

    host: str
    outcome: str
    wave: int | None = None
    changes: int = 0
    seconds: float | None = None
    message: str = ""
    problems: Sequence[Problem] = field(default_factory=tuple)
    transaction: str = ""


def exit_code(outcomes: Iterable[str]) -> int:
    """Return the exit code that a run's outcomes mean; an outcome fleet does not know means 5."""
    seen = {outcome.replace("_", " ").replace("-", " ") for outcome in outcomes}
    if seen - MEANING.keys():
        return 5
    return next((code for code, bad in EXITS if seen & bad), 0)


def run_text(rows: Sequence[Row], paint: Paint | None = None, verbose: bool = False) -> list[str]:
    """Return the summary of a run: a line per outcome, then each host that needs attention."""
    paint = paint or Paint(False)
    lines: list[str] = []
    for outcome, meaning in MEANING.items():
        hosts = [row.host for row in rows if row.outcome == outcome]
        if hosts:
            said = _painted(outcome, f"{outcome:<13}", paint)
            names = listed(hosts, 0 if verbose else 6)
            lines.append(f"{said}  {len(hosts):>4}  {names}  {paint.faint(meaning)}")
    troubled = [row for row in rows if row.message or row.problems]
    if troubled:
        lines.append("")
    # A hundred hosts with one reason are one line.
    alike: dict[tuple[str, str, tuple[Problem, ...]], list[str]] = {}
    for row in troubled:
        alike.setdefault((row.outcome, row.message, tuple(row.problems)), []).append(row.host)
    for (outcome, message, problems), hosts in alike.items():
        names = listed(hosts, 0 if verbose else 6)
        lines += _reason_lines(names, outcome, message, problems, paint)
    if verbose:
        lines += ["", *run_table(rows)]
    return lines


def row_lines(row: Row, paint: Paint) -> list[str]:
    """Return why one host is where it is."""
    return _reason_lines(clean(row.host), row.outcome, row.message, row.problems, paint)


def _reason_lines(
    names: str, outcome: str, message: str, problems: Sequence[Problem], paint: Paint
) -> list[str]:
    head = f"{paint.strong(names + ':')} {_painted(outcome, clean(outcome), paint)}"
    lines = [f"{head}: {clean(message, 400)}" if message else head]
    for problem in problems:
        lines += [f"  {line}" for line in problem_lines(problem, paint)]
    return lines


def run_table(rows: Sequence[Row]) -> list[str]:
    """Return one aligned line per host."""
    cells = [
        [
            clean(row.host),
            "" if row.wave is None else str(row.wave),
            row.outcome,
            str(row.changes),
            "" if row.seconds is None else duration(row.seconds),
        ]
        for row in rows
    ]
    return table(cells, ["host", "wave", "outcome", "changes", "took"])


def run_json(row: Row) -> dict[str, Any]:
    """Return a host's part in a run as plain data; ``docs/guide.md`` documents the keys."""
    return {
        "outcome": row.outcome,
        "wave": row.wave,
        "changes": row.changes,
        "seconds": row.seconds,
        "message": row.message,
        "problems": [problem_json(problem) for problem in row.problems],
        "transaction": row.transaction,
    }


def run_line(rows: Sequence[Row]) -> str:
    """Return the last line of a run: how many hosts ended where."""
    ends = {outcome: sum(row.outcome == outcome for row in rows) for outcome in MEANING}
    said = ", ".join(f"{number} {outcome}" for outcome, number in ends.items() if number)
    return f"{counted(len(rows), 'host')}: {said or 'nothing to do'}."


def _painted(outcome: str, text: str, paint: Paint) -> str:
    if outcome in ("committed", "unchanged"):
        return paint.added(text)
    if outcome in ("not started", "reverted", "refused"):
        return paint.changed(text)
    return paint.removed(text)
