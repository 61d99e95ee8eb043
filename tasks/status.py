"""Ask a host for its transactions."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def status(task: Task) -> Result:
    """Return the host's transactions, open and past."""
    return Result(host=task.host, result=await steps.status(part_of(task)))
