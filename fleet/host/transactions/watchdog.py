"""The dead-man: detached processes that put the host back unless the transaction is confirmed.

Each has its code, the snapshot and the undo record in memory before it says that it is armed. It
leaves the helper's session, process group and cgroup, has no open file but two pipes, ignores
every signal it can, and is the last thing the kernel would kill for memory. Two are started, for
one alone could be killed by hand; whoever comes second finds the transaction settled.
"""

from __future__ import annotations

import os
import select
import signal
import time

from fleet.host import wire
from fleet.host.transactions import fence, files
from fleet.host.transactions.recover import settle
from fleet.host.transactions.rehearsal import rehearse
from fleet.host.transactions.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: Seconds between looks at the verdict; the deadline itself is met exactly.
POLL = 0.25
COUNT = 2
#: What a helper tells a watchdog over the pipe.
APPLIED, ABANDON, REVERT = b"A", b"X", b"R"

EXPIRED = "the deadline passed without a confirmation"
DIED = "the helper died"


class Watchdogs:
    """The running watchdogs of one transaction and the pipes to them, as the helper holds them."""

    def __init__(self) -> None:
        self.identities: list[list[int]] = []
        self._pipes: list[int] = []

    def start(
        self, transaction: Transaction, system: System, deadline: float, memory: dict[str, Any]
    ) -> None:
        """Start the watchdogs and wait until each has said which deadline it holds.

        Raises OSError or RuntimeError where one does not; none is left running then.
        """
        try:
            for _ in range(COUNT):
                self._start_one(transaction, system, deadline, memory)
        except BaseException:
            self.tell(ABANDON)
            self.close()
            raise

    def _start_one(
        self, transaction: Transaction, system: System, deadline: float, memory: dict[str, Any]
    ) -> None:
        order_read, order_write = os.pipe()
        answer_read, answer_write = os.pipe()
        child = os.fork()
        if child == 0:
            _detach(transaction, system, deadline, memory, order_read, answer_write)
        os.close(order_read)
        os.close(answer_write)
        self._pipes.append(order_write)
        os.waitpid(child, 0)
        try:
            self._acknowledge(answer_read, system, deadline)
        finally:
            os.close(answer_read)

    def _acknowledge(self, answer: int, system: System, deadline: float) -> None:
        ready, _, _ = select.select([answer], [], [], 5.0)
        text = os.read(answer, 4096).decode("ascii") if ready else ""
        if not text:
            raise RuntimeError("the watchdog did not answer")
        said = wire.loads(text)
        if said.get("deadline") != deadline or said.get("boot_id") != system.boot_id():
            raise RuntimeError(f"the watchdog holds {said}, not the deadline {deadline}")
        if not fence.alive(said["identity"]):
            raise RuntimeError("the watchdog is gone")
        self.identities.append(said["identity"])

    def tell(self, order: bytes, text: str = "") -> None:
        """Give every watchdog an order; one that is gone has none to follow."""
        for pipe in self._pipes:
            try:
                os.write(pipe, order + text.encode("ascii"))
            except (BrokenPipeError, BlockingIOError):
                pass

    def close(self) -> None:
        """Close this process's ends of the pipes."""
        while self._pipes:
            os.close(self._pipes.pop())


def _detach(
    transaction: Transaction,
    system: System,
    deadline: float,
    memory: dict[str, Any],
    order: int,
    answer: int,
) -> None:
    """In the first child: leave everything behind, fork again, and watch. Never returns."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _prepare_process(transaction, order, answer)
        system = type(system)(system.namespace, system.root)  # with sockets of its own
        rehearse(system, memory["snapshot"])
        said = {
            "deadline": deadline,
            "boot_id": system.boot_id(),
            "identity": fence.identity(os.getpid()),
        }
        os.write(answer, wire.dumps(said).encode("ascii"))
        os.close(answer)
        watch(transaction, system, deadline, memory, order)
        status = 0
    except BaseException as error:
        _note(transaction, f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _prepare_process(transaction: Transaction, order: int, answer: int) -> None:
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass  # the C library keeps a few numbers for itself
    os.chdir("/")
    fence.enter(f"watchdog-{transaction.facts.get('lease', transaction.name)}")
    for path, text in (("/proc/self/oom_score_adj", "-1000"), ("/proc/self/comm", "fleet-deadman")):
        try:
            fence.write(path, text)
        except OSError:
            pass  # a container may forbid it; the second watchdog and the unit remain
    _close_all_but({order, answer, transaction.journal.descriptor})
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in (order, answer):
            os.dup2(null, standard)


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor that read the listing


def _note(transaction: Transaction, text: str) -> None:
    try:
        files.replace(f"{transaction.live}/watchdog-{os.getpid()}", text.encode(), sync=False)
    except OSError:
        pass


def watch(
    transaction: Transaction, system: System, deadline: float, memory: dict[str, Any], order: int
) -> None:
    """Wait for the verdict, the deadline, the helper's word or its death; then settle."""
    told = wait(transaction, system, deadline, order)
    if told is None:
        return
    reason, problems = told
    for attempt in range(5):
        try:
            settle(transaction, system, reason, problems, memory)
            return
        except Exception as error:
            # The last line of defence does not fall for an error nobody thought of.
            _note(transaction, f"attempt {attempt}: {type(error).__name__}: {error}")
            time.sleep(0.5 * (attempt + 1))


def wait(
    transaction: Transaction, system: System, deadline: float, order: int
) -> tuple[str, list[Any]] | None:
    """Return why the transaction has to be settled now and the problems that led there, or None
    where nothing is left to do."""
    applied, open_ = False, True
    while True:
        verdict = transaction.verdict()
        if verdict:
            return "", []
        left = deadline - system.boottime()
        if left <= 0:
            return EXPIRED, []
        pipes = [order] if open_ else []
        ready, _, _ = select.select(pipes, [], [], min(left, POLL))
        if not ready:
            continue
        word = os.read(order, 4096)
        if word.startswith(ABANDON):
            return None
        if word.startswith(REVERT):
            return _told(word[1:])
        if word.startswith(APPLIED):
            applied = True
        if not word:
            open_ = False
            if not applied:
                return DIED, []


def _told(text: bytes) -> tuple[str, list[Any]]:
    try:
        words = wire.loads(text.decode("ascii"))
        return str(words["reason"]), list(words["problems"])
    except (ValueError, KeyError, TypeError):
        return "the helper asked for it", []
