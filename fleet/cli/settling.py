"""What ``fleet status``, ``fleet confirm`` and ``fleet revert`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.cli.options import Scope
from fleet.cli.say import print_json
from fleet.cli.waiting import (
    PENDING,
    Answer,
    agree,
    ask,
    check,
    commands_for_all,
    settle_waiting,
    standing_lines,
)
from fleet.cli.work import Work, finish, trouble_json, trouble_lines, work_of, work_of_run
from fleet.progress import Progress
from fleet.report.run import exit_code, row_lines, run_json
from fleet.report.text import clean, paint_for
from fleet.report.transactions import pending, state_name, status_text

if TYPE_CHECKING:
    from fleet.rollout.options import RolloutOptions
    from fleet.rollout.outcome import HostOutcome, Run
    from fleet.rollout.result import HostStatus
    from fleet.rollout.transactions import Standing


def show_status(scope: Scope, as_json: bool) -> int:
    """Print which hosts have a change in flight and return the exit code."""
    hosts = finish(ask(work_of(scope), "status"))
    code = _status_code(hosts)
    if as_json:
        print_json("status", {host: _status_json(each) for host, each in hosts.items()}, code)
        return code
    known = {host: each.transactions for host, each in hosts.items() if not each.trouble}
    failures = {host: trouble_lines(each.trouble) for host, each in hosts.items() if each.trouble}
    for line in [*status_text(known, failures, paint_for()), *commands_for_all(scope, hosts)]:
        print(line)
    return code


def confirm_transaction(scope: Scope, transaction: str, answer: Answer) -> int:
    """Confirm a transaction on the hosts that have it, or all that waits; return the exit code."""
    check(transaction, scope, answer, "confirm", asks=not transaction)
    if not transaction:
        return settle_waiting(scope, answer, keep=True)
    outcomes = finish(_confirm(work_of_run(scope, transaction), transaction))
    code = exit_code(outcome.outcome for outcome in outcomes.values())
    if answer.as_json:
        hosts = {host: run_json(outcome.row()) for host, outcome in outcomes.items()}
        print_json("confirm", hosts, code)
        return code
    paint = paint_for()
    for outcome in outcomes.values():
        for line in row_lines(outcome.row(), paint):
            print(line)
    return code


def revert_transaction(
    scope: Scope, transaction: str, allow: tuple[str, ...], answer: Answer
) -> int:
    """Put hosts back and return the exit code: 0 when all are back, for that was asked for."""
    from fleet.cli.changing import interrupted, report
    from fleet.rollout.options import RolloutOptions
    from fleet.rollout.outcome import exit_code as code_of

    check(transaction, scope, answer, "revert", asks=True)
    if not transaction:
        return settle_waiting(scope, answer, keep=False)
    options = RolloutOptions(canary=0, allow=allow)
    work = work_of_run(scope, transaction)
    if not answer.yes:
        lines = standing_lines(finish(_standing(work, transaction)))
        if not agree(lines, f"Revert {clean(transaction, 64)}?", answer):
            return PENDING
    with Progress(verbose=scope.verbose) as progress:
        run = finish(_revert(work, transaction, options, progress))
    back = all(
        outcome.well or (outcome.outcome == "reverted" and outcome.transaction == transaction)
        for outcome in run.hosts.values()
    )
    code = 0 if back and run.hosts and not run.stopped else code_of(run)
    report(run, "revert", answer.as_json, scope.verbose, code, again=f"fleet revert {transaction}")
    return interrupted(run, progress) if progress.at_once else code


async def _standing(work: Work, transaction: str) -> Standing:
    async with work.engine() as engine:
        return await engine.standing(transaction, work.selection)


async def _confirm(work: Work, transaction: str) -> dict[str, HostOutcome]:
    async with work.engine() as engine:
        return await engine.confirm(transaction, work.selection)


async def _revert(work: Work, transaction: str, options: RolloutOptions, progress: Progress) -> Run:
    async with work.engine(progress.show) as engine:
        return await engine.revert(transaction, work.selection, options)


def _status_code(hosts: dict[str, HostStatus]) -> int:
    waiting = [entry for each in hosts.values() for entry in pending(each.transactions)]
    if any(state_name(entry) == "REVERT_FAILED" for entry in waiting):
        return 5
    if any(each.trouble for each in hosts.values()):
        return 1
    return 3 if waiting else 0


def _status_json(each: HostStatus) -> dict[str, object]:
    if each.trouble is not None:
        return trouble_json(each.trouble)
    return {"transactions": [dict(entry) for entry in each.transactions]}
