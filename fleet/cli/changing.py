"""What ``fleet rollout`` does: show the plan, ask, change hosts, say how each ended."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Scope
from fleet.cli.project import open_project
from fleet.cli.reading import exit_of, make_plans, print_plans
from fleet.cli.say import print_json
from fleet.cli.work import Work, finish, work_of, work_of_run
from fleet.errors import UsageError
from fleet.progress import Progress
from fleet.report.run import Row, run_json, run_line, run_text
from fleet.report.text import clean, counted, listed, paint_for

if TYPE_CHECKING:
    from fleet.plan_file import Reviewed
    from fleet.rollout.options import RolloutOptions
    from fleet.rollout.outcome import Run
    from fleet.rollout.result import HostPlan

PENDING = 3
#: What a shell reports of a program that SIGINT ended: 128 + 2.
INTERRUPTED = 130


@dataclass(frozen=True)
class Wishes:
    """What the operator said on the command line; None is not said."""

    canary: int | None = None
    wave: str | None = None
    soak: float | None = None
    max_failures: int | None = None
    confirm_timeout: float | None = None
    allow: tuple[str, ...] = ()
    resume: str = ""
    yes: bool = False
    as_json: bool = False

    def options(self, config: Mapping[str, Any]) -> RolloutOptions:
        """Return the options of the rollout: the inventory's, where nothing was said."""
        from fleet.rollout.options import RolloutOptions

        return RolloutOptions.of(config, **self.given)

    @property
    def given(self) -> dict[str, Any]:
        """What was said of the rollout's options, as ``RolloutOptions.of`` takes it."""
        words = {
            "canary": self.canary,
            "wave": self.wave,
            "soak": self.soak,
            "max_failures": self.max_failures,
            "confirm_timeout": self.confirm_timeout,
            "allow": self.allow or None,
        }
        return {word: value for word, value in words.items() if value is not None}


def roll_out(scope: Scope, plan_file: Path | None, wishes: Wishes) -> int:
    """Roll out what the scope selects and return the exit code."""
    if not wishes.yes and not sys.stdin.isatty():
        raise UsageError("nobody can be asked here (stdin is no terminal); say --yes to go ahead")
    if wishes.resume and (plan_file is not None or scope.narrowed):
        what = "--plan" if plan_file is not None else "selectors"
        raise UsageError(
            f"--resume goes on with every host of its run, by the plans that were reviewed for it: "
            f"leave {what} out"
        )
    reviewed = _read(plan_file)
    work = _work(scope, reviewed, wishes)
    wishes.options(work.project.config)  # what is wrong with them is said before a host is asked
    plans = finish(make_plans(work)) if reviewed is None else _of(reviewed, work)
    print_plans(plans, scope.verbose, sys.stderr if wishes.as_json else None)
    # A host that a transaction holds may look as intended and be about to go back.
    work_left = any(each.pending or (each.plan and each.plan.changes) for each in plans.values())
    if not work_left and not wishes.resume:
        # Hosts that could not be asked are no reason to begin a run: nothing would change.
        code = exit_of(plans)
        if wishes.as_json:
            hosts = {host: run_json(_without_run(each)) for host, each in plans.items()}
            print_json("rollout", hosts, code, run="", stopped="")
        return code
    if not wishes.yes and not _agreed(plans, work):
        print("nothing was changed", file=sys.stderr)
        return PENDING
    from fleet.rollout.outcome import exit_code

    with Progress(verbose=scope.verbose) as progress:
        run = finish(_roll_out(work, wishes, reviewed or plans, progress))
    code = exit_code(run)
    report(run, "rollout", wishes.as_json, scope.verbose, code)
    return interrupted(run, progress) if progress.at_once else code


def _without_run(each: HostPlan) -> Row:
    """Return what a host is that no run was begun for."""
    if each.trouble is not None:
        told = each.trouble
        return Row(each.host, told.kind, message=told.message, problems=told.problems)
    problems = each.plan.problems if each.plan else ()
    return Row(each.host, "refused" if problems else "unchanged", problems=problems)


def report(
    run: Run, command: str, as_json: bool, verbose: bool, code: int, again: str = ""
) -> None:
    """Print how a run ended; ``again`` is the command that goes on with one that stopped."""
    if as_json:
        hosts = {row.host: run_json(row) for row in run.rows}
        print_json(command, hosts, code, run=run.id, stopped=run.stopped, revision=run.revision)
        return
    paint = paint_for()
    for line in run_text(run.rows, paint, verbose):
        print(line)
    print()
    print(f"run {clean(run.id)}: {run_line(run.rows)}")
    if run.stopped:
        print(paint.changed(f"It stopped early: {clean(run.stopped, 400)}"))
        if any(row.outcome not in ("committed", "unchanged") for row in run.rows):
            print(f"To go on: {again or f'fleet rollout --resume {clean(run.id)}'}")
        if not again and any(row.outcome == "committed" for row in run.rows):
            print(f"To go back: fleet revert {clean(run.id)}")
    if code == 5:
        print(paint.removed("A host needs a person: fleet status"))


async def _roll_out(
    work: Work, wishes: Wishes, reviewed: Reviewed | Mapping[str, HostPlan], progress: Progress
) -> Run:
    options = wishes.options(work.project.config)
    async with work.engine(progress.show) as engine:
        return await engine.rollout(
            work.selection, options, reviewed, wishes.resume, given=wishes.given
        )


def _read(plan_file: Path | None) -> Reviewed | None:
    if plan_file is None:
        return None
    from fleet.plan_file import read

    return read(plan_file)


def _work(scope: Scope, reviewed: Reviewed | None, wishes: Wishes) -> Work:
    """Return the work: of a plan or a past run, all of its hosts unless fewer were asked for."""
    if wishes.resume:
        from fleet.record.reader import run as past_run

        past_run(open_project(scope.project), wishes.resume)  # there has to be one, in this record
        return work_of_run(scope, wishes.resume)
    if reviewed is not None and not scope.narrowed:
        return work_of(scope, reviewed.hosts)
    return work_of(scope)


def _of(reviewed: Reviewed, work: Work) -> dict[str, HostPlan]:
    missing = [host for host in work.hosts if host not in reviewed.hosts]
    if missing:
        raise UsageError(f"the plan has no {listed(missing)}; plan again with all hosts it is for")
    gone = [host for host in work.hosts if host not in work.project.inventory.hosts]
    if gone:
        raise UsageError(f"the inventory no longer has {listed(gone)}; plan again")
    return {host: reviewed.hosts[host] for host in work.hosts}


def _agreed(plans: Mapping[str, HostPlan], work: Work) -> bool:
    number = sum(bool(each.plan and each.plan.changes) for each in plans.values())
    where = "" if not work.overrides else " of the lab"
    sys.stderr.write(f"Change {counted(number, 'host')}{where}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def interrupted(run: Run, progress: Progress) -> int:
    """Say which hosts a second Ctrl-C left armed and return the exit code of an interrupt."""
    left = [row.host for row in run.rows if row.outcome == "unknown" and row.transaction]
    armed = list(dict.fromkeys([*left, *progress.armed()]))
    if armed:
        said = f"still armed, and putting themselves back at their deadline: {listed(armed, 0)}"
        more = (
            "\n  fleet status shows the seconds left; fleet confirm or fleet revert end it sooner"
        )
    else:
        said, more = "no host is armed", ""
    print(f"fleet: stopped at once; {said}{more}", file=sys.stderr)
    return INTERRUPTED
