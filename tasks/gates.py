"""Run a host's gates before it is confirmed."""

from nornir.core.task import Result

from fleet.rollout.gates import host_gates
from fleet.rollout.part import part_of
from fleet.ssh.runner import AsyncTask


async def gates(task: AsyncTask) -> Result:
    """Run the tasks that ``fleet: gates`` names; one that fails puts the host back."""
    return Result(host=task.host, result=await host_gates(part_of(task), task))
