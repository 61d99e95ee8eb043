"""Audit a host."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def audit(task: Task) -> Result:
    """Return the host's drift as a plan that nobody carries out."""
    return Result(host=task.host, result=await steps.audit(part_of(task)))
