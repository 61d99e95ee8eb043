"""Have guests leave a host whose plan would take something from them."""

from nornir.core.task import Result

from fleet.rollout import gates
from fleet.rollout.part import part_of
from fleet.ssh.runner import AsyncTask


async def drain(task: AsyncTask) -> Result:
    """Run the task that ``fleet: drain`` names, where the plan's impact asks for it."""
    return Result(host=task.host, result=await gates.drain(part_of(task), task))
