"""Apply a host's plan and verify it."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def apply(task: Task) -> Result:
    """Change the host to its state; it is put back unless it is confirmed in time."""
    await steps.apply(part_of(task))
    return Result(host=task.host, changed=True)
