"""Connect to a host and start its helper, which is sent where the host lacks it."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def push(task: Task) -> Result:
    """Make sure that the host's helper answers."""
    await steps.push(part_of(task))
    return Result(host=task.host)
