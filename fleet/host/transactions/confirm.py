"""CONFIRMED: the commit point, reached only from outside, over a connection made afterwards.

What proves that operators can still get in is that one just did: the confirming process descends
from an sshd whose connection began after APPLIED, at a declared management address. The nonce
proves that it is the controller that armed.
"""

from __future__ import annotations

import hmac
import os
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from fleet.host.refusal import Refused
from fleet.host.transactions import crash, fence, files
from fleet.host.transactions.arm import locked_by
from fleet.host.transactions.files import Paths
from fleet.host.transactions.journal import APPLIED, CONFIRMED, PERSISTING, REVERTING
from fleet.host.transactions.lock import Held, Lock
from fleet.host.transactions.recover import settle, settle_as_armed
from fleet.host.transactions.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.kernel.system import System

_SSHD = ("sshd", "sshd-session")
_ESTABLISHED = "01"


class Connection:
    """An SSH connection into this host: when it began (ticks since boot) and where it arrived."""

    def __init__(self, began: float, address: str) -> None:
        self.began = began
        self.address = address


def trace(pid: int | None = None) -> Connection:
    """Return the connection that a process came in by, from the sshd it descends from.

    That is the topmost ancestor named sshd which holds an established TCP connection: above it
    there is only the listener. ``began`` is in seconds of CLOCK_BOOTTIME, rounded down to the
    tick. Raises Refused where there is none.
    """
    found = None
    current = pid or os.getpid()
    while current > 1:
        fields = fence.stat_of(current)
        if fields is None:
            break
        if _command(current) in _SSHD:
            address = _arrived_at(current)
            if address:
                found = Connection(int(fields[19]) / os.sysconf("SC_CLK_TCK"), address)
        current = int(fields[1])
    if found is None:
        raise Refused("refused", "this process was not started by an sshd: no connection to judge")
    return found


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _arrived_at(pid: int) -> str:
    """Return the local address of the established TCP socket a process holds, or nothing."""
    try:
        held = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return ""
    for table, family in (("tcp", AF_INET), ("tcp6", AF_INET6)):
        try:
            with open(f"/proc/{pid}/net/{table}") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _ESTABLISHED and f"socket:[{fields[9]}]" in held:
                return _address(fields[1].partition(":")[0], family)
    return ""


def _address(words: str, family: int) -> str:
    """The kernel prints addresses as 32-bit words of the machine (tcp_ipv4.c, get_tcp4_sock)."""
    import sys

    raw = b"".join(
        int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8)
    )
    if family == AF_INET6 and raw.startswith(b"\0" * 10 + b"\xff\xff"):
        return inet_ntop(AF_INET, raw[12:])
    return inet_ntop(family, raw)


def same_address(one: str, other: str) -> bool:
    """Say whether two texts are the same address, however each is written."""
    return bool(_packed(one) == _packed(other))


def _packed(address: str) -> Any:
    text = address.partition("%")[0].partition("/")[0].strip("[]")
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        return text


def confirm(
    system: System,
    paths: Paths,
    request: dict[str, Any],
    trace_connection: Callable[[], Connection] = trace,
) -> dict[str, Any]:
    """Carry out the op ``confirm``: {"state": "COMMITTED"}, or APPLIED and who is waited for.

    ``trace_connection`` finds the connection this process came in by; only a test in this very
    process can put another in its place. Raises Refused.
    """
    crash.point("confirm.begin")
    name = files.valid_name(request.get("transaction"))
    try:
        with Lock(f"{paths.run}/lock").take(5.0, doing="confirm"):
            transaction = _find(paths, name)
            address = _check(transaction, system, request, trace_connection)
            _check_probes(transaction, system)
            crash.point("confirm.checked")
            return _decide(transaction, system, address)
    except Held as held:
        raise locked_by(held, system) from None
    except FileNotFoundError as error:
        raise Refused("refused", f"there is no transaction {name} here: {error.strerror}") from None


def _find(paths: Paths, name: str) -> Transaction:
    try:
        return Transaction(paths, name)
    except FileNotFoundError:
        raise Refused("refused", f"there is no transaction {name} on this host") from None


