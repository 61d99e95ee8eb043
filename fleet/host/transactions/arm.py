"""ARMED: the timer that takes everything back runs, and was read back, before the first change."""

from __future__ import annotations

import os
import signal

from fleet.host import preflight, wire
from fleet.host.change import HostError
from fleet.host.planning import ledger
from fleet.host.refusal import Refused
from fleet.host.spec import encode
from fleet.host.state import State, decode_state
from fleet.host.transactions import crash, fence, files, lasting, units
from fleet.host.transactions.files import Paths
from fleet.host.transactions.journal import ABANDONED, ARMED
from fleet.host.transactions.lasting import NETPLAN, NETWORKD
from fleet.host.transactions.lock import Held, Lock
from fleet.host.transactions.manager import DEADLINE, remembered
from fleet.host.transactions.prepare import prepare, scope_of, wanted_files
from fleet.host.transactions.recover import settle, settle_as_armed
from fleet.host.transactions.transaction import Transaction, load_all, prune
from fleet.host.transactions.watchdog import ABANDON, Watchdogs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Plan
    from fleet.host.kernel.system import System
    from fleet.host.transactions.back import Back

DEFAULT_DEADLINE = 120.0
LONGEST_DEADLINE = 3600.0
#: Seconds a change is reckoned with, and one new connection with its login and its helper.
PER_CHANGE = 0.05
CONNECT = 1.0


class Armed:
    """An armed transaction, as the helper that armed it holds it until it is applied."""

    def __init__(
        self, transaction: Transaction, plan: Plan, state: State, watchdogs: Watchdogs, token: str
    ) -> None:
        self.transaction = transaction
        self.plan = plan
        self.state = state
        self.watchdogs = watchdogs
        self.token = token
        #: Where the transaction takes another one back, what it goes back to.
        self.back: Back | None = None
        self.deadline = float(transaction.facts["deadline"])


def shortest_deadline(changes: int, settle_seconds: float) -> float:
    """Return the seconds below which a confirm could not even arrive in time."""
    return changes * PER_CHANGE + settle_seconds + 3 * CONNECT


def arm(system: System, paths: Paths, request: dict[str, Any]) -> tuple[Armed, dict[str, Any]]:
    """Carry out the op ``arm`` on a request that has its state; return what applying needs and
    the answer.

    Raises Refused: stale, locked, preflight or refused; nothing was changed then.
    """
    problems = preflight.check(paths)
    if problems:
        raise Refused("preflight", "this host is not ready; nothing was changed", problems)
    name = files.valid_name(request.get("transaction"))
    _check_nonce(request.get("nonce_hash"))
    try:
        for directory in (paths.state, paths.journal, paths.run):
            files.make_private(directory)
        with Lock(f"{paths.run}/lock").take(2.0, owner=request.get("owner", ""), doing="arm"):
            _clear_the_way(system, paths)
            return _arm_locked(system, paths, name, request)
    except Held as held:
        raise locked_by(held, system) from None
    except OSError as error:
        raise Refused(
            "refused", f"{error.filename or paths.state}: {error.strerror}; nothing was changed"
        ) from error


def locked_by(held: Held, system: System) -> Refused:
    """Return the refusal that names who holds the host's lock, and since when."""
    age = system.boottime() - float(held.holder.get("since", system.boottime()))
    who = held.holder.get("owner") or f"process {held.holder.get('holder', ['?'])[0]}"
    doing = held.holder.get("doing", "work")
    return Refused("locked", f"{who} is at it ({doing}) since {age:.0f} s")


def _check_nonce(nonce_hash: Any) -> None:
    if not isinstance(nonce_hash, str) or len(nonce_hash) != 64:
        raise Refused("refused", "nonce_hash is not a SHA-256 in hex")


def _clear_the_way(system: System, paths: Paths) -> None:
    """Settle what nobody else will; raise Refused where a transaction is open."""
    for transaction in load_all(paths):
        if transaction.stale(system):
            settle_as_armed(transaction, system)
            transaction.read()
        if not transaction.terminal:
            raise _open_transaction(transaction, system)
        fence.sweep(f"watchdog-{transaction.facts.get('lease', transaction.name)}")
        transaction.journal.close()
    prune(paths)


def _open_transaction(transaction: Transaction, system: System) -> Refused:
    status = transaction.status(system)
    left = status.get("seconds_left")
    until = f", {left:.0f} s left until it reverts by itself" if left is not None else ""
    return Refused(
        "locked",
        f"transaction {transaction.name} of {status['owner'] or 'someone'} is {status['state']} "
        f"since {status['age'] or 0:.0f} s{until}",
        [
            {
                "resource": "host",
                "what": "lock",
                "expected": "no open transaction",
                "actual": f"{transaction.name} of {status['owner']} is {status['state']}",
                "remedy": f"wait, or: fleet revert {transaction.name}",
            }
        ],
    )


