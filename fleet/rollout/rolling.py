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
from fleet.rollout import again, controller, undo
from fleet.rollout import outcome as words
from fleet.rollout import resume as resuming
from fleet.rollout.course import Course, Doing
from fleet.rollout.events import Note, RunStarted, Stopping
from fleet.rollout.interrupt import interrupts
from fleet.rollout.options import REVERT, RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run
from fleet.rollout.part import Part, Shared, Target
from fleet.rollout.result import HostAudit, HostPlan
from fleet.rollout.steps import held

if TYPE_CHECKING:
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
        engine.shared,
        run=run,
        transaction=run,
        options=options,
        stopping="",
        ended=None,
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
        if name in bound:
            part.reviewed, part.reviewed_state = bound[name].plan, bound[name].state_digest
    engine.emit(RunStarted(shared.run, len(parts)))
    with interrupts(lambda: engine.stop(), lambda: abort(engine, parts)):
        revision = await controller.revision(engine.path)
        plans = fresh or await engine.plans(parts)
        for name, made in plans.items():
            parts[name].plan, parts[name].pending = made.plan, made.pending
        await _record_begin(engine, shared, parts, revision, kind, of)
        plans = await again.adopt(engine, parts, plans)
        await settle_early(parts, plans)
        course = Course(shared, parts, doing(engine, shared, parts))
        course.budget.allowed = shared.options.max_failures
        run = await finish(engine, course, revision)
    if course.failed and shared.options.on_failure == REVERT and kind == "rollout":
        return await _take_back(engine, run)
    return run


def doing(engine: Engine, shared: Shared, parts: Mapping[str, Part]) -> Doing:
    async def audit(names: Any) -> Mapping[str, HostAudit]:
        # Parts of their own: those of the run keep the plan they were confirmed with.
        targets = {name: parts[name].target for name in names}
        try:
            return await engine.audits(engine.parts(targets, shared))
        finally:
            for name in names:
                parts[name].place()

    return Doing(engine.run, audit)


async def _record_begin(
    engine: Engine,
    shared: Shared,
    parts: Mapping[str, Part],
    revision: str,
    kind: str,
    of: str,
) -> None:
    entry = RunEntry(
        shared.run,
        time.time(),
        shared.owner,
        os.getpid(),
        str(engine.path),
        kind,
        of,
        revision,
        asdict(shared.options),
    )
    hosts = [
        HostEntry(
            name,
            part.plan,
            part.target.state if part.target else None,
            part.target.digest if part.target else "",
        )
        for name, part in parts.items()
    ]
    await engine.record().begin_run(entry, hosts)


async def settle_early(parts: Mapping[str, Part], plans: Mapping[str, HostPlan]) -> None:
    """Give an outcome to hosts that need no wave: no answer, nothing to do, or not to be done."""
    for name, part in parts.items():
        made = plans.get(name)
        if made is None:
            await part.conclude(words.FAILED, "it was not planned")
        elif made.trouble is not None:
            trouble = made.trouble
            await part.conclude(trouble.kind, trouble.message, trouble.problems)
        elif part.pending is not None:
            await part.conclude(words.REFUSED, held(part.pending))
        elif part.plan is not None and part.plan.problems:
            await part.conclude(words.REFUSED, "the plan has problems", part.plan.problems)
        elif part.plan is not None and not part.plan.changes:
            await part.conclude(words.UNCHANGED)


async def finish(engine: Engine, course: Course, revision: str) -> Run:
    shared = course.shared
    await course.go()
    await engine.record().end_run(shared.run, shared.stopping)
    ends = {name: part.outcome for name, part in course.parts.items() if part.outcome is not None}
    return Run(shared.run, ends, shared.stopping, revision)


def abort(engine: Engine, parts: Mapping[str, Part]) -> None:
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


async def way_back(engine: Engine, past: PastRun, names: list[str], options: RolloutOptions) -> Run:
    """Roll hosts out to what they were before a run, from their own snapshots where they can."""
    targets: dict[str, Target | None] = {}
    for name in names:
        state = await _state_before(engine, past, name)
        targets[name] = Target(state, back=past.hosts[name].transaction)
    shared = begin(engine, options)
    return await roll(engine, shared, targets, {}, kind="revert", of=past.id)


async def _state_before(engine: Engine, past: PastRun, name: str) -> Mapping[str, Any]:
    host = past.hosts[name]

    def find(store: Any) -> Any:
        digest = store.committed_before(name, past.started)
        return store.state(digest) if digest else None, store.state(host.state_digest)

    earlier, own = await engine.record().do(find)
    changes = resuming.plan_of(host).changes if host.plan else ()
    if earlier and own and not undo.was_in(earlier[0], own[0], changes):
        earlier = None
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
        return undo.before(state, changes)
    return dict(state)
