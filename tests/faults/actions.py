"""What is done to a transaction at a place. Processes wait at the place until it has been done."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import oracle
from .places import TAKES, Fault
from .scenarios import SCENARIOS
from .world import OPEN_VSWITCH, Helper, HelperFailed, World

if TYPE_CHECKING:
    from collections.abc import Callable

TERMINAL = ("COMMITTED", "REVERTED", "REVERT_FAILED", "ABANDONED")

#: Where the helper has not observed the host yet, or may not have.
UNPLANNED = ("plan.before", "message.plan.before", "message.plan.half", "message.plan.sent")


class Striker:
    """Waits at a place for the first process that comes there, and strikes once."""

    def __init__(self, world: World, fault: Fault) -> None:
        self.world, self.fault = world, fault
        self.dice = random.Random(fault.seed)
        self.reached = False
        #: The controller was killed: it asks and confirms nothing more.
        self.dead = False
        self.stopped: list[int] = []
        self.filled: list[str] = []
        self.unblock: Callable[[], None] | None = None
        #: Hand changes: what to look for afterwards, and how to take it away again.
        self.theirs: list[tuple[str, str, str]] = []
        self.problems: list[str] = []
        #: What starts a killed daemon again.
        self.daemon: threading.Timer | None = None
        self.main: Helper | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"/proc/{world.pid}/root/run/faults")
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self.daemon is not None:
            self.daemon.join(10)
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid = struct.unpack("=iII", credentials)[0]
                connection.recv(200)
                answer = "go"
                if not self.reached:
                    self.reached = True
                    try:
                        answer = self.strike(pid) or "go"
                    except Exception as error:
                        self.problems.append(f"the harness: {type(error).__name__}: {error}")
                with suppress(OSError):
                    connection.sendall(answer.encode())

    def strike(self, pid: int) -> str | None:
        """Do the action; ``pid`` is the process that waits at the place."""
        action = self.fault.action
        if action in errno.errorcode.values():
            return f"raise {getattr(errno, action)}"
        kind, _, rest = action.partition("-")
        pid = pid or (self.main.pid if self.main else 0)
        if kind == "kill":
            self._kill(pid, rest)
        elif kind == "stop":
            self._stop([pid] if not rest else self._dogs(rest))
        elif kind == "clock":
            days = {"back": -400, "forward": 400}[rest]
            (self.world.root / "run/faults-clock").write_text(str(days * 86400))
        elif kind == "hand":
            self.hand(rest)
        else:
            getattr(self, f"_{action.replace('-', '_')}")()
        return None

    def _dogs(self, word: str) -> list[int]:
        dogs = self.world.watchdogs()
        return dogs if word.endswith("watchdogs") else dogs[:1]

    def _kill(self, pid: int, word: str) -> None:
        if word in OPEN_VSWITCH:
            self._kill_daemon(word)
            return
        if word == "":
            chosen = [pid]
        elif word == "helper-and-watchdog":
            chosen = [pid, *self._dogs("watchdog")]
        elif word == "controller":
            self._vanish()
            chosen = []
        elif word.startswith("controller-and-"):
            self._vanish()
            rest = word.removeprefix("controller-and-")
            chosen = [pid] if rest == "helper" else self._dogs(rest)
        elif word == "everything":
            chosen = [pid, *self._dogs("watchdogs"), *([self.main.pid] if self.main else [])]
        else:
            chosen = self._dogs(word)
        for each in chosen:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)

    def _kill_daemon(self, name: str) -> None:
        """Kill a part of Open vSwitch; PID 1 starts it again after half a second."""
        self.world.kill_daemon(name)
        self.daemon = threading.Timer(0.5, self.world.start_daemon, [name])
        self.daemon.start()

    def _stop(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.stopped.append(pid)

    def go_on(self) -> None:
        """Wake what was stopped, where it still lives."""
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                if str(self.world.pid) and pid in self.world.processes().values():
                    os.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    def _cut(self) -> None:
        if self.main is not None:
            self.main.cut()

    def _vanish(self) -> None:
        """What a killed controller is to the host: every pipe of its session is closed."""
        self.dead = True
        if self.main is not None:
            self.main.vanish()

    def _half_open(self) -> None:
        """The controller's machine loses its power: nothing is said any more, nothing closed."""
        self.dead = True
        if self.main is not None:
            self.main.silent = True

    def _twice(self) -> None:
        """The network, or somebody with the channel, says the last message once more."""
        if self.main is not None and self.main.last:
            with suppress(EOFError):
                self.main.write(self.main.last)

    def _block_new(self) -> None:
        self._block("ct state new tcp dport 22 drop")

    def _block_all(self) -> None:
        self._block("drop")

    def _block(self, rule: str) -> None:
        """Between host and controller, so that it is no change of the host."""
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}; "
            for hook in ("forward", "output", "input")
        )
        self.world.enter(self.world.router, "nft", f"table ip block {{ {chains} }}")

        def unblock() -> None:
            self.world.enter(self.world.router, "nft", "delete table ip block")

        self.unblock = unblock

    def _second_controller_other(self) -> None:
        self._second_controller(SCENARIOS["mtu"].state)

    def _second_controller(self, state: Any = None) -> None:
        """Somebody else rolls out the same, or another, state now: never two at a time."""
        other = self.world.helper()
        state = state or SCENARIOS[self.fault.scenario].state
        try:
            digest = other.call("plan", state=state)["plan"]["digest"]
            # A short deadline: where it is let in, it goes back by itself.
            answer = other.call(
                "arm",
                transaction="tx2",
                plan_digest=digest,
                nonce_hash="0" * 64,
                deadline=0.5,
                owner="second@desk",
                allow=["foreign", "drain"],
            )
        except (HelperFailed, EOFError):
            pass
        else:
            if not self.fault.place.startswith(("prepare.begin", "journal.ABANDONED")) and (
                not end_of(self.world) and self.world.sealed("run/fleet/tx1/lease")
            ):
                self.problems.append(f"a second transaction was armed beside the first: {answer}")
        finally:
            other.close()

    def _fill(self) -> None:
        for folder in ("/var/lib", "/run"):
            self.world.sh(f"dd if=/dev/zero of={folder}/fill bs=64k", check=False)
            self.filled.append(f"{folder}/fill")

    def _journal(self) -> Any:
        path = self.world.root / "var/lib/fleet/journal/tx1/log"
        return path if path.exists() else None

    def _cut_journal(self) -> None:
        """Cut it anywhere after its first record: a power cut could not tear what was synced."""
        path = self._journal()
        if path is not None:
            data = path.read_bytes()
            end = len(data.rstrip(b"\0"))
            keep = self.dice.randint(0, end)
            with open(path, "r+b") as file:
                file.seek(keep)
                file.write(bytes(end - keep))

    def _flip_journal(self) -> None:
        path = self._journal()
        if path is not None:
            self._flip(path)

    def _flip_snapshot(self) -> None:
        path = self.world.root / "var/lib/fleet/journal/tx1/snapshot"
        if path.exists():
            self._flip(path)

    def _flip(self, path: Any) -> None:
        data = path.read_bytes().rstrip(b"\0")
        if not data:
            return
        at = self.dice.randrange(len(data))
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ (1 << self.dice.randrange(8))]))

    def _forge_confirm(self) -> None:
        forger = self.world.helper(connection=[1e15, SCENARIOS[self.fault.scenario].after])
        digest = self.world.sealed("run/fleet/tx1/lease").get("plan_digest", "")
        try:
            forger.call("confirm", transaction="tx1", plan_digest=digest, nonce="guessed")
        except (HelperFailed, EOFError):
            pass
        else:
            self.problems.append("a forged confirm was taken")
        finally:
            forger.close()

    def _revert(self) -> None:
        """An operator asks for the way back at this very moment; whoever waits here must go on."""

        def ask() -> None:
            helper = self.world.helper()
            with suppress(HelperFailed, EOFError, AssertionError):
                helper.call("revert", transaction="tx1")
            helper.close()

        threading.Thread(target=ask, daemon=True).start()

    def hand(self, what: str) -> None:
        """Somebody changes this host by hand; it must be there afterwards."""
        scenario = SCENARIOS[self.fault.scenario]
        device, beside = scenario.touched, scenario.beside
        made = {
            "rule": ("ip rule add from 198.18.77.0/24 lookup 77 priority 30150",
                     "ip rule", "198.18.77.0/24",
                     "ip rule del from 198.18.77.0/24 lookup 77 priority 30150"),
            "route": (f"ip route add 198.18.78.0/24 dev {device} table 78",
                      "ip route show table 78", "198.18.78.0/24",
                      "ip route flush table 78"),
            "address": (f"ip address add {oracle.LEFT}/32 dev {device}",
                        # It stays: were it the device's last, the kernel would take the device's
                        # routes in every table along (net/ipv4/fib_frontend.c, fib_disable_ip).
                        "ip -o address", f"{oracle.LEFT}/32", ""),
            "neighbour": (f"ip neigh add 198.18.0.99 lladdr 02:00:00:00:09:09 dev {device} "
                          "nud permanent", "ip neigh show nud permanent", "198.18.0.99 ",
                          "ip neigh flush nud permanent to 198.18.0.99"),
            "sysctl": (f"sysctl -qw net.ipv4.conf.{beside}.arp_ignore=2",
                       f"sysctl net.ipv4.conf.{beside}.arp_ignore", "= 2",
                       f"sysctl -qw net.ipv4.conf.{beside}.arp_ignore=0"),
            "alias": (f"ip link set {beside} alias by-hand",
                      f"ip link show {beside}", "alias by-hand",
                      f"ip link set {beside} alias ''"),
            # What was there before: a revert puts it back, whoever took it away.
            "down": (f"ip link set {device} down", "", "", ""),
            "take": (f"ip address flush dev {device} scope global", "", "", ""),
            "same": (f"ip link set {device} mtu 1450", "", "", ""),
        }[what]  # fmt: skip
        script, look, word, away = made
        if not self.world.sh(f"ip link show {device}", check=False):
            return  # the plan has taken the device away by now
        self.world.sh(script, check=what not in TAKES)
        # Intent names a device's addresses: one that the plan shows as going may go.
        shown = self.fault.place in UNPLANNED and what in scenario.exclusive
        if look:
            # With no word to look for, it may be there or not.
            self.theirs.append((look, "" if shown else word, away))

    def lost(self) -> list[str]:
        """Return the hand changes that are gone, and take the rest away again."""
        found = []
        for look, word, away in self.theirs:
            if word not in self.world.sh(look, check=False):
                found.append(f"{word.strip()} of {look!r} is gone")
            if away:
                self.world.sh(away, check=False)
        return found


def journal_states(world: World, transaction: str) -> list[str]:
    """Return the states of a journal's records in order, read without fleet."""
    try:
        data = (world.root / f"var/lib/fleet/journal/{transaction}/log").read_bytes()
    except OSError:
        return []
    states, offset = [], len(b"fleet-journal-1\n")
    while True:
        length = int.from_bytes(data[offset : offset + 4], "big")
        if not 0 < length < 1 << 20:
            return states
        record = data[offset + 68 : offset + 68 + length]
        try:
            states.append(str(json.loads(record)["state"]))
        except ValueError:
            return states
        offset += 68 + length


def end_of(world: World, transaction: str = "tx1") -> str:
    """Return the state in which a transaction has ended, empty where it has not: beside the
    journal, or in it where whoever ended it died at once."""
    state = str(world.outcome(transaction).get("state", ""))
    last = journal_states(world, transaction)[-1:]
    return state or next((each for each in last if each in TERMINAL), "")
