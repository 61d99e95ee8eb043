"""APPLYING: the plan is carried out by a process of its own, which may be killed at any moment.

The applier is forked from the helper once everything is armed. It leads its own session and
cgroup (what a revert fences), writes to no stdout, and so neither a dead SSH session nor a full
pipe holds it up. The helper reads its reports from a pipe and is still there to tell the outcome
when the applier was killed or the host was put back.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time

from fleet.host import registry, wire
from fleet.host.change import DELETE, HostError
from fleet.host.refusal import Refused
from fleet.host.spec import encode
from fleet.host.transactions import crash, fence, files
from fleet.host.transactions.journal import APPLIED, APPLYING, REVERT_FAILED, REVERTING
from fleet.host.transactions.recover import settle
from fleet.host.transactions.transaction import Transaction
from fleet.host.transactions.watchdog import APPLIED as TELL_APPLIED
from fleet.host.transactions.watchdog import REVERT as TELL_REVERT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.reverting.theirs import Watch
    from fleet.host.transactions.arm import Armed

#: Errors that pass by themselves, and the pauses in seconds before a change is tried again.
_PASSING = (errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ENOBUFS)
_PAUSES = (0.02, 0.1, 0.3)
#: Seconds the helper waits for an outcome beyond what a settlement may take.
_OUTCOME = 120.0


class Fenced(Exception):
    """The transaction has been decided or its time is up: not one more change."""


def apply(armed: Armed, system: System, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Apply and verify; return {"applied": True, ...} or raise Refused with what the revert did.

    ``report`` gets one event per change. It must not block.
    """
    crash.point("apply.begin")
    armed.transaction.read()
    if armed.transaction.terminal or armed.transaction.verdict():
        raise _reverted(armed.transaction, system, [])
    read, write = os.pipe()
    os.set_blocking(write, False)  # a helper that is stopped must not hold the applier up
    child = os.fork()
    if child == 0:
        os.close(read)
        _run_applier(armed, system, write)
    os.close(write)
    armed.watchdogs.close()  # the applier's death must close the last end
    last = _listen(read, report)
    os.close(read)
    os.waitpid(child, 0)
    armed.transaction.read()
    if armed.transaction.journal.state == APPLIED and armed.transaction.verdict() != REVERTING:
        return {"applied": True, "applied_at": armed.transaction.facts["applied_at"]}
    raise _reverted(armed.transaction, system, last.get("problems") or [])


