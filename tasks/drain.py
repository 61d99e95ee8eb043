"""Have guests leave a host whose plan would take something from them."""

from nornir.core.task import Result, Task

from fleet.rollout import gates
from fleet.rollout.part import part_of


async def drain(task: Task) -> Result:
    """Run the task that ``fleet: drain`` names, where the plan's impact asks for it."""
    return Result(host=task.host, result=await gates.drain(part_of(task), task))
