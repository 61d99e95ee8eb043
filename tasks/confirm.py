"""Confirm what was applied to a host."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def confirm(task: Task) -> Result:
    """Confirm over new connections, so that only a host that can be reached is kept changed."""
    await steps.confirm(part_of(task))
    return Result(host=task.host, changed=True)
