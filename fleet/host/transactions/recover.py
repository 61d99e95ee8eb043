"""Settle a transaction: finish it forward once it is confirmed, otherwise put the host back.

Idempotent, and callable at any time by anyone: the watchdog at its deadline, the timer unit, the
operator, the next transaction, the boot. Who comes second waits for who came first, then finds
nothing left to do. On the way back nothing waits for a disk.
"""

from __future__ import annotations

import os
import sys
import time

from fleet.host import wire
from fleet.host.transactions import crash, fence, files, first_boot, manager, persist, points, units
from fleet.host.transactions.files import Paths
from fleet.host.transactions.journal import (
    ABANDONED,
    APPLIED,
    COMMITTED,
    CONFIRMED,
    PERSISTING,
    REVERT_FAILED,
    REVERTED,
    REVERTING,
)
from fleet.host.transactions.lock import Lock
from fleet.host.transactions.transaction import Transaction, forward, names, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: Seconds a settlement may take before whoever waits for it kills it and takes over.
PATIENCE = 90.0
#: Seconds a revert goes on trying, and how long it waits for what it fences to be gone.
REVERT_BUDGET = 30.0
FENCE_BUDGET = 10.0
#: Rounds that leave the same differences before a revert is given up.
_STUBBORN = 3


def settle(
    transaction: Transaction,
    system: System,
    reason: str = "",
    problems: Any = (),
    memory: dict[str, Any] | None = None,
    patience: float = PATIENCE,
    again: bool = False,
    at: str = "",
) -> dict[str, Any]:
    """Bring a transaction to its end and return its outcome, {"state", "reason", "problems"}.

    ``memory`` is {"snapshot", "entries", "manager"} where the caller holds them; otherwise /run and
    the journal's directory are asked. ``again`` tries a revert that failed once more. ``at`` is the
    point of a boot up to which it is put back, all of them without one.
    """
    try:
        files.make_private(transaction.paths.run)
        files.make_private(transaction.live)
    except OSError:
        pass  # a full /run: it was made before anything was armed
    with Lock(f"{transaction.live}/settling").take_by_force(patience):
        transaction.read()
        if transaction.terminal and not (again and transaction.state == REVERT_FAILED):
            return _ended(transaction)
        here = not transaction.rebooted(system)
        if forward(transaction, here):
            return _finish_forward(transaction, system, here)
        if not transaction.armed_once:
            return _abandon(transaction, reason)
        if here and transaction.decide(REVERTING) == CONFIRMED:
            return _finish_forward(transaction, system, here)
        if not here:
            return _go_back_after_boot(transaction, system, reason, at)
        return _go_back(transaction, system, reason, problems, memory)


def settle_as_armed(
    transaction: Transaction, system: System, reason: str = "", again: bool = False, at: str = ""
) -> dict[str, Any]:
    """Settle by the copy of the helper that armed the transaction, where this is another version.

    What it put into its snapshot, and how, only that one knows for certain.
    """
    from fleet.host.kernel.system import CommandError

    archive = str(transaction.facts.get("archive") or "")
    paths = transaction.paths
    if not transaction.terminal and os.path.isfile(archive) and archive != units.own_archive(paths):
        argv = [units.PYTHON, "-I", "-S", "-B", archive, "recover"]
        argv += ["--at", at] if at else [transaction.name, *([reason] if reason else [])]
        try:
            system.run(argv, check=False, timeout=2 * PATIENCE)
        except CommandError as error:
            sys.stderr.write(f"fleet: {error}\n")
        transaction.read()
    return settle(transaction, system, reason, again=again, at=at)


def _ended(transaction: Transaction) -> dict[str, Any]:
    """The outcome; whoever recorded the end may have died before the copies were written."""
    if not transaction.outcome():
        transaction.store_outcome(transaction.journal.records[-1])
        if transaction.journal.state != REVERT_FAILED:
            _clear(transaction)
    return transaction.outcome() or dict(transaction.journal.records[-1])


def _abandon(transaction: Transaction, reason: str) -> dict[str, Any]:
    try:
        # Takes back more than what was staged only where a journal lost all of its records.
        persist.take_back(transaction.paths, persist.load(transaction.directory))
    except (OSError, ValueError):
        pass  # nothing was staged yet
    transaction.finish(ABANDONED, reason=reason or "ended before it was armed")
    return transaction.outcome()


def _finish_forward(transaction: Transaction, system: System, here: bool) -> dict[str, Any]:
    """CONFIRMED → PERSISTING → COMMITTED; raises OSError where a rename fails, to try again."""
    entries = persist.load(transaction.directory)
    if transaction.journal.state == APPLIED:
        transaction.best_effort(CONFIRMED)
    transaction.best_effort(PERSISTING)
    crash.point("persist.begin")
    persist.carry_out(transaction.paths, entries)
    manager.drop(transaction.paths.root, entries)
    if not here:
        manager.generate_again(system, transaction.paths.root, entries)
    transaction.finish(COMMITTED)
    _clear(transaction)
    units.stop_timer(system, str(transaction.facts.get("unit") or ""))
    return transaction.outcome()


