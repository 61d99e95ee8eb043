"""Going on after a controller was killed: its run resumed, or what it left taken over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError
from fleet.rollout import controller, rolling, settle
from fleet.rollout import outcome as words
from fleet.rollout import resume as resuming
from fleet.rollout.course import Course
from fleet.rollout.events import Note, RunStarted
from fleet.rollout.interrupt import interrupts
from fleet.rollout.options import RolloutOptions
from fleet.rollout.outcome import HostOutcome, Run
from fleet.rollout.part import Part, Shared, Target, part_of
from fleet.rollout.result import HostPlan
from fleet.rollout.settle import problem_of

if TYPE_CHECKING:
    from nornir.core.task import Task

    from fleet.record.reader import PastHost, PastRun
    from fleet.rollout.engine import Engine


async def resume(engine: Engine, name: str, given: Mapping[str, Any]) -> Run:
    """Go on with a run that was broken off; its options and reviewed plans are the record's, save
    the options ``given``."""
    record = engine.record()
    past = await record.load_run(name)
    if past.ended is None and controller.alive(past.controller, past.pid):
        raise UsageError(f"run {past.id} still goes on: process {past.pid} of {past.controller}")
    if past.kind != "rollout":
        raise UsageError(f"run {past.id} took another back; revert that one again instead")
    options = _options(past, given)
    shared = rolling.begin(engine, options, past.id)
    attempt = await record.resume_run(past.id, shared.owner, os.getpid(), asdict(options))
    names = [each for each in past.hosts if each in engine.inventory.hosts]
    targets = engine.targets([each for each in names if not resuming.over(past.hosts[each])])
    engine.emit(RunStarted(past.id, len(names)))
    ends = {each: _old(past, each) for each in names if each not in targets}
    left: dict[str, Part] = {}
    with interrupts(lambda: engine.stop(), lambda: rolling.abort(engine, left)):
        left.update(await _take_up(engine, shared, past, targets))
        ends |= {each: part.outcome for each, part in left.items() if part.outcome is not None}
        # A host keeps the old transaction's journal: what is done now has a name of its own.
        shared.transaction = f"{past.id}.{attempt}"
        rest = {each: target for each, target in targets.items() if each not in ends}
        parts = engine.parts(rest, shared)
        left.clear()
        left.update(parts)
        for each, part in parts.items():
            part.reviewed = resuming.plan_of(past.hosts[each]) if past.hosts[each].plan else None
        plans = await engine.plans(parts) if parts else {}
        for each, made in plans.items():
            parts[each].plan, parts[each].pending = made.plan, made.pending
        await rolling.settle_early(parts, plans)
        course = Course(shared, parts, rolling.doing(engine, shared, parts))
        course.budget.allowed = options.max_failures
        course.budget.failed = [each for each, end in ends.items() if end and not end.well]
        if any(end and end.outcome == words.COMMITTED for end in ends.values()):
            shared.options = replace(options, canary=0)
        revision = await controller.revision(engine.path)
        run = await rolling.finish(engine, course, revision)
    done = {**{each: end for each, end in ends.items() if end is not None}, **run.hosts}
    return replace(run, hosts={each: done[each] for each in names if each in done})


def _options(past: PastRun, given: Mapping[str, Any]) -> RolloutOptions:
    changed = [name for name, host in past.hosts.items() if host.outcome == words.COMMITTED]
    if "canary" in given and changed:
        raise UsageError(
            f"run {past.id} has had its canary ({changed[0]} is committed): leave --canary out; "
            "--wave says how many hosts are next"
        )
    kept = {key: value for key, value in past.options.items() if value is not None}
    return RolloutOptions.of(kept, **{"confirm_timeout": kept.get("confirm_timeout"), **given})


async def _take_up(
    engine: Engine, shared: Shared, past: PastRun, targets: Mapping[str, Target | None]
) -> dict[str, Part]:
    """Settle the hosts that were left in flight."""
    waiting = resuming.open_parts({each: past.hosts[each] for each in targets})
    parts: dict[str, Part] = {}
    for each, old in waiting.items():
        own = replace(shared, transaction=old.transaction)
        parts |= engine.parts({each: targets[each]}, own)
        parts[each].wave = old.wave

    async def take_up(task: Task) -> None:
        part = part_of(task)
        async with part.settling():
            await resuming.take_up(part, waiting[part.name])

    if parts:
        await engine.run(take_up, list(parts))
    return parts


def _old(past: PastRun, name: str) -> HostOutcome | None:
    host = past.hosts[name]
    return HostOutcome(
        name,
        host.outcome,
        host.message,
        tuple(map(problem_of, host.problems)),
        host.wave,
        host.changes,
        host.seconds,
        host.transaction,
    )


async def adopt(
    engine: Engine, parts: Mapping[str, Part], plans: Mapping[str, HostPlan]
) -> Mapping[str, HostPlan]:
    """Settle what a killed controller of ours left open on hosts that are to be rolled out now.

    A transaction is ours where its nonce is here, and left where the process that ran it is gone.
    It is confirmed where the host was to become what it is to become now, else reverted. Returns
    the plans, those of the hosts it settled made anew.
    """
    left: dict[str, PastHost] = {}
    killed: set[str] = set()
    for name, part in parts.items():
        transaction = str((part.pending or {}).get("transaction") or "")
        if not transaction or engine.shared.nonces.get(transaction, name) is None:
            continue
        past = await _run_of(engine, transaction)
        if past is None or (past.ended is None and controller.alive(past.controller, past.pid)):
            continue
        left[name] = past.hosts[name]
        if past.ended is None:
            killed.add(past.id)
        await _settle_left(engine, part, past)
    if not left:
        return plans
    for run in killed:
        said = f"its controller was killed; run {engine.shared.run} settled what it left"
        await engine.record().end_run(run, said)
    for part in parts.values():
        part.place()
    reviewed = {name: parts[name].reviewed for name in left}
    for name in left:
        # What was reviewed was a host in mid-change: it binds only where there is more to change.
        parts[name].reviewed = None
    new = await engine.plans({name: parts[name] for name in left})
    for name in left:
        parts[name].plan, parts[name].pending = new[name].plan, new[name].pending
        parts[name].reviewed = reviewed[name]
    return {**plans, **new}


async def _run_of(engine: Engine, transaction: str) -> PastRun | None:
    record = engine.record()
    run = await record.do(lambda store: store.run_of(transaction))
    return await record.load_run(run) if run else None


async def _settle_left(engine: Engine, part: Part, past: PastRun) -> None:
    old = past.hosts[part.name]
    engine.emit(Note(f"{part.name}: settling what run {past.id} left"))
    shared = replace(part.shared, run=past.id, transaction=old.transaction, ended=None)
    own = engine.parts({part.name: part.target}, shared)[part.name]
    wanted = part.target is not None and part.target.digest == old.state_digest

    async def settle_one(task: Task) -> None:
        async with own.settling():
            if wanted:
                await resuming.take_up(own, old)
            else:
                own.stage = "applying"
                state = await settle.revert(own)
                own.end(words.OF_STATE.get(state, words.UNKNOWN), "its controller was killed")

    await engine.run(settle_one, [part.name])
