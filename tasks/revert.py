"""Have a host put itself back."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def revert(task: Task) -> Result:
    """Revert the host's open transaction now, before its deadline does."""
    return Result(host=task.host, result=await steps.revert(part_of(task)), changed=True)
