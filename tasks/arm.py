"""Arm a host's dead-man switch for its plan."""

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def arm(task: Task) -> Result:
    """Start the timer that puts the host back unless it is confirmed; no change before that."""
    await steps.arm(part_of(task))
    return Result(host=task.host)
