"""The steps of one host, in the order a rollout takes them: what the Nornir tasks call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.errors import HelperError
from fleet.host.change import IMPACTS, Change, Plan
from fleet.host.spec import encode
from fleet.report.text import clean, duration
from fleet.rollout import outcome as words
from fleet.rollout import settle
from fleet.rollout.dial import leads_to, same
from fleet.rollout.events import Note
from fleet.rollout.nonce import hash_of
from fleet.rollout.part import Part
from fleet.rollout.trouble import Ended, lost, plan_of

#: Seconds for an answer that only takes reading, and for arming (snapshot, files, timers).
READING, ARMING = 60.0, 60.0
#: Seconds beyond the host's deadline in which it may still say how its revert went.
REVERTING = 45.0
#: Seconds for an address to let us in, before it counts as unreachable.
REACH = 5.0


async def push(part: Part) -> None:
    """Connect, and start the helper, which is sent where the host lacks it."""
    async with part.visit():
        pass


async def plan(part: Part) -> Plan:
    """Ask the host for its plan; raises Ended where it is not the one that was reviewed."""
    if part.reviewed_state and part.target and part.reviewed_state != part.target.digest:
        raise Ended(
            words.REFUSED, "stale plan: the intent has changed since it was reviewed; plan again"
        )
    made = await _plan(part)
    if part.reviewed is not None and made.digest != part.reviewed.digest:
        raise Ended(words.REFUSED, f"stale plan: {_moved(part.reviewed, made)}; plan again")
    return made


async def _plan(part: Part) -> Plan:
    async with part.visit(), part.phase("plan", READING):
        reply = await part.call("plan", state=_state(part), **_back(part))
    if reply.get("inexact"):
        said = clean(reply["inexact"], 200)
        part.shared.emit(Note(f"{part.name}: going back by what the record says, for {said}"))
    part.pending = reply.get("transaction") if isinstance(reply.get("transaction"), dict) else None
    part.plan = plan_of(reply)
    part.stage = "planned"
    return part.plan


def _state(part: Part) -> dict[str, Any]:
    if part.target is None:
        raise Ended(words.FAILED, "there is no state for this host")
    return dict(part.target.state)


def _back(part: Part) -> dict[str, Any]:
    if part.target is None or not part.target.back:
        return {}
    return {"back": part.target.back, "allow": list(part.shared.options.allow)}


async def audit(part: Part) -> Plan:
    """Ask the host for its drift."""
    async with part.visit(), part.phase("audit", READING):
        reply = await part.call("audit", state=_state(part))
    part.pending = reply.get("pending") if isinstance(reply.get("pending"), dict) else None
    part.plan = plan_of(reply)
    return part.plan


async def observe(
    part: Part, kinds: tuple[str, ...] = (), lean: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, Any]:
    """Ask the host for everything on it, as an intent would write it.

    ``lean`` asks for what somebody configured alone; it holds, by host, what to ignore.
    """
    fields: dict[str, Any] = {"kinds": list(kinds)} if kinds else {}
    if lean is not None:
        fields = {"lean": True, "ignore": list(lean.get(part.name, ()))}
    async with part.visit(), part.phase("observe", READING):
        reply = await part.call("observe", **fields)
    found = reply.get("resources" if lean is None else "spaces")
    if not isinstance(found, dict):
        raise Ended(words.FAILED, "the host's observation makes no sense")
    return found


async def status(part: Part) -> list[dict[str, Any]]:
    """Ask the host for its transactions."""
    async with part.visit(), part.phase("status", READING):
        reply = await part.call("status")
    found = reply.get("transactions")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


async def check(part: Part) -> None:
    """Stop at what speaks against a plan before anything is armed; raises Ended."""
    assert part.plan is not None
    if part.plan.problems:
        raise Ended(words.REFUSED, "the plan has problems", part.plan.problems)
    if part.pending is not None and part.plan.changes:
        raise Ended(words.REFUSED, held(part.pending))
    part.go_on()


def held(pending: Any) -> str:
    """Return who holds a host and for how long, from its open transaction's status."""
    owner, age = clean(pending.get("owner") or "somebody", 80), pending.get("age")
    since = f" for {duration(age)}" if isinstance(age, (int, float)) else ""
    left = pending.get("seconds_left")
    until = f", {duration(left)} until it reverts" if isinstance(left, (int, float)) else ""
    name, state = clean(pending.get("transaction"), 64), clean(pending.get("state"), 40)
    return f"locked: {owner} holds it{since} (transaction {name} is {state}{until})"


