"""Rolling out: planning all, the course of the waves, and what comes after it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError
from fleet.plan_file import Reviewed
from fleet.record.writer import HostEntry, RunEntry
from fleet.rollout import controller, undo
from fleet.rollout import outcome as words
from fleet.rollout import resume as resuming
from fleet.rollout.course import Course, Doing
from fleet.rollout.events import Note, RunStarted, Stopping
from fleet.rollout.interrupt import interrupts
from fleet.rollout.options import REVERT, RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run
from fleet.rollout.part import Part, Shared, Target, part_of
from fleet.rollout.result import HostAudit, HostPlan
from fleet.rollout.settle import problem_of

if TYPE_CHECKING:
    from nornir.core.task import Task

    from fleet.record.reader import PastRun
    from fleet.rollout.engine import Engine, Plans


def stop(engine: Engine, reason: str) -> None:
    """Begin no further host of whatever the engine rolls out."""
    if not engine.shared.stopping:
        engine.shared.stopping = reason
        engine.emit(Stopping(reason))


async def rollout(
    engine: Engine, selection: Selection, options: RolloutOptions, reviewed: Plans | None
) -> Run:
    """Roll hosts out to their intent."""
    names = selection.names(engine.inventory)
    fresh: Mapping[str, HostPlan] | None = None
    bound: Mapping[str, HostPlan] = {}
    if isinstance(reviewed, Reviewed):
        bound = reviewed.hosts
        names = [name for name in names if name in bound]
        if not names:
            raise UsageError("the plan is about none of the selected hosts")
    elif reviewed is not None:
        bound = fresh = {name: reviewed[name] for name in names if name in reviewed}
        names = list(fresh)
    shared = begin(engine, options)
    return await roll(engine, shared, engine.targets(names), bound, fresh)


def begin(engine: Engine, options: RolloutOptions, run: str = "") -> Shared:
    """Return what the parts of a new run share, and let the engine's stop act on it."""
    run = run or controller.new_run()
    engine.shared = replace(
        engine.shared, run=run, transaction=run, options=options, stopping="", ended=None,
        record=engine.record(),
    )
    return engine.shared


async def roll(
    engine: Engine,
    shared: Shared,
    targets: Mapping[str, Target | None],
    bound: Mapping[str, HostPlan],
    fresh: Mapping[str, HostPlan] | None = None,
    kind: str = "rollout",
    of: str = "",
) -> Run:
    """Take hosts to their targets. ``bound`` are the plans that were reviewed, ``fresh`` those
    that were made a moment ago and need not be made again."""
    parts = engine.parts(targets, shared)
    for name, part in parts.items():
        part.reviewed = bound[name].plan if name in bound else None
    engine.emit(RunStarted(shared.run, len(parts)))
    with interrupts(lambda: engine.stop(), lambda: _abort(engine, parts)):
        revision = await controller.revision(engine.path)
        plans = fresh or await _plans(engine, parts, bound)
        for name, made in plans.items():
            parts[name].plan, parts[name].pending = made.plan, made.pending
        await _record_begin(engine, shared, parts, revision, kind, of)
        await _settle_early(parts, plans)
        course = Course(shared, parts, _doing(engine, shared, parts))
        course.budget.allowed = shared.options.max_failures
        run = await _finish(engine, course, revision)
    if course.failed and shared.options.on_failure == REVERT and kind == "rollout":
        return await _take_back(engine, run)
    return run


def _doing(engine: Engine, shared: Shared, parts: Mapping[str, Part]) -> Doing:
    async def audit(names: Any) -> Mapping[str, HostAudit]:
        # Parts of their own: those of the run keep the plan they were confirmed with.
        targets = {name: parts[name].target for name in names}
        try:
            return await engine.audits(engine.parts(targets, shared))
        finally:
            for name in names:
                parts[name].place()

    return Doing(engine.run, audit)


async def _plans(
    engine: Engine, parts: Mapping[str, Part], bound: Mapping[str, HostPlan]
) -> dict[str, HostPlan]:
    plans = await engine.plans(parts)
    for name, made in plans.items():
        said = bound.get(name)
        digest = made.state_digest
        if said is not None and made.plan and said.state_digest not in ("", digest):
            message = "stale plan: the intent has changed since it was reviewed; plan again"
            trouble = words.Trouble(words.REFUSED, message)
            plans[name] = replace(made, plan=None, trouble=trouble)
    return plans


async def _record_begin(
    engine: Engine,
    shared: Shared,
    parts: Mapping[str, Part],
    revision: str,
    kind: str,
    of: str,
) -> None:
    entry = RunEntry(
        shared.run, time.time(), shared.owner, os.getpid(), str(engine.path), kind, of, revision,
        asdict(shared.options),
    )
    hosts = [
        HostEntry(
            name, part.plan,
            part.target.state if part.target else None, part.target.digest if part.target else "",
        )
        for name, part in parts.items()
    ]
    await engine.record().begin_run(entry, hosts)