def _arm_locked(
    system: System, paths: Paths, name: str, request: dict[str, Any]
) -> tuple[Armed, dict[str, Any]]:
    from fleet.host.kernel.observation import Observation
    from fleet.host.planning.plan import plan_from
    from fleet.host.reverting.snapshot import capture, require_way_back
    from fleet.host.transactions import netplan, probe

    state, manager = decode_request(request)
    entries = ledger.load(paths.state)
    observation = Observation(system)
    plan = plan_from(state, entries, observation)
    back, _ = way_back_of(request, paths, system)
    if back is not None and back.gone:
        raise Refused("stale", f"{back.name} has been taken back already")
    if back is not None:
        reviewed = back.planned(plan, paths)
    else:
        reviewed = lasting.with_files(plan, paths, state, manager, entries)
    check_plan(reviewed, request)
    probes = probe.passing(observation, state.probes or {}, system)
    if back is not None:
        wanted = back.files
    else:
        text = wire.dumps(request["state"])
        wanted = wanted_files(paths, state, text, manager, plan, entries, observation)
    netplan.check(system, paths, wanted)
    # What has to confirm may be fewer than what is declared: the controller leaves out what was
    # unreachable before. The plan and its digest know the declared ones.
    addresses = request.get("addresses") or state.management.addresses
    seconds = max(
        shortest_deadline(len(plan.changes), plan.settle + _tried(wanted)),
        min(float(request.get("deadline") or DEFAULT_DEADLINE), LONGEST_DEADLINE),
    )
    if back is not None:
        expected = back.probes(probes)
    else:
        expected = probe.expected_after(probes, plan.changes, observation.links)
    try:
        archive = units.stage_helper(paths)
    except (OSError, ValueError) as error:
        raise Refused(
            "refused", f"cannot keep a copy of the helper: {error}; nothing was changed"
        ) from error
    facts = {
        "owner": str(request.get("owner", ""))[:200],
        "plan_digest": reviewed.digest,
        "changes": len(plan.changes),
        "nonce_hash": request["nonce_hash"].lower(),
        "addresses": list(addresses),
        "loaded_from": units.helper_folder(),
        "archive": archive,
        "probes": expected,
        "undoes": back.name if back is not None else "",
    }
    snapshot = capture(system, back.scope if back is not None else scope_of(plan))
    try:
        require_way_back(system, snapshot)
    except HostError as error:
        text = f"there would be no way back: {error}; nothing was changed"
        raise Refused("refused", text, [encode(error.problem)]) from error
    transaction, undo = prepare(paths, name, system, wanted, snapshot, facts)
    memory = {"snapshot": snapshot, "entries": undo, "manager": remembered(transaction)}
    armed, reply = _start(transaction, system, plan, state, memory, seconds)
    armed.back = back
    return armed, reply


def _tried(wanted: lasting.Wanted) -> float:
    """Return the seconds that the host's manager needs to try its files out."""
    return DEADLINE if any(path.startswith((NETPLAN, NETWORKD)) for path in wanted) else 0.0


def way_back_of(request: dict[str, Any], paths: Paths, system: System) -> tuple[Back | None, str]:
    """Return the way back that a request asks for; without one its state says where to go, and
    the text why it cannot be exact."""
    if not request.get("back"):
        return None, ""
    from fleet.host.transactions.back import Inexact, way_back

    try:
        name = files.valid_name(request["back"])
        return way_back(paths, system, name, request.get("allow") or ()), ""
    except Inexact as error:
        return None, str(error)


def decode_request(request: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """Return a request's state and, apart, the manager's part that plans do not look at."""
    data = dict(request.get("state") or {})
    manager = data.pop("manager", None)
    if request.get("management"):
        data["management"] = {**(data.get("management") or {}), **request["management"]}
    return decode_state(data), dict(manager or {})


def check_plan(plan: Plan, request: dict[str, Any]) -> None:
    """Raise Refused unless this is the plan that was reviewed and nothing speaks against it."""
    from fleet.host.planning.plan import allowed

    if plan.digest != request.get("plan_digest"):
        raise Refused(
            "stale",
            "the host is not as it was when the plan was made; plan again",
            encode(plan.problems),
        )
    if plan.problems:
        raise Refused("refused", "the plan has problems", encode(plan.problems))
    objections = allowed(plan, request.get("allow") or ())
    if objections:
        raise Refused("refused", "not allowed by name", encode(objections))


def _start(
    transaction: Transaction,
    system: System,
    plan: Plan,
    state: State,
    memory: dict[str, Any],
    seconds: float,
) -> tuple[Armed, dict[str, Any]]:
    """Start the timers; where one cannot be, nothing is left running and nothing was changed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    token = os.urandom(16).hex()
    armed_at = system.boottime()
    deadline = armed_at + seconds
    transaction.facts["lease"] = token
    watchdogs, unit = Watchdogs(), ""
    try:
        watchdogs.start(transaction, system, deadline, memory)
        crash.point("arm.watchdog.started")
        unit = units.start_timer(
            system, transaction.name, str(transaction.facts["archive"]), seconds
        )
        crash.point("arm.timer.started")
        facts = {
            "armed_at": armed_at,
            "deadline": deadline,
            "lease": token,
            "watchdogs": watchdogs.identities,
            "unit": unit,
        }
        # The order matters: with the lease in /run a revert knows that there is one to make,
        # whatever becomes of the disk.
        lease = {**transaction.facts, **facts}
        files.create(f"{transaction.live}/lease", files.seal(wire.dumps(lease)))
        transaction.journal.append(ARMED, **facts)
    except Exception as error:
        watchdogs.tell(ABANDON)
        watchdogs.close()
        units.stop_timer(system, unit)
        files.remove(f"{transaction.live}/lease")
        settle(transaction, system, f"cannot arm: {error}")
        raise Refused("refused", f"cannot arm: {error}; nothing was changed") from error
    transaction.read()
    crash.point("arm.done")
    names = [f"process {who[0]}" for who in watchdogs.identities] + ([unit] if unit else [])
    reply = {
        "armed": True,
        "deadline": deadline,
        "boot_id": system.boot_id(),
        "seconds": round(deadline - system.boottime(), 3),
        "watchdogs": names,
    }
    return Armed(transaction, plan, state, watchdogs, token), reply


__all__ = [
    "ABANDONED",
    "Armed",
    "Paths",
    "arm",
    "check_plan",
    "decode_request",
    "locked_by",
    "way_back_of",
]
