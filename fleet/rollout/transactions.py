"""Confirming and reverting what waits on hosts, from whatever process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError
from fleet.host.change import Plan
from fleet.rollout import outcome as words
from fleet.rollout import rolling, settle, steps
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run
from fleet.rollout.part import Part, part_of
from fleet.rollout.resume import addresses_of, plan_of
from fleet.rollout.trouble import Ended

if TYPE_CHECKING:
    from nornir.core.task import Task

    from fleet.record.reader import PastRun
    from fleet.rollout.engine import Engine
    from fleet.rollout.result import HostStatus

Entry = Mapping[str, Any]


async def confirm(
    engine: Engine, transaction: str, selection: Selection | None
) -> dict[str, HostOutcome]:
    """Confirm a transaction on every host where it waits."""
    past = await _past(engine, transaction)
    found, troubles = await _find(engine, transaction, selection, past)
    if not found and not troubles:
        raise UsageError(f"no host has a transaction {transaction!r}; fleet status lists them")
    ends = {name: _silent(name, status) for name, status in troubles.items()}
    waiting = {}
    for name, entry in found.items():
        state = settle.state_of(entry)
        if state == "APPLIED":
            waiting[name] = entry
        else:
            last = settle.ended(entry)
            said = last.message or "it had ended so already"
            ends[name] = HostOutcome(name, words.OF_STATE.get(state, words.UNKNOWN), said)
    parts = _parts(engine, transaction, past, waiting, "applied")
    if parts:
        await engine.run(_confirm, list(parts))
    return ends | {name: _end(part) for name, part in parts.items()}


@dataclass(frozen=True)
class Standing:
    """Where each host stands with a transaction that is to be reverted.

    ``open`` are the hosts that put themselves back when they are told to, ``committed`` those that
    a rollout has to bring back, and ``ends`` those of which nothing is left to be done, or known.
    """

    past: PastRun | None
    open: Mapping[str, Entry]
    committed: tuple[str, ...]
    ends: Mapping[str, HostOutcome]


async def standing(engine: Engine, target: str, selection: Selection | None) -> Standing:
    """Ask the hosts where they stand; raises UsageError where nobody knows ``target``."""
    past = await _past(engine, target)
    found, troubles = await _find(engine, target, selection, past)
    if past is None and not found and not troubles:
        raise UsageError(f"neither the record nor a host knows {target!r}")
    ends = {name: _silent(name, status) for name, status in troubles.items()}
    open_, committed = {}, []
    for name, entry in found.items():
        state = settle.state_of(entry)
        if state == "COMMITTED":
            committed.append(name)
        elif state in ("REVERTED", "ABANDONED"):
            outcome = words.OF_STATE[state]
            ends[name] = HostOutcome(name, outcome, "it had ended so already")
        else:
            open_[name] = entry
    if past is not None:
        # A host's journal of a committed transaction may be gone; the record's word stands then.
        committed += [
            name
            for name, host in past.hosts.items()
            if host.outcome == words.COMMITTED
            and name not in found
            and name not in troubles
            and (selection is None or name in selection.names(engine.inventory))
        ]
    return Standing(past, open_, tuple(committed), ends)


async def revert(
    engine: Engine, target: str, selection: Selection | None, options: RolloutOptions | None
) -> Run:
    """Revert what waits, and plan the way back of what was committed."""
    stands = await standing(engine, target, selection)
    past, ends, committed = stands.past, dict(stands.ends), list(stands.committed)
    parts = _parts(engine, target, past, stands.open, "applying")
    if parts:
        await engine.run(_revert, list(parts))
        ends |= {name: _end(part) for name, part in parts.items()}
    if not committed:
        return Run(target, ends)
    if past is None:
        raise UsageError(
            f"{target} has been committed on {', '.join(committed)}, and this record does not have "
            "what was there before: run this where it was rolled out"
        )
    back = await rolling.way_back(engine, past, committed, options or RolloutOptions(canary=0))
    return Run(back.id, ends | back.hosts, back.stopped, back.revision)


async def settle_waiting(
    engine: Engine, agreed: Mapping[str, str], keep: bool
) -> dict[str, HostOutcome]:
    """Confirm, or revert, on each host the one transaction that was agreed on, and no other."""
    statuses = await engine.statuses(list(agreed)) if agreed else {}
    ends: dict[str, HostOutcome] = {}
    parts: dict[str, Part] = {}
    for transaction in sorted(set(agreed.values())):
        waiting: dict[str, Entry] = {}
        for name in (name for name, its in agreed.items() if its == transaction):
            entry = next(
                (e for e in statuses[name].transactions if e.get("transaction") == transaction), {}
            )
            state = settle.state_of(entry)
            if statuses[name].trouble:
                ends[name] = _silent(name, statuses[name])
            elif state in settle.ENDED or (keep and state != "APPLIED"):
                said = settle.ended(entry).message or "it had ended so already"
                ends[name] = HostOutcome(name, words.OF_STATE.get(state, words.UNKNOWN), said)
            else:
                waiting[name] = entry
        past = await _past(engine, transaction)
        stage = "applied" if keep else "applying"
        parts |= _parts(engine, transaction, past, waiting, stage)
    if parts:
        await engine.run(_confirm if keep else _revert, list(parts))
    return ends | {
        name: replace(_end(part), transaction=agreed[name]) for name, part in parts.items()
    }


async def _past(engine: Engine, target: str) -> PastRun | None:
    record = engine.record()
    try:
        run = await record.do(lambda store: store.run_of(target))
        return await record.load_run(run or target)
    except UsageError:
        return None


async def _find(
    engine: Engine,
    transaction: str,
    selection: Selection | None,
    past: PastRun | None,
) -> tuple[dict[str, Entry], dict[str, HostStatus]]:
    """Return the transaction's status on each host that has it, and the hosts that are silent.

    Where the record knows the transaction only its hosts are asked; silence of any other host
    means nothing, and is not returned.
    """
    names = (selection or Selection()).names(engine.inventory)
    known = {name for name, host in past.hosts.items() if host.transaction} if past else set()
    if past:
        names = [name for name in names if name in known]
    statuses = await engine.statuses(names) if names else {}
    names_of = {transaction} | {past.hosts[name].transaction for name in names if past}
    found: dict[str, Entry] = {}
    for name, status in statuses.items():
        for entry in status.transactions:
            if entry.get("transaction") in names_of:
                found[name] = entry
    troubles = {name: each for name, each in statuses.items() if each.trouble and name in known}
    return found, troubles


async def _confirm(task: Task) -> None:
    part = part_of(task)
    async with part.settling():
        try:
            await steps.confirm(part)
        except Ended as error:
            if error.final or error.outcome == words.UNKNOWN:
                part.end(error.outcome, error.message, error.problems)
            else:
                part.end(words.UNKNOWN, f"{error.message}; it still waits", error.problems)
        else:
            part.end(words.COMMITTED)


async def _revert(task: Task) -> None:
    part = part_of(task)
    async with part.settling():
        try:
            state = await steps.revert(part)
        except Ended as error:
            part.end(error.outcome, error.message, error.problems)
        else:
            part.end(words.OF_STATE.get(state, words.UNKNOWN), "by the operator")


def _parts(
    engine: Engine,
    transaction: str,
    past: PastRun | None,
    entries: Mapping[str, Entry],
    stage: str,
) -> dict[str, Part]:
    parts = {}
    for name, entry in entries.items():
        shared = replace(
            engine.shared,
            transaction=str(entry.get("transaction")),
            ended=None,
            run=past.id if past else transaction,
            record=engine.record() if past else None,
        )
        part = engine.parts({name: None}, shared)[name]
        made = plan_of(past.hosts[name]) if past and name in past.hosts else Plan()
        part.plan = Plan(made.changes, str(entry.get("plan_digest") or ""))
        part.addresses, part.stage = addresses_of(entry), stage
        left = entry.get("seconds_left")
        part.deadline = time.monotonic() + (left if isinstance(left, (int, float)) else 0.0)
        parts[name] = part
    return parts


def _end(part: Part) -> HostOutcome:
    return part.outcome or HostOutcome(part.name, words.UNKNOWN, "its task gave no outcome")


def _silent(name: str, status: HostStatus) -> HostOutcome:
    message = status.trouble.message if status.trouble else ""
    return HostOutcome(name, words.UNKNOWN, f"it does not answer: {message}")
