"""The operations of the helper: what each takes from a request and what it answers.

Only what an audit needs is imported here; what changes a host is imported by the operation that
does.
"""

from __future__ import annotations

import posix
import sys

from fleet.host import registry
from fleet.host.kernel.system import System
from fleet.host.planning import ledger
from fleet.host.refusal import Refused
from fleet.host.spec import encode
from fleet.host.state import decode_state
from fleet.host.transactions.files import Paths, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.state import State
    from fleet.host.transactions.arm import Armed

    Request = dict[str, Any]
    Answer = dict[str, Any]
    Report = Callable[[dict[str, Any]], None]


class Session:
    """What one helper process remembers between requests."""

    def __init__(self, system: System, paths: Paths, digest: str = "") -> None:
        self.system = system
        self.paths = paths
        self.digest = digest
        self.state: Any = None
        self.armed: Armed | None = None

    def state_of(self, request: Request) -> State:
        """Return a request's state, or the one an earlier request brought; raises Refused."""
        data = request.get("state")
        if data is not None:
            if not isinstance(data, dict):
                raise Refused("failed", "the state is not a mapping")
            self.state = data
        if self.state is None:
            raise Refused("failed", "no state was sent")
        plain = {key: value for key, value in self.state.items() if key != "manager"}
        try:
            return decode_state(plain)
        except (TypeError, AttributeError, ValueError) as error:
            raise Refused("failed", f"the state cannot be read: {error}") from error


