"""Why a host's part ended: errors as outcomes, and what a wrapped error really was."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fleet.errors import FleetError, HelperError, HostUnreachable
from fleet.host.change import Plan, Problem
from fleet.host.spec import decode
from fleet.report.text import clean
from fleet.rollout import outcome as words
from fleet.rollout.outcome import Trouble

#: What a helper's error code is as an outcome, while nothing has been changed.
OF_CODE = {
    "refused": words.REFUSED,
    "stale": words.REFUSED,
    "locked": words.REFUSED,
    "reverted": words.REVERTED,
    "revert-failed": words.REVERT_FAILED,
}


class Ended(FleetError):
    """A host's part is over before its last step: the outcome, and why."""

    def __init__(
        self, outcome: str, message: str, problems: tuple[Problem, ...] = (), final: bool = False
    ) -> None:
        super().__init__(message)
        self.outcome, self.message, self.problems = outcome, message, problems
        #: The host itself has said so, and nothing is left to be settled.
        self.final = final


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error of a host that was not changed means for the operator."""
    if isinstance(error, Ended):
        return Trouble(error.outcome, error.message, error.problems)
    if isinstance(error, HelperError):
        problems = tuple(each for each in error.problems if isinstance(each, Problem))
        return Trouble(OF_CODE.get(error.code, words.FAILED), str(error), problems)
    if isinstance(error, (HostUnreachable, TimeoutError, ConnectionError)):
        return Trouble(words.UNREACHABLE, str(error) or "the connection was lost")
    if isinstance(error, FleetError):
        return Trouble(words.FAILED, str(error))
    return Trouble(words.FAILED, f"{type(error).__name__}: {error}")


def root(error: BaseException) -> BaseException:
    """Return what a Nornir task really failed of, out of the subtasks' wrappings."""
    for _ in range(16):
        result = getattr(error, "result", None)
        inner = next((r.exception for r in result or () if getattr(r, "exception", None)), None)
        if inner is None or inner is error:
            break
        error = inner
    return error


def lost(error: BaseException) -> bool:
    """Whether an error says that the channel went away, not that the host said no."""
    return not isinstance(error, (HelperError, Ended)) and isinstance(
        error, (FleetError, OSError, EOFError, TimeoutError)
    )


def plan_of(reply: Mapping[str, Any]) -> Plan:
    """Return the plan of a helper's reply; raises Ended where it is none."""
    try:
        plan = decode(Plan, reply["plan"])
        if not isinstance(plan.digest, str) or not plan.digest:
            raise TypeError("it has no digest")
        return plan
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = clean(f"{type(error).__name__}: {error}", 200)
        raise Ended(words.FAILED, f"the host's plan makes no sense ({said})") from error


async def quietly(closing: Any) -> None:
    """Await the closing of something that may be broken, for a moment at most."""
    try:
        async with asyncio.timeout(2):
            await closing
    except (FleetError, OSError, EOFError, TimeoutError):
        pass  # there is nothing left to close