def _go_back(
    transaction: Transaction,
    system: System,
    reason: str,
    problems: Any,
    memory: dict[str, Any] | None,
) -> dict[str, Any]:
    crash.point("revert.begin")
    reason = reason or str(transaction.facts.get("reason") or "not settled")
    problems = list(problems) or list(transaction.facts.get("problems") or ())
    transaction.best_effort(REVERTING, reason=reason, problems=problems[:20])
    left = _take_back_files(transaction, memory)
    left += _restore(transaction, system, memory)
    outcome = _gone_back(transaction, reason, problems, left)
    units.stop_timer(system, str(transaction.facts.get("unit") or ""))
    return outcome


def _gone_back(
    transaction: Transaction, reason: str, problems: list[Any], left: list[str]
) -> dict[str, Any]:
    state = REVERT_FAILED if left else REVERTED
    transaction.finish(state, reason=reason, problems=problems[:20], remaining=left[:100])
    if not left:
        _clear(transaction)
    crash.point("revert.done")
    return transaction.outcome()


def _go_back_after_boot(
    transaction: Transaction, system: System, reason: str, at: str
) -> dict[str, Any]:
    """The kernel has forgotten what was done; what is left are files, and databases that were
    written at once. Each is put back at its point of the boot, the last of which is the end."""
    crash.point("revert.begin")
    facts = transaction.facts
    reason = reason or str(facts.get("reason") or "the host rebooted before it was confirmed")
    problems, left = list(facts.get("problems") or ()), list(facts.get("left") or ())
    try:
        snapshot = load_snapshot(transaction)
    except (OSError, ValueError):
        snapshot = None
    done = list(facts.get("put_back") or ())
    todo = [point for point in points.needed(snapshot) if point not in done]
    for point in todo:
        if at and points.ORDER.index(point) > points.ORDER.index(at):
            break
        if point == points.FILES:
            left += _take_back_files(transaction, None)
            manager.generate_again(system, transaction.paths.root, _entries(transaction))
        else:
            left += points.put_back(point, system, snapshot)
        done.append(point)
        transaction.best_effort(
            REVERTING, reason=reason, problems=problems[:20], put_back=done, left=left[:100]
        )
    if [point for point in todo if point not in done]:
        return {"state": REVERTING, "reason": reason, "put_back": done}
    return _gone_back(transaction, reason, problems, left)


def _entries(transaction: Transaction) -> list[Any]:
    try:
        return persist.load(transaction.directory)
    except (OSError, ValueError):
        return []


def _take_back_files(transaction: Transaction, memory: dict[str, Any] | None) -> list[str]:
    try:
        entries = (memory or {}).get("entries")
        if entries is None:
            entries = persist.load(transaction.directory)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{transaction.directory}/undo: {error}"]
    return persist.take_back(transaction.paths, entries)


def _restore(transaction: Transaction, system: System, memory: dict[str, Any] | None) -> list[str]:
    """Fence, then restore until two observations agree; return what is still different."""
    facts = transaction.facts
    stuck = fence.kill_all(facts.get("cgroup", ""), facts.get("session"), FENCE_BUDGET)
    crash.point("revert.fenced")
    transaction.read()
    if not transaction.begun:
        return []
    try:
        snapshot = (memory or {}).get("snapshot") or load_snapshot(transaction)
    except (OSError, ValueError) as error:
        return [f"the snapshot cannot be read: {error}"]
    tried = (memory or {}).get("manager") or manager.remembered(transaction)
    told = manager.take_back(system, transaction.paths.root, tried) if tried is not None else []
    snapshot = _with_theirs(transaction, system, snapshot)
    left = _rounds(system, snapshot)
    if stuck:
        stuck = fence.kill_all(facts.get("cgroup", ""), facts.get("session"), FENCE_BUDGET)
        left = _rounds(system, snapshot)
    return told + left + [f"process {who[0]} cannot be killed" for who in stuck]


def _with_theirs(transaction: Transaction, system: System, snapshot: Any) -> Any:
    """The snapshot with what others changed meanwhile; without it where that cannot be told, for
    the way in goes before the work of others."""
    from fleet.host.reverting.theirs import allow_for

    try:
        return allow_for(system, transaction.live, snapshot)
    except Exception as error:
        sys.stderr.write(f"fleet: what others changed is not known: {error}\n")
        return snapshot


