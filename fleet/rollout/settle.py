"""Finding out how a host ended: asking it, confirming it, or having it put itself back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fleet.errors import HelperError
from fleet.host.change import Problem
from fleet.rollout import outcome as words
from fleet.rollout.part import Part
from fleet.rollout.trouble import OF_CODE, Ended, lost, quietly, trouble_of

if TYPE_CHECKING:
    from fleet.rollout.dial import Session

#: Seconds between two tries to reach a host, and how long one try may take.
PAUSE, TRY = 0.5, 10.0
#: Seconds beyond the host's own deadline until it counts as unknown: its revert takes its time.
GRACE = 45.0
#: Seconds for a revert that is asked for.
REVERT = 150.0
TERMINAL = ("COMMITTED", "REVERTED", "REVERT_FAILED", "ABANDONED")
#: Nothing more can be asked of it; what could not be put back may be tried again.
ENDED = ("COMMITTED", "REVERTED", "ABANDONED")
#: From here on the host finishes by itself.
FORWARD = ("CONFIRMED", "PERSISTING")


@asynccontextmanager
async def dialled(part: Part, address: str = "") -> AsyncIterator[Session]:
    """A session over a new connection, closed afterwards; raises as the dial does."""
    async with asyncio.timeout(TRY):
        session = await part.shared.dial.anew(part.host, address)
    try:
        yield session
    finally:
        await quietly(session.close())


async def answers(part: Part, address: str, seconds: float) -> bool:
    """Say whether an address of the host lets us in within some seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await part.shared.dial.answers(part.host, address)
    except TimeoutError:
        return False


async def ask(part: Part) -> dict[str, Any] | None:
    """Return the status of the part's transaction, {} where the host has none of that name.

    Dials the ways to the host one after another, new ones each time; None where none of them led
    there.
    """
    for address in dict.fromkeys([*part.addresses, ""]):
        try:
            async with dialled(part, address) as session, asyncio.timeout(TRY):
                reply = await session.call("status", timeout=None)
        except HelperError:
            continue
        except Exception as error:
            if not lost(error):
                raise
            continue
        found = reply.get("transactions")
        for entry in found if isinstance(found, list) else ():
            if isinstance(entry, Mapping) and entry.get("transaction") == part.transaction:
                return dict(entry)
        return {}
    return None


async def follow(part: Part, until: tuple[str, ...] = ("APPLIED",)) -> str:
    """Ask again and again until the host says one of ``until``; return that state.

    Raises Ended once it has ended otherwise, or where it cannot be reached until well after its
    deadline: the outcome is unknown then.
    """
    said: Any = None
    while True:
        entry = await ask(part)
        if entry is not None:
            said = entry
            state = state_of(entry)
            if state in until:
                return state
            if not entry:
                raise Ended(words.FAILED, "the host knows no such transaction: nothing was changed")
            if state in TERMINAL:
                raise ended(entry)
        if part.left < -GRACE:
            raise Ended(words.UNKNOWN, _silence(said))
        await asyncio.sleep(PAUSE)


def _silence(said: Any) -> str:
    if said is None:
        return "no way to the host since the change; its deadline has passed"
    return f"the host is still {state_of(said)}, well after its deadline"


def state_of(entry: Mapping[str, Any]) -> str:
    """Return a transaction's state without the step: ``APPLYING(3)`` is APPLYING."""
    state = str(entry.get("state") or "")
    return state.partition("(")[0].replace("-", "_").upper()


def ended(entry: Mapping[str, Any]) -> Ended:
    """Return what a transaction that has ended on the host means for the operator."""
    said = entry.get("outcome")
    last: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    reason = str(last.get("reason") or entry.get("reason") or "")
    given = last.get("problems") or ()
    problems = [problem_of(each) for each in given if isinstance(each, Mapping)]
    left = [
        Problem("host", "revert", "as before the transaction", str(each))
        for each in last.get("remaining") or ()
    ]
    outcome = words.OF_STATE.get(state_of(entry), words.UNKNOWN)
    return Ended(outcome, reason, (*problems, *left), final=True)


def problem_of(said: Mapping[str, Any]) -> Problem:
    """Return a problem of a helper's or a record's plain data."""
    names = ("resource", "what", "expected", "actual", "remedy")
    return Problem(*(str(said.get(name) or "") for name in names))


async def confirm(part: Part) -> None:
    """Confirm at every address that has to; raises Ended where the host does not commit.

    A reply that is lost is not asked for again: the host says what it made of the request.
    """
    refusal: HelperError | None = None
    while True:
        for address in part.addresses or ("",):
            refusal, state = await _confirm_at(part, address)
            if state == "COMMITTED":
                return
            if refusal is not None and refusal.code != "locked":
                break
        entry = await ask(part)
        if entry is not None:
            state = state_of(entry)
            if state == "COMMITTED":
                return
            if state in TERMINAL:
                raise ended(entry)
            if state == "APPLIED" and refusal is not None and refusal.code != "locked":
                raise Ended(words.REFUSED, f"not confirmed: {refusal}", refused(refusal))
        if part.left < -GRACE:
            raise Ended(words.UNKNOWN, _silence(entry))
        await asyncio.sleep(PAUSE)