async def arm(part: Part) -> None:
    """Arm the host's dead-man for the plan; what it will be confirmed with is durable before."""
    assert part.plan is not None
    await check(part)
    shared = part.shared
    part.addresses = await _addresses(part)
    nonce = shared.nonces.get(part.transaction, part.name)
    nonce = nonce or shared.nonces.make(part.transaction, part.name)
    if shared.record is not None:
        await shared.record.arming(
            shared.run, part.name, part.transaction, part.plan, hash_of(nonce), part.addresses
        )
    part.stage = "arming"
    async with part.visit(), part.phase("arm", ARMING):
        reply = await part.call(
            "arm",
            transaction=part.transaction,
            plan_digest=part.plan.digest,
            nonce_hash=hash_of(nonce),
            deadline=part.confirm_timeout,
            owner=shared.owner,
            addresses=list(part.addresses),
            state=_state(part),
            **{"allow": list(shared.options.allow), **_back(part)},
        )
    seconds = reply.get("seconds")
    part.armed(float(seconds) if isinstance(seconds, (int, float)) else part.confirm_timeout)


async def apply(part: Part) -> None:
    """Have the plan applied and verified; returns once the host says APPLIED, by whatever way.

    Where the channel goes away meanwhile, and it may when management moves, the host is dialled
    at its declared addresses until it says how far it is. Never asked to apply twice.
    """
    part.stage = "applying"
    try:
        async with part.visit(), part.phase("apply", part.left + REVERTING):
            reply = await part.call("apply", transaction=part.transaction)
        if reply.get("applied") is not True:
            raise Ended(words.UNKNOWN, "the host's answer to apply makes no sense")
    except HelperError:
        raise
    except Exception as error:
        if not lost(error):
            raise
        await part.drop()
        part.say("settle", "the connection was lost; asking the host")
        await settle.follow(part)
    part.cause = None
    part.stage = "applied"


async def confirm(part: Part) -> None:
    """Confirm over new connections to every address that has to; the last one commits."""
    part.stage = "confirming"
    async with part.phase("confirm", part.left + REVERTING):
        await settle.confirm(part)
    part.stage = "committed"


async def revert(part: Part) -> str:
    """Have the host put itself back now; return the state it ended in."""
    async with part.phase("revert", settle.REVERT):
        return await settle.revert(part)


async def _addresses(part: Part) -> tuple[str, ...]:
    """Return the declared management addresses that answer now, or that the plan makes.

    One that was unreachable before and stays as it is proves nothing by being unreachable after.
    """
    assert part.plan is not None
    management = _state(part).get("management") or {}
    declared = [str(each) for each in management.get("addresses") or ()]
    if len(declared) < 2:
        return tuple(declared)
    new = [c.after for c in part.plan.changes if c.what == "addresses" and c.after is not None]
    fresh = {_bare(each) for each in new}
    kept = []
    async with part.phase("reach", REACH * len(declared) + 5):
        for address in declared:
            made = any(same(address, each) for each in fresh)
            if made or leads_to(part.host, address) or await settle.answers(part, address, REACH):
                kept.append(address)
            else:
                part.say("arm", f"{address} does not answer now; it need not confirm")
    return tuple(kept)


def _bare(entry: Any) -> str:
    text = entry.get("address", "") if isinstance(entry, dict) else entry
    return str(text).partition("/")[0]


def impact(made: Plan) -> str:
    """Return the worst impact of a plan's changes."""
    known = [change.impact for change in made.changes if change.impact in IMPACTS]
    return max(known, key=IMPACTS.index, default="none")


def same_changes(one: Plan, other: Plan) -> bool:
    """Whether two plans do the same; whom they touch does not count."""
    return [_deed(change) for change in one.changes] == [_deed(change) for change in other.changes]


def _deed(change: Change) -> Any:
    return change.key, change.action, change.what, encode(change.before), encode(change.after)


def _moved(reviewed: Plan, made: Plan) -> str:
    if same_changes(reviewed, made):
        return "the host or its guests are not as they were when it was reviewed"
    return (
        f"{len(reviewed.changes)} changes were reviewed, {len(made.changes)} would be made now"
        if len(reviewed.changes) != len(made.changes)
        else "the changes are others than those reviewed"
    )
