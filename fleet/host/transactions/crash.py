"""Named crash points: where a fault harness may stop, kill or fill the disk of a transaction.

A point does nothing unless code in this very process has set ``HOOK``. There is deliberately no
way to set it from the protocol, from an argument or from the environment.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Hook = Callable[[str], None]

#: Called with the name of each point as it is passed; None on every real host.
HOOK: Hook | None = None

_RECORDS = (
    "PREPARED",
    "ARMED",
    "APPLYING",
    "APPLIED",
    "CONFIRMED",
    "PERSISTING",
    "COMMITTED",
    "REVERTING",
    "REVERTED",
    "REVERT_FAILED",
    "ABANDONED",
)

#: Every point, in the order a transaction meets them; ``*`` stands for the index of a change.
POINTS = (
    "prepare.begin",
    "prepare.journal.allocated",
    "prepare.files.staged",
    "prepare.snapshot.written",
    "arm.watchdog.started",
    "arm.timer.started",
    "arm.done",
    "apply.begin",
    "apply.change.*.before",
    "apply.change.*.after",
    "apply.verify.before",
    "apply.done",
    "confirm.begin",
    "confirm.checked",
    "confirm.decided",
    "persist.begin",
    "persist.file.*.before",
    "persist.file.*.after",
    "revert.begin",
    "revert.fenced",
    "revert.round.*.after",
    "revert.done",
    *(f"journal.{record}.{side}" for record in _RECORDS for side in ("before", "after")),
)


def points(changes: int = 1) -> list[str]:
    """Return every point's name with ``*`` filled in, for a plan of that many changes."""
    named: list[str] = []
    for point_ in POINTS:
        if "*" in point_:
            named += [point_.replace("*", str(index)) for index in range(changes)]
        else:
            named.append(point_)
    return named


def point(name: str) -> None:
    """Pass a point."""
    if HOOK is not None:
        HOOK(name)