async def _confirm_at(part: Part, address: str) -> tuple[HelperError | None, str]:
    """Confirm at one address; return why it was refused, and the state the host answered with."""
    nonce = part.shared.nonces.get(part.transaction, part.name)
    if nonce is None:
        # A fleet confirm or fleet revert elsewhere on this controller ended it, and took the nonce.
        entry = await ask(part)
        if entry and state_of(entry) == "COMMITTED":
            return None, "COMMITTED"
        if entry and state_of(entry) in TERMINAL:
            raise ended(entry)
        raise Ended(words.REFUSED, "its nonce is not on this controller: it cannot be confirmed")
    part.say("confirm", address)
    assert part.plan is not None
    try:
        async with dialled(part, address) as session, asyncio.timeout(60):
            reply = await session.call(
                "confirm",
                timeout=None,
                transaction=part.transaction,
                plan_digest=part.plan.digest,
                nonce=nonce,
                address=address,
            )
    except HelperError as error:
        if "has confirmed already" in error.message:
            return None, ""
        return error, ""
    except Exception as error:
        if not lost(error):
            raise
        return None, ""
    state = state_of(reply)
    if part.shared.record is not None:
        await part.shared.record.confirmed(
            part.shared.run, part.name, part.transaction, address, state, time.time()
        )
    return None, state


def refused(error: HelperError) -> tuple[Problem, ...]:
    """Return the problems that came with a refusal."""
    return tuple(each for each in error.problems if isinstance(each, Problem))


async def revert(part: Part) -> str:
    """Have the host put itself back, over whatever way leads there; return how it ended.

    Raises Ended where it ended otherwise, or cannot be reached until well after its deadline.
    """
    while True:
        for address in dict.fromkeys(["", *part.addresses]):
            try:
                async with dialled(part, address) as session, asyncio.timeout(REVERT):
                    reply = await session.call("revert", timeout=None, transaction=part.transaction)
                    return state_of(reply)
            except HelperError as error:
                if error.code == "revert-failed":
                    raise Ended(words.REVERT_FAILED, str(error), refused(error)) from error
                entry = await ask(part)
                if entry is not None and (not entry or state_of(entry) in TERMINAL):
                    return state_of(entry) or "ABANDONED"
            except Exception as error:
                if not lost(error):
                    raise
        if part.left < -GRACE:
            raise Ended(words.UNKNOWN, "no way to the host to have it put back")
        await asyncio.sleep(PAUSE)


async def settle(part: Part, cause: BaseException) -> None:
    """Give a host whose part broke off its true outcome, asking it where it may have changed."""
    trouble = trouble_of(cause)
    if not part.past("arming"):
        part.end(trouble.kind, trouble.message, trouble.problems)
        return
    if part.past("committed"):
        part.end(words.COMMITTED, trouble.message)
        return
    if isinstance(cause, HelperError) and cause.code in ("reverted", "revert-failed"):
        part.end(OF_CODE[cause.code], trouble.message, trouble.problems)
        return
    if isinstance(cause, Ended) and (cause.final or cause.outcome == words.UNKNOWN):
        part.end(trouble.kind, trouble.message, trouble.problems)
        return
    part.say("settle", trouble.message)
    if not part.past("applying"):
        await _disarm(part)
        part.end(trouble.kind, f"{trouble.message}; nothing was changed", trouble.problems)
        return
    await _put_back(part, trouble.message, trouble.problems)


async def _disarm(part: Part) -> None:
    """Free the host's lock; where that fails its own deadline does it."""
    try:
        async with asyncio.timeout(TRY):
            async with dialled(part) as session:
                await session.call("revert", timeout=None, transaction=part.transaction)
    except HelperError:
        pass  # it was not armed, or is settled
    except Exception as error:
        if not lost(error):
            raise


async def _put_back(part: Part, message: str, problems: tuple[Problem, ...]) -> None:
    try:
        entry = await ask(part)
        state = state_of(entry or {})
        if state in FORWARD:
            state = await follow(part, ("COMMITTED",))
        if state not in TERMINAL:
            state = await revert(part)
    except Ended as error:
        text = f"{message}; {error.message}" if error.message not in message else message
        part.end(error.outcome, text, (*problems, *error.problems))
        return
    if state in ("COMMITTED", "REVERT_FAILED"):
        last = ended(entry or {"state": state})
        part.end(words.OF_STATE[state], f"{message}; {last.message}".rstrip("; "), problems)
        return
    # Changes may have been made: where the host says ABANDONED there were none after all.
    outcome = words.FAILED if state == "ABANDONED" else words.REVERTED
    part.end(outcome, message, problems)
