"""Settling what a killed controller left: asked of each host, never guessed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fleet.host.change import Plan
from fleet.host.spec import decode
from fleet.record.reader import PastHost
from fleet.rollout import outcome as words
from fleet.rollout import settle
from fleet.rollout.part import Part
from fleet.rollout.trouble import Ended

#: Seconds given to a host whose deadline nobody knows here.
UNKNOWN_DEADLINE = 30.0


def open_parts(hosts: Mapping[str, PastHost]) -> dict[str, PastHost]:
    """Return the hosts of a run that were being armed or more when it broke off."""
    return {name: past for name, past in hosts.items() if past.transaction and not over(past)}


def over(past: PastHost) -> bool:
    """Whether a host's outcome stands when its run goes on."""
    return bool(past.outcome) and past.outcome not in (words.NOT_STARTED, words.UNKNOWN)


async def take_up(part: Part, past: PastHost) -> None:
    """Bring a host that was left in flight to its end: confirm what was applied, if it is well.

    ``part`` carries the old transaction's name. Afterwards it has an outcome, save where the host
    was put back or never changed: then it can be rolled out anew.
    """
    part.plan = plan_of(past)
    part.addresses = past.addresses
    part.stage = "applying"
    part.deadline = time.monotonic() + UNKNOWN_DEADLINE
    entry = await settle.ask(part)
    if entry:
        left = entry.get("seconds_left")
        part.deadline = time.monotonic() + (left if isinstance(left, (int, float)) else 0.0)
        part.addresses = addresses_of(entry) or part.addresses
        if settle.state_of(entry) in ("PREPARED", "ARMED"):
            # Nobody is left who would have it applied.
            await settle.revert(part)
            return
    try:
        state = await settle.follow(part, ("APPLIED", "COMMITTED"))
        if state == "APPLIED":
            part.stage = "confirming"
            await settle.confirm(part)
    except Ended as error:
        await _went_wrong(part, error)
        return
    part.stage = "committed"
    part.end(words.COMMITTED, "settled after its run was broken off")


async def _went_wrong(part: Part, error: Ended) -> None:
    if (error.final and error.outcome == words.REVERTED) or error.outcome == words.FAILED:
        return
    await settle.settle(part, error)


def addresses_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the addresses that have to confirm a transaction, those that have included."""
    waiting, confirmed = entry.get("waiting") or (), entry.get("confirmed") or ()
    return tuple(dict.fromkeys(str(each) for each in (*waiting, *confirmed)))


def plan_of(past: PastHost) -> Plan:
    """Return a recorded plan; one that cannot be read any more has a digest at least."""
    try:
        return decode(Plan, past.plan or {"digest": past.plan_digest})
    except TypeError:
        return Plan(digest=past.plan_digest)