def _listen(pipe: int, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Pass the applier's events on until it has ended; return its last word."""
    last: dict[str, Any] = {}
    with os.fdopen(os.dup(pipe), encoding="ascii") as lines:
        for line in lines:
            if line.endswith("\n"):
                last = wire.loads(line)
                if last.get("event") == "change":
                    report(last)
    return last


def _reverted(transaction: Transaction, system: System, problems: list[Any]) -> Refused:
    """Wait until a watchdog has settled the transaction, or do it where none is left; return the
    refusal that says how it ended."""
    end = time.monotonic() + _OUTCOME
    while not transaction.ended():
        if time.monotonic() > end:
            return Refused("revert-failed", "no watchdog has settled the transaction", problems)
        if not transaction.watched() and not transaction.ended():
            settle(transaction, system, "the watchdogs are gone", problems)
        time.sleep(0.01)
    outcome = transaction.ended()
    problems = problems or outcome.get("problems") or []
    reason = outcome.get("reason") or "reverted"
    if outcome["state"] == REVERT_FAILED:
        remaining = outcome.get("remaining") or []
        left = [
            {
                "resource": "host",
                "what": "revert",
                "expected": "as before the transaction",
                "actual": str(each),
                "remedy": "put it right by hand, then: fleet status",
            }
            for each in remaining
        ]
        return Refused("revert-failed", f"{reason}; the host is not as before", problems + left)
    return Refused("reverted", f"{reason}; the host is as before", problems)


def _run_applier(armed: Armed, system: System, pipe: int) -> None:
    """In the child: apply, verify, tell. Never returns."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _leave_stdio()
        transaction = armed.transaction
        problems, reason = _try(armed, type(system)(system.namespace, system.root), pipe)
        if reason:
            armed.watchdogs.tell(TELL_REVERT, _short(reason, problems))
            _say(pipe, {"event": "failed", "problems": problems})
        else:
            armed.watchdogs.tell(TELL_APPLIED)
            _say(pipe, {"event": "applied", "applied_at": transaction.facts["applied_at"]})
        status = 0
    except BaseException as error:
        # Whatever it was, the pipe to the watchdogs closes with this process and they revert.
        sys.stderr.write(f"fleet: the applier ended: {type(error).__name__}: {error}\n")
    finally:
        os._exit(status)


def _short(reason: str, problems: list[Any]) -> str:
    """What fits into one write to a pipe, which is whole or not at all (PIPE_BUF, pipe(7))."""
    for count in (5, 1, 0):
        text = wire.dumps({"reason": reason[:200], "problems": problems[:count]})
        if len(text) < 4000:
            break
    return text


def _leave_stdio() -> None:
    """An SSH session ends when nobody holds its pipes: keep only stderr, and never block on it."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    try:
        os.set_blocking(2, False)
    except OSError:
        os.dup2(null, 2)


def _try(armed: Armed, system: System, pipe: int) -> tuple[list[Any], str]:
    """Apply and verify; return the problems, and why it has to be taken back or nothing."""
    try:
        _enter_fence(armed)
        others = _carry_out(armed, system, pipe)
        problems, patience = _try_out(armed, system)
        crash.point("apply.verify.before")
        problems = problems or verify(armed, system, patience)
        if problems:
            return problems, "the host did not become what the plan says"
        lost = others.lost()
        if lost:
            return [_conflict(words) for words in lost], "somebody else changed the host meanwhile"
        _record_applied(armed, system)
        return [], ""
    except Fenced as error:
        return [], str(error)
    except HostError as error:
        return [encode(error.problem)], f"a change failed: {error}"
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        text = f"{type(error).__name__}: {error}"
        return [
            {
                "resource": "host",
                "what": "apply",
                "expected": "to succeed",
                "actual": text,
                "remedy": "",
            }
        ], f"a change failed: {text}"


def _enter_fence(armed: Armed) -> None:
    """Put what a revert has to kill on record, in memory first, before the first change."""
    transaction = armed.transaction
    # A host's token is in the name: lab hosts share one hierarchy, and transaction names.
    cgroup = fence.enter(f"{transaction.name}.{armed.token[:12]}")
    facts = {"session": fence.identity(os.getpid()), "cgroup": cgroup}
    files.create(f"{transaction.live}/applier", files.seal(wire.dumps(facts)))
    transaction.journal.append(APPLYING, index=-1, **facts)


def check_fence(transaction: Transaction, token: str, system: System) -> None:
    """Raise Fenced unless the transaction is undecided, in time, and still this process's."""
    verdict = transaction.verdict()
    if verdict:
        raise Fenced(f"it was decided before the plan was carried out: {verdict}")
    if system.boottime() >= float(transaction.facts["deadline"]):
        raise Fenced("the deadline passed while the plan was carried out")
    if transaction.lease().get("lease") != token:
        raise Fenced("the lease is no longer this helper's")


def _conflict(words: str) -> dict[str, str]:
    return {
        "resource": "host",
        "what": words.partition(":")[0],
        "expected": "nobody else at work",
        "actual": f"added by somebody else meanwhile, and gone with this plan: {words}",
        "remedy": "plan again, with it",
    }


def _carry_out(armed: Armed, system: System, pipe: int) -> Watch:
    """Carry out every change; return who looked at what others did meanwhile."""
    from fleet.host.reverting.theirs import Watch
    from fleet.host.transactions.recover import load_snapshot

    transaction, steps = armed.transaction, _steps(armed, system)
    others = Watch(system, transaction.live, load_snapshot(transaction))
    for index, (key, what, carry_out) in enumerate(steps):
        words = {"index": index, "of": len(steps), "key": key, "what": what}
        transaction.journal.append(APPLYING, step="begin", **words)
        crash.point(f"apply.change.{index}.before")
        others.begin()
        check_fence(transaction, armed.token, system)
        carry_out()
        others.end(last=index == len(steps) - 1)
        crash.point(f"apply.change.{index}.after")
        transaction.journal.append(APPLYING, step="done", index=index)
        _say(pipe, {"event": "change", **words})
    return others


def _steps(armed: Armed, system: System) -> list[tuple[str, str, Callable[[], None]]]:
    """Return the steps as (key, what, doing): a plan's changes, or the one way back."""
    back = armed.back
    if back is not None:
        return [("host", f"as before {back.name}", lambda: back.carry_out(system))]
    from functools import partial

    return [(each.key, each.what, partial(_change, system, each)) for each in armed.plan.changes]


def _change(system: System, change: Change) -> None:
    """Carry out one change; what passes by itself is tried again, a bounded number of times."""
    where = system.at(change.namespace) if change.namespace else system
    kind = registry.load(change.kind)
    for pause in _PAUSES:
        try:
            kind.apply(where, change)
        except Exception as error:
            number = getattr(error, "errno", None) or getattr(error, "code", None)
            if number not in _PASSING:
                raise
            time.sleep(pause)
        else:
            return
    kind.apply(where, change)


def _try_out(armed: Armed, system: System) -> tuple[list[Any], float]:
    """Have the host's manager read what a commit would leave it; return problems, and the seconds
    that what it does may take to settle."""
    from fleet.host.transactions import manager, persist

    transaction = armed.transaction
    if manager.remembered(transaction) is None:
        return [], 0.0

    def check() -> None:
        check_fence(transaction, armed.token, system)

    problems = manager.try_out(transaction, system, persist.load(transaction.directory), check)
    if not problems and armed.back is None:
        _delete_again(armed, system)
    return problems, manager.SETTLE


def _delete_again(armed: Armed, system: System) -> None:
    """networkd makes every device it has a file for, and those of /etc stay until the commit."""
    from fleet.host.planning import ledger
    from fleet.host.planning.plan import make_plan

    plan = make_plan(armed.state, ledger.load(armed.transaction.paths.state), system)
    for change in plan.changes:
        if change.action == DELETE and any(_same(change, each) for each in armed.plan.changes):
            check_fence(armed.transaction, armed.token, system)
            _change(system, change)


def _same(one: Change, other: Change) -> bool:
    return (one.key, one.action, one.what) == (other.key, other.action, other.what)


def verify(armed: Armed, system: System, patience: float = 0.0) -> list[Any]:
    """Observe until nothing is left to change or the settle budget ends; return what is left.

    ``patience`` is seconds beyond that budget.
    """
    from fleet.host.kernel.observation import Observation
    from fleet.host.planning import ledger
    from fleet.host.planning.plan import plan_from

    if armed.back is not None:
        return armed.back.left
    entries = ledger.load(armed.transaction.paths.state)
    end = min(system.boottime() + armed.plan.settle + patience, armed.deadline)
    pause = 0.01
    while True:
        observation = Observation(system)
        plan = plan_from(armed.state, entries, observation)
        left = [each for each in plan.changes if each.action != "none"]
        if not left and not plan.problems:
            _remember(observation)
            return []
        check_fence(armed.transaction, armed.token, system)
        if system.boottime() >= end:
            return [*encode(plan.problems), *(_difference(change) for change in left)]
        time.sleep(pause)
        pause = min(pause * 2, 0.25)


def _remember(observation: Observation) -> None:
    """Put on record what nft has just proven, so that audits need not run it."""
    if observation.proven:
        from fleet.host.tables import proven

        proven.store(observation.system.root, observation.proven)


def _difference(change: Change) -> dict[str, str]:
    return {
        "resource": change.key,
        "what": change.what,
        "expected": _said(change.after),
        "actual": _said(change.before),
        "remedy": "it was applied, and is not so when observed again",
    }


def _record_applied(armed: Armed, system: System) -> None:
    """A process's start time counts in ticks: wait for the next one, so that what starts after
    this was recorded can be told from what started before."""
    check_fence(armed.transaction, armed.token, system)
    applied_at = system.boottime()
    time.sleep(1.0 / os.sysconf("SC_CLK_TCK"))
    armed.transaction.journal.append(APPLIED, applied_at=applied_at)
    armed.transaction.facts["applied_at"] = applied_at
    crash.point("apply.done")


def _say(pipe: int, words: dict[str, Any]) -> None:
    """Report to the helper; where it is gone, or does not read, what it says in the end is in
    the journal."""
    try:
        files.write_all(pipe, (wire.dumps(words) + "\n").encode("ascii"))
    except OSError:
        pass


def _said(value: Any) -> str:
    """Return a value as a problem says it."""
    if isinstance(value, dict):
        return " ".join(f"{key} {_said(each)}" for key, each in value.items() if each is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
