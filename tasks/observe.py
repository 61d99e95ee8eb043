"""Observe a host."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def observe(task: Task, kinds: tuple[str, ...] = ()) -> Result:
    """Return the host's network as an intent would write it; ``kinds`` empty is all of it."""
    return Result(host=task.host, result=await steps.observe(part_of(task), tuple(kinds)))
