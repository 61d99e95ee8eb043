"""Observe a host."""

from collections.abc import Mapping

from nornir.core.task import Result, Task

from fleet.rollout import steps
from fleet.rollout.part import part_of


async def observe(
    task: Task,
    kinds: tuple[str, ...] = (),
    lean: Mapping[str, tuple[str, ...]] | None = None,
) -> Result:
    """Return the host's network as an intent would write it; ``kinds`` empty is all of it.

    With ``lean``, which holds patterns to ignore by host, only what somebody configured.
    """
    found = await steps.observe(part_of(task), tuple(kinds), lean)
    return Result(host=task.host, result=found)
