"""Change one host, from the helper's push to the confirm."""

from nornir.core.task import Result

from fleet.rollout.part import part_of
from fleet.ssh.runner import AsyncTask

from .apply import apply
from .arm import arm
from .confirm import confirm
from .drain import drain
from .gates import gates
from .plan import plan
from .push import push


async def rollout_host(task: AsyncTask) -> Result:
    """Roll one host out; it waits for no other host between armed and confirmed."""
    part = part_of(task)
    async with part.settled():
        await task.run(push)
        await task.run(plan)
        if part.changing:
            await task.run(drain)
            await task.run(arm)
            await task.run(apply)
            await task.run(gates)
            await task.run(confirm)
    return Result(host=task.host, result=part.outcome, changed=part.past("committed"))