async def _settle_early(parts: Mapping[str, Part], plans: Mapping[str, HostPlan]) -> None:
    """Give an outcome to hosts that need no wave: no answer, nothing to do, or not to be done."""
    for name, part in parts.items():
        made = plans.get(name)
        if made is None:
            await part.conclude(words.FAILED, "it was not planned")
        elif made.trouble is not None:
            trouble = made.trouble
            await part.conclude(trouble.kind, trouble.message, trouble.problems)
        elif part.plan is not None and part.plan.problems:
            await part.conclude(words.REFUSED, "the plan has problems", part.plan.problems)
        elif part.plan is not None and not part.plan.changes:
            await part.conclude(words.UNCHANGED)


async def _finish(engine: Engine, course: Course, revision: str) -> Run:
    shared = course.shared
    await course.go()
    await engine.record().end_run(shared.run, shared.stopping)
    ends = {name: part.outcome for name, part in course.parts.items() if part.outcome is not None}
    return Run(shared.run, ends, shared.stopping, revision)


def _abort(engine: Engine, parts: Mapping[str, Part]) -> None:
    engine.emit(Note("stopping at once; hosts that are armed put themselves back"))
    for part in parts.values():
        part.abort()


async def _take_back(engine: Engine, run: Run) -> Run:
    """Take back what a run that failed has committed: a run of its own."""
    names = [name for name, end in run.hosts.items() if end.outcome == words.COMMITTED]
    if not names:
        return run
    engine.emit(Note(f"{run.stopped}; taking back what was committed"))
    past = await engine.record().load_run(run.id)
    back = await way_back(engine, past, names, RolloutOptions(canary=0))
    ends = {name: _taken_back(end, back) for name, end in run.hosts.items()}
    return replace(run, hosts=ends, reverted_by=back.id)


def _taken_back(end: HostOutcome, back: Run) -> HostOutcome:
    after = back.hosts.get(end.host)
    if after is None:
        return end
    if after.well:
        return replace(end, outcome=words.REVERTED, message=f"taken back by run {back.id}")
    outcome = words.UNKNOWN if after.outcome == words.UNKNOWN else words.REVERT_FAILED
    said = f"still changed: run {back.id} could not take it back ({after.outcome}: {after.message})"
    return replace(end, outcome=outcome, message=said, problems=after.problems)


async def way_back(
    engine: Engine, past: PastRun, names: list[str], options: RolloutOptions
) -> Run:
    """Roll hosts out to what they were before a run."""
    targets: dict[str, Target | None] = {}
    for name in names:
        targets[name] = Target(await _state_before(engine, past, name))
    shared = begin(engine, options)
    return await roll(engine, shared, targets, {}, kind="revert", of=past.id)


async def _state_before(engine: Engine, past: PastRun, name: str) -> Mapping[str, Any]:
    host = past.hosts[name]

    def find(store: Any) -> Any:
        digest = store.committed_before(name, past.started)
        return store.state(digest) if digest else None, store.state(host.state_digest)

    earlier, own = await engine.record().do(find)
    found = earlier or own
    if found is None:
        raise UsageError(f"the record does not have the state of {name} before run {past.id}")
    state, withheld = found
    if withheld:
        raise UsageError(
            f"the state of {name} before run {past.id} has secrets that no record keeps "
            f"({', '.join(withheld[:3])}): check out the inventory's revision before "
            f"{past.revision or 'the run'} and roll that out"
        )
    if earlier is None:
        return undo.before(state, resuming.plan_of(host).changes)
    return dict(state)


async def resume(engine: Engine, name: str) -> Run:
    """Go on with a run that was broken off; its options and reviewed plans are the record's."""
    record = engine.record()
    past = await record.load_run(name)
    if past.ended is None and controller.alive(past.controller, past.pid):
        raise UsageError(f"run {past.id} still goes on: process {past.pid} of {past.controller}")
    if past.kind != "rollout":
        raise UsageError(f"run {past.id} took another back; revert that one again instead")
    kept = {key: value for key, value in past.options.items() if value is not None}
    options = RolloutOptions.of(kept, confirm_timeout=kept.get("confirm_timeout"))
    shared = begin(engine, options, past.id)
    attempt = await record.resume_run(past.id, shared.owner, os.getpid())
    names = [each for each in past.hosts if each in engine.inventory.hosts]
    targets = engine.targets([each for each in names if not resuming.over(past.hosts[each])])
    engine.emit(RunStarted(past.id, len(names)))
    ends = {each: _old(past, each) for each in names if each not in targets}
    left: dict[str, Part] = {}
    with interrupts(lambda: engine.stop(), lambda: _abort(engine, left)):
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
        await _settle_early(parts, plans)
        course = Course(shared, parts, _doing(engine, shared, parts))
        course.budget.allowed = options.max_failures
        course.budget.failed = [each for each, end in ends.items() if end and not end.well]
        if any(end and end.outcome == words.COMMITTED for end in ends.values()):
            shared.options = replace(options, canary=0)
        revision = await controller.revision(engine.path)
        run = await _finish(engine, course, revision)
    done = {**{each: end for each, end in ends.items() if end is not None}, **run.hosts}
    return replace(run, hosts={each: done[each] for each in names if each in done})


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
        name, host.outcome, host.message, tuple(map(problem_of, host.problems)), host.wave,
        host.changes, host.seconds, host.transaction,
    )
