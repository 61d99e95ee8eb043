"""Gates: operators' tasks that must pass, on a host before its confirm and on a wave after it.

The probes (gateway, targets, links, guests' ports) are gates too, and the host runs them itself
when it is confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fleet.report.text import clean, duration
from fleet.rollout import outcome as words
from fleet.rollout.events import GateFailed, GatePassed
from fleet.rollout.part import Part
from fleet.rollout.trouble import Ended, root

if TYPE_CHECKING:
    from fleet.ssh.runner import AsyncTask

#: Seconds before the host's deadline by which its gates must have passed: a confirm takes time.
MARGIN = 5.0
#: Seconds for the gates after a wave, and for a drain where ``fleet: drain-timeout`` says nothing.
AFTER, DRAIN = 600.0, 3600.0


def named(setting: Any) -> tuple[str, ...]:
    """Return the names of tasks that a setting lists, as a list or alone."""
    if isinstance(setting, str):
        return (setting,)
    return tuple(str(each) for each in setting) if isinstance(setting, (list, tuple)) else ()


async def host_gates(part: Part, task: AsyncTask) -> tuple[str, ...]:
    """Run the tasks of ``fleet: gates`` on a host; return their names, raise Ended if one fails."""
    names = named(part.settings.get("gates"))
    if not names:
        return ()
    async with part.phase("gates", max(1.0, part.left - MARGIN)):
        for name in names:
            part.say("gates", name)
            await run_gate(part, task, name)
    return names


async def run_gate(part: Part, task: AsyncTask, name: str) -> None:
    """Run one gate as a subtask; raise Ended where it fails."""
    try:
        result = await task.run(part.shared.tasks.find(name))
        failed = why(result) if result.failed else ""
    except Exception as error:
        # A gate is an operator's code: however it ends but well, it has not passed.
        failed = clean(root(error), 300) or type(error).__name__
    if failed:
        part.shared.emit(GateFailed(name, failed, part.name))
        raise Ended(words.REVERTED, f"gate {name} failed: {failed}")
    part.shared.emit(GatePassed(name, part.name))


def why(results: Iterable[Any]) -> str:
    """Return in a line why a Nornir result failed."""
    for result in results:
        if result.failed:
            return clean(result.exception or result.result or "it says so", 300)
    return ""


async def _drained(part: Part, task: AsyncTask, name: str) -> str:
    """Run a drain task; return why it failed, empty where it did not."""
    try:
        result = await task.run(part.shared.tasks.find(name))
    except Exception as error:
        return clean(root(error), 300) or type(error).__name__
    return why(result) if result.failed else ""


async def drain(part: Part, task: AsyncTask) -> bool:
    """Run ``fleet: drain`` where the plan would take something from guests, then plan again.

    Returns whether it ran. Raises Ended where nobody allowed what it is for, where it fails or does
    not end in time (``fleet: drain-timeout``), or where the plan is another one since.
    """
    from fleet.host.planning.impact import allowed
    from fleet.rollout import steps

    name = part.settings.get("drain")
    assert part.plan is not None
    if not name or steps.impact(part.plan) != "drain":
        return False
    objections = allowed(part.plan.changes, part.shared.options.allow)
    if objections:
        said = f"not allowed by name; drain task {name} was not run"
        raise Ended(words.REFUSED, said, objections)
    part.go_on()
    before, reviewed = part.plan, part.reviewed
    seconds = float(part.settings.get("drain-timeout") or DRAIN)
    async with part.phase("drain"):
        try:
            async with asyncio.timeout(seconds):
                failed = await _drained(part, task, str(name))
        except TimeoutError:
            failed = f"no end within {duration(seconds)} (fleet: drain-timeout)"
    if failed:
        raise Ended(words.FAILED, f"drain task {name} failed: {failed}")
    # The guests are part of the digest, and they have left: what must hold is what is done.
    part.reviewed = None
    after = await steps.plan(part)
    part.reviewed = reviewed
    if not steps.same_changes(before, after):
        raise Ended(words.REFUSED, "stale plan: draining changed what would be done; plan again")
    return True
