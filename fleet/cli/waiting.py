"""Confirming or reverting whatever waits: what will be done to which host, and the question."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.cli.options import Scope
from fleet.cli.say import print_json
from fleet.cli.work import Work, counting, finish, work_of
from fleet.errors import UsageError
from fleet.progress import Count
from fleet.report.run import Row, exit_code, row_lines, run_json
from fleet.report.text import clean, counted, duration, paint_for
from fleet.report.transactions import CONFIRMABLE, REVERTIBLE, pending, seconds_left, state_name

if TYPE_CHECKING:
    from fleet.rollout.outcome import HostOutcome
    from fleet.rollout.result import HostStatus
    from fleet.rollout.transactions import Standing

PENDING = 3


@dataclass(frozen=True)
class Answer:
    """What the operator said besides the hosts: that all are meant, that she is not to be asked."""

    all: bool = False
    yes: bool = False
    as_json: bool = False


def check(transaction: str, scope: Scope, answer: Answer, command: str, asks: bool) -> None:
    """Refuse what does not say which hosts are meant, and questions that nobody would hear."""
    if transaction and answer.all:
        raise UsageError("--all is every transaction that waits: leave the transaction out")
    if not (transaction or answer.all or scope.narrowed):
        raise UsageError(
            f"say what to {command}: a transaction, hosts (--host, --group, --filter), or --all; "
            "fleet status shows what waits"
        )
    if asks and not answer.yes and not sys.stdin.isatty():
        raise UsageError("nobody can be asked here (stdin is no terminal); say --yes to go ahead")


def settle_waiting(scope: Scope, answer: Answer, keep: bool) -> int:
    """Confirm or revert every transaction that waits on the hosts of a scope; the exit code."""
    command = "confirm" if keep else "revert"
    work = work_of(scope)
    statuses = finish(ask(work, command))
    fit = CONFIRMABLE if keep else (*REVERTIBLE, "REVERT_FAILED")
    agreed, lines = {}, []
    for host, status in statuses.items():
        for entry in pending(status.transactions):
            said = _standing(entry)
            if state_name(entry) in fit:
                agreed[host] = str(entry.get("transaction"))
                lines.append(f"{clean(host)}: {said}: {_what(keep)}")
            else:
                lines.append(f"{clean(host)}: {said}: left as it is")
    silent = {
        host: Row(host, "unreachable", message=_silent(status), problems=status.trouble.problems)
        for host, status in statuses.items()
        if status.trouble
    }
    lines += [f"{clean(host)}: does not answer: left as it is" for host in silent]
    if agreed and not agree(
        lines, f"{command.capitalize()} {counted(len(agreed), 'host')}?", answer
    ):
        return PENDING
    ended = finish(_settle(work, agreed, keep)) if agreed else {}
    rows = {host: outcome.row() for host, outcome in ended.items()} | silent
    code = exit_code(_asked_for(row, agreed, keep) for row in rows.values())
    if answer.as_json:
        print_json(command, {host: run_json(row) for host, row in rows.items()}, code)
        return code
    if not agreed:
        number = counted(len(statuses) - len(silent), "host")
        print(f"{number}: nothing waits to be {'confirmed' if keep else 'reverted'}.")
    for row in rows.values():
        for line in row_lines(row, paint_for()):
            print(line)
    return code


def agree(lines: list[str], question: str, answer: Answer) -> bool:
    """Say what will be done to each host and ask, unless that is answered already."""
    for line in lines:
        print(line, file=sys.stderr)
    if answer.yes:
        return True
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False


def standing_lines(stands: Standing) -> list[str]:
    """Return what a revert of one run will do, a line for each host."""
    lines = [
        f"{clean(host)}: {_standing(entry)}: {_what(keep=False)}"
        for host, entry in stands.open.items()
    ]
    for host in stands.committed:
        changes = _changes(stands, host)
        lines.append(f"{clean(host)}: COMMITTED{changes}: a rollout brings it back to before")
    for host, outcome in stands.ends.items():
        lines.append(
            f"{clean(host)}: {outcome.outcome}, {clean(outcome.message, 400)}: left as it is"
        )
    return lines


def commands_for_all(scope: Scope, statuses: Mapping[str, HostStatus]) -> list[str]:
    """Return the one command that keeps, and the one that undoes, all that waits."""
    states = [state_name(e) for each in statuses.values() for e in pending(each.transactions)]
    chosen = "".join(f" {word}" for word in _selectors(scope)) or " --all"
    lines = []
    for command, fit, what in (
        ("confirm", CONFIRMABLE, "to keep all that wait"),
        ("revert", (*REVERTIBLE, "REVERT_FAILED"), "to undo all now"),
    ):
        number = sum(state in fit for state in states)
        if number:
            lines.append(f"{what + f' ({number})':<28}fleet {command}{chosen}")
    return ["", *lines] if lines else []


async def ask(work: Work, label: str) -> dict[str, HostStatus]:
    """Ask every host of the work for its transactions; one that hangs costs its own row."""
    with Count(label, len(work.hosts)) as count:
        async with work.engine(counting(count)) as engine:
            return await engine.status(work.selection)


async def _settle(work: Work, agreed: Mapping[str, str], keep: bool) -> dict[str, HostOutcome]:
    async with work.engine() as engine:
        return await engine.settle_waiting(agreed, keep)


def _asked_for(row: Row, agreed: Mapping[str, str], keep: bool) -> str:
    """Return an outcome as the exit code takes it: a host that was to be put back is well."""
    back = not keep and row.outcome == "reverted" and row.host in agreed
    return "unchanged" if back else row.outcome


def _standing(entry: Mapping[str, object]) -> str:
    left = seconds_left(entry)
    seconds = f", {duration(left)} left" if left >= 0 and state_name(entry) in REVERTIBLE else ""
    return f"{clean(entry.get('transaction', '?'), 64)} {state_name(entry)}{seconds}"


def _what(keep: bool) -> str:
    return "kept for good" if keep else "puts itself back as before, at once"


def _silent(status: HostStatus) -> str:
    why = status.trouble.message if status.trouble else ""
    return f"{why}; where it is armed it puts itself back at its deadline"


def _changes(stands: Standing, host: str) -> str:
    past = stands.past.hosts.get(host) if stands.past else None
    number = len(past.plan.get("changes") or ()) if past and past.plan else 0
    return f", {counted(number, 'change')}" if number else ""


def _selectors(scope: Scope) -> list[str]:
    words = [f"--group {shlex.quote(each)}" for each in scope.group]
    words += [f"--host {shlex.quote(each)}" for each in scope.host]
    words += [f"--filter {shlex.quote(each)}" for each in scope.filter]
    if scope.nornir_filter:
        words.append(f"--nornir-filter {shlex.quote(scope.nornir_filter)}")
    return words
