"""Plan what would change on a host."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def plan(task: Task) -> Result:
    """Return the host's plan; nothing is changed."""
    return Result(host=task.host, result=await steps.plan(part_of(task)))