def hello(session: Session, request: Request, report: Report) -> Answer:
    """Who this helper is and what the host offers."""
    import os

    from fleet.host import preflight

    return {
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "hash": session.digest,
        "root": os.geteuid() == 0,
        "boot_id": session.system.boot_id(),
        "tools": preflight.tools(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "problems": preflight.check(session.paths),
    }


def plan(session: Session, request: Request, report: Report) -> Answer:
    """The plan of a state, or of the way ``back`` of a transaction; and the open transaction.

    Where the way back is not exact, ``inexact`` says why, and the plan is the state's.
    """
    answer = _plan(session, request)
    answer["transaction"] = answer.pop("pending")
    del answer["observed_at"]
    return answer


def audit(session: Session, request: Request, report: Report) -> Answer:
    """The plan of a state as drift, with what nobody manages; and the open transaction."""
    return _plan(session, request)


def _plan(session: Session, request: Request) -> Answer:
    from fleet.host.planning.plan import make_plan
    from fleet.host.transactions.lasting import with_files

    state = session.state_of(request)
    observed_at = session.system.boottime()
    entries = ledger.load(session.paths.state)
    made = make_plan(state, entries, session.system)
    back, inexact = None, ""
    if request.get("back"):
        from fleet.host.transactions.arm import way_back_of

        back, inexact = way_back_of(request, session.paths, session.system)
    manager = session.state.get("manager") or {}
    try:
        made = (
            with_files(made, session.paths, state, manager, entries)
            if back is None
            else back.planned(made, session.paths)
        )
    except ValueError as error:
        raise Refused("refused", str(error)) from error
    answer = {"plan": encode(made), "observed_at": observed_at, "pending": _pending(session)}
    return {**answer, "inexact": inexact} if inexact else answer


def _pending(session: Session) -> Answer | None:
    folder = session.paths.journal
    try:
        names = posix.listdir(folder)
    except FileNotFoundError:
        return None
    # A finished transaction says so in one small file; an audit reads no journal for it.
    if all(ended(f"{folder}/{name}") for name in names):
        return None
    from fleet.host.transactions.transaction import pending

    return pending(session.paths, session.system)


def observe(session: Session, request: Request, report: Report) -> Answer:
    """Every resource of the kinds asked for, as intent would write it."""
    from fleet.host.kernel.observation import Observation

    observation = Observation(session.system)
    if request.get("lean"):
        from fleet.host.planning.lean import host

        return {"spaces": host(observation, tuple(request.get("ignore") or ()))}
    wanted = request.get("kinds") or [entry.kind for entry in registry.KINDS]
    found: dict[str, Any] = {}
    for name in wanted:
        if name not in registry.BY_NAME:
            raise Refused("failed", f"there is no kind {name!r}")
        kind = registry.load(name)
        forms = ((each, kind.observe(observation, each)) for each in kind.names(observation))
        found[name] = {each: form for each, form in forms if form is not None}
    return {"resources": found}


def arm(session: Session, request: Request, report: Report) -> Answer:
    """Prepare and arm a transaction."""
    from fleet.host.transactions.arm import arm as carry_out

    if session.armed is not None:
        raise Refused("refused", "this helper has armed a transaction already")
    session.state_of(request)
    session.armed, answer = carry_out(
        session.system, session.paths, {**request, "state": session.state}
    )
    return answer


def apply(session: Session, request: Request, report: Report) -> Answer:
    """Apply what this helper armed, and verify."""
    from fleet.host.transactions.apply import apply as carry_out

    armed, session.armed = session.armed, None
    if armed is None or armed.transaction.name != request.get("transaction"):
        session.armed = armed
        raise Refused("refused", "this helper has not armed that transaction")
    return carry_out(armed, session.system, report)


def confirm(session: Session, request: Request, report: Report) -> Answer:
    """Confirm, over the connection this process came in by."""
    from fleet.host.transactions.confirm import confirm as carry_out

    return carry_out(session.system, session.paths, request)


def revert(session: Session, request: Request, report: Report) -> Answer:
    """Put the host back before anybody confirms."""
    from fleet.host.transactions.confirm import revert as carry_out

    return carry_out(session.system, session.paths, request)


def status(session: Session, request: Request, report: Report) -> Answer:
    """The transactions whose journals the host still has, oldest first."""
    from fleet.host.transactions.transaction import load_all

    found = load_all(session.paths)
    return {"transactions": [each.status(session.system) for each in found]}


def recover(session: Session, request: Request, report: Report) -> Answer:
    """Settle what nobody else will."""
    from fleet.host.transactions.lock import Held, Lock
    from fleet.host.transactions.recover import recover_all

    try:
        with Lock(f"{session.paths.run}/lock").take(2.0, doing="recover"):
            return {"settled": recover_all(session.paths, session.system)}
    except FileNotFoundError:
        return {"settled": []}  # there has never been a transaction in this boot
    except Held as held:
        from fleet.host.transactions.arm import locked_by

        raise locked_by(held, session.system) from None


OPERATIONS: dict[str, Callable[[Session, Request, Report], Answer]] = {
    "hello": hello,
    "audit": audit,
    "plan": plan,
    "observe": observe,
    "arm": arm,
    "apply": apply,
    "confirm": confirm,
    "revert": revert,
    "status": status,
    "recover": recover,
}


def carry_out(session: Session, request: Any, report: Report) -> Answer:
    """Carry out one request and return its whole answer; raises nothing."""
    number = request.get("id") if isinstance(request, dict) else None
    try:
        if not isinstance(request, dict):
            raise Refused("failed", "a request is a mapping")
        operation = OPERATIONS.get(str(request.get("op")))
        if operation is None:
            raise Refused("failed", f"there is no operation {str(request.get('op'))[:40]!r}")
        return {"id": number, "ok": True, **operation(session, request, report)}
    except Refused as refused:
        return _error(number, refused.code, refused.message, refused.problems)
    except Exception as error:
        return _unexpected(number, error)


def _unexpected(number: Any, error: Exception) -> Answer:
    """A host that is not as a step needs it is an answer; anything else is a fault of ours, and
    its traceback goes to stderr only."""
    from fleet.host.change import HostError

    if isinstance(error, HostError):
        return _error(number, "failed", str(error), [encode(error.problem)])
    import traceback

    traceback.print_exc(file=sys.stderr)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _error(number, "failed", f"{where}{error.strerror or error}", [])
    if isinstance(error, ValueError) and "transaction" in str(error):
        return _error(number, "refused", str(error), [])
    return _error(number, "internal", f"{type(error).__name__}: {str(error)[:200]}", [])


def _error(number: Any, code: str, message: str, problems: list[Any]) -> Answer:
    error = {"code": code, "message": message, "problems": problems}
    return {"id": number, "ok": False, "error": error}