def _check(
    transaction: Transaction,
    system: System,
    request: dict[str, Any],
    trace_connection: Callable[[], Connection],
) -> str:
    """Return the declared address that is confirmed; raise Refused where anything is not as it
    must be. The nonce comes first: without it nothing is told."""
    facts = transaction.facts
    given = files.sha256(str(request.get("nonce", "")))
    if not hmac.compare_digest(given, str(facts.get("nonce_hash", ""))):
        raise Refused("refused", "the nonce is not the one this transaction was armed with")
    if request.get("plan_digest") != facts.get("plan_digest"):
        raise Refused("refused", "the plan digest is not the one that was armed")
    if transaction.rebooted(system):
        raise Refused("refused", "the host has rebooted since it was armed")
    if transaction.terminal or transaction.verdict():
        state = transaction.state if transaction.terminal else transaction.verdict()
        raise Refused("refused", f"transaction {transaction.name} is {state} already")
    if transaction.journal.state != APPLIED:
        state = transaction.state
        raise Refused("refused", f"transaction {transaction.name} is {state}, not APPLIED")
    if system.boottime() >= float(facts["deadline"]):
        raise Refused("refused", "the deadline has passed")
    connection = trace_connection()
    if connection.began < float(facts["applied_at"]):
        early = float(facts["applied_at"]) - connection.began
        raise Refused(
            "refused", f"this connection began {early:.2f} s before APPLIED: it proves nothing"
        )
    return _declared(transaction, connection.address, request.get("address"))


def _declared(transaction: Transaction, arrived: str, asked: Any) -> str:
    if asked and not same_address(str(asked), arrived):
        raise Refused("refused", f"this connection arrived at {arrived}, not at {asked}")
    declared = transaction.facts.get("addresses") or [arrived]
    for address in declared:
        if same_address(address, arrived):
            if address in transaction.confirmed and transaction.waiting():
                raise Refused("refused", f"{address} has confirmed already")
            return str(address)
    raise Refused(
        "refused", f"{arrived} is none of the declared management addresses: {', '.join(declared)}"
    )


def _check_probes(transaction: Transaction, system: System) -> None:
    from fleet.host.kernel.observation import Observation
    from fleet.host.transactions import probe

    probes = transaction.facts.get("probes") or []
    failed = probe.failures(probes, Observation(system), system) if probes else []
    if failed:
        names = ", ".join(each["resource"] for each in failed)
        raise Refused("refused", f"what worked before no longer does: {names}", failed)


def _decide(transaction: Transaction, system: System, address: str) -> dict[str, Any]:
    """Record an address; with the last one, win or lose against the deadline."""
    with Lock(f"{transaction.live}/settling").take(10.0):
        transaction.read()
        if transaction.journal.state != APPLIED or transaction.verdict():
            raise Refused("refused", f"transaction {transaction.name} is {transaction.state}")
        if system.boottime() >= float(transaction.facts["deadline"]):
            raise Refused("refused", "the deadline has passed")
        transaction.journal.append(APPLIED, address=address)
        transaction.read()
        waiting = transaction.waiting()
        if waiting:
            return {"state": APPLIED, "waiting": waiting, "confirmed": transaction.confirmed}
        if transaction.decide(CONFIRMED) != CONFIRMED:
            raise Refused("refused", "the deadline passed first: the host is being put back")
        crash.point("confirm.decided")
        transaction.journal.append(CONFIRMED, address=address)
    outcome = settle(transaction, system)
    return {"state": outcome["state"], "confirmed": transaction.confirmed}


def revert(system: System, paths: Paths, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out the op ``revert``; raises Refused once the transaction has been confirmed."""
    name = files.valid_name(request.get("transaction"))
    transaction = _find(paths, name)
    if transaction.terminal:
        if transaction.state == "REVERTED":
            return {"state": "REVERTED"}
        if transaction.state != "REVERT_FAILED":
            raise Refused("refused", f"transaction {name} is {transaction.state} already")
    elif transaction.journal.state in (CONFIRMED, PERSISTING) or (
        transaction.armed_once
        and not transaction.rebooted(system)
        and transaction.decide(REVERTING) == CONFIRMED
    ):
        raise Refused("refused", f"transaction {name} is confirmed: plan the way back instead")
    outcome = settle_as_armed(transaction, system, "asked for by the operator", again=True)
    if outcome["state"] == "REVERT_FAILED":
        left = [
            {
                "resource": "host",
                "what": "revert",
                "expected": "as before the transaction",
                "actual": str(each),
                "remedy": "",
            }
            for each in outcome.get("remaining") or ()
        ]
        raise Refused("revert-failed", "the host is not as before", left)
    return {"state": outcome["state"]}