def _rounds(system: System, snapshot: Any) -> list[str]:
    from fleet.host.reverting.restore import restore
    from fleet.host.reverting.snapshot_parts import has_switches

    end = time.monotonic() + REVERT_BUDGET
    before: list[str] | None = None
    same, pause, number = 0, 0.02, 0
    while True:
        try:
            remaining = restore(system, snapshot)
            left = [_words(each) for each in remaining]
            # What libvirt does not say, or its daemon is down, it may say once that is up again.
            blind = any(map(_unseen, remaining))
        except Exception as error:
            # Whatever it is, trying again may help and giving up cannot: a program that was killed
            # while it listed, or a daemon that is down, answers later. The way in does not wait
            # for Open vSwitch.
            left = [f"{type(error).__name__}: {error}"]
            blind = True
            if has_switches(snapshot.get("scope") or {}):
                left += _without_switches(system, snapshot)
        crash.point(f"revert.round.{number}.after")
        if not left:
            return []  # restore() itself has seen twice that nothing differs
        same = same + 1 if left == before and not blind else 0
        if same >= _STUBBORN or time.monotonic() > end:
            return left
        before, number = left, number + 1
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def _without_switches(system: System, snapshot: Any) -> list[str]:
    """Restore all that is the kernel's own; return what is still different of it."""
    from fleet.host.reverting.restore import restore

    scope = snapshot["scope"]
    devices = [name for name in snapshot["devices"] if name not in scope["switches"]]
    alone = {
        **snapshot,
        "scope": {**scope, "switches": {}, "flows": {}},
        "switches": {},
        "flows": {},
        "devices": devices,
        "links": {name: snapshot["links"][name] for name in devices},
    }
    try:
        return [_words(each) for each in restore(system, alone)]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def _unseen(difference: Any) -> bool:
    """Say whether it is not known if something differs."""
    actual = difference.get("actual") if isinstance(difference, dict) else None
    return isinstance(actual, dict) and "error" in actual


def _words(difference: Any) -> str:
    """One remaining difference as a line for the operator."""
    if not isinstance(difference, dict):
        return str(difference)
    where = f"{difference['namespace']}: " if difference.get("namespace") else ""
    rest = {k: v for k, v in difference.items() if k not in ("namespace", "part", "name")}
    what = f"{difference.get('part', '')} {difference.get('name', '')}"
    return f"{where}{what}: {wire.dumps(rest)[:400]}"


def load_snapshot(transaction: Transaction) -> Any:
    """Return the snapshot, from /run if that copy checks; raises OSError or ValueError."""
    try:
        return wire.loads(files.unseal(files.read(f"{transaction.live}/snapshot")))
    except (OSError, ValueError):
        return wire.loads(files.unseal(files.read(f"{transaction.directory}/snapshot")))


def _clear(transaction: Transaction) -> None:
    """Remove what only an open transaction needs, and the way back of a committed one does not."""
    looks = () if transaction.state == COMMITTED else ("seen", "theirs")
    for name in ("snapshot", "lease", "applier", "manager", *looks):
        try:
            files.remove(f"{transaction.live}/{name}")
        except OSError:
            pass
    fence.leave(str(transaction.facts.get("cgroup", "")))


def recover_all(
    paths: Paths, system: System, reason: str = "", at: str = ""
) -> list[dict[str, Any]]:
    """Settle every transaction that nobody else will; return their states after it.

    A revert that failed in this boot is tried once more. ``at`` is the point of a boot.
    """
    settled = []
    for name in names(paths):
        directory = paths.of(name)
        try:
            transaction = Transaction(paths, name)
        except FileNotFoundError:
            remove_tree(directory)  # its helper died before the first record
            continue
        except OSError as error:
            settled.append({"transaction": name, "state": "unreadable", "reason": str(error)})
            continue
        again = transaction.state == REVERT_FAILED and not transaction.rebooted(system)
        if again or transaction.stale(system) or _overdue(transaction, system):
            outcome = settle_as_armed(transaction, system, reason, again=again, at=at)
            settled.append({"transaction": name, **outcome})
        transaction.journal.close()
    return settled


def _overdue(transaction: Transaction, system: System) -> bool:
    """Past the deadline: its watchdog is at it, or should be; waiting for that is what helps."""
    if transaction.terminal or transaction.rebooted(system):
        return False
    return system.boottime() > float(transaction.facts.get("deadline", float("inf"))) + 1.0


def main(arguments: list[str]) -> int:
    """Settle one named transaction, or all: what the timer unit and the boot unit run."""
    from fleet.host.kernel.system import System

    paths, system = Paths(), System()
    if arguments[:1] == ["--at"]:
        outcomes = recover_all(paths, system, at=arguments[1])
        if arguments[1] == points.FILES and first_boot.going_back(paths):
            first_boot.go_back(paths)
            manager.generate(system, paths.root)
    elif arguments:
        transaction = Transaction(paths, arguments[0])
        reason = (arguments[1:] or ["the deadline passed without a confirmation"])[0]
        outcomes = [settle(transaction, system, reason)]
    else:
        outcomes = recover_all(paths, system)
    for outcome in outcomes:
        sys.stderr.write(wire.dumps(outcome) + "\n")
    return 1 if any(outcome.get("state") == REVERT_FAILED for outcome in outcomes) else 0
