"""One faulted run on a fresh host, and what came of it."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import oracle
from .actions import TERMINAL, Striker, end_of, journal_states
from .places import Fault
from .scenarios import SCENARIOS, Scenario
from .world import OWN, Helper, HelperFailed, Keys, World, now, world

NONCE = "the controller's"
#: Seconds after the deadline by which a new login must work.
GRACE = 10.0
#: Pings between guests are this far apart, and so many may be lost.
PING, LOST = 0.05, 6


@dataclass
class Result:
    """What came of one run; the four lists are what must be empty."""

    fault: dict[str, Any]
    point: str
    reached: bool = False
    outcome: str = ""
    seconds: float = 0.0
    lockouts: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lockouts or self.halves or self.ports or self.foreign)


class References:
    """What each scenario is when committed, from a run without a fault, made once."""

    def __init__(self, keys_: Keys) -> None:
        self.keys = keys_
        self._found: dict[str, dict[str, Any]] = {}
        self._locks = {name: threading.Lock() for name in SCENARIOS}

    def committed(self, scenario: Scenario) -> dict[str, Any]:
        """Return the picture of a host after a commit nobody disturbed."""
        with self._locks[scenario.name]:
            if scenario.name not in self._found:
                with world(self.keys) as made:
                    scenario.begin(made)
                    run = Run(made, Fault(scenario.name, "none", "none"), {}, deadline=8.0)
                    run.transact()
                    outcome = made.outcome()
                    assert outcome.get("state") == "COMMITTED", (scenario.name, outcome, run.notes)
                    self._found[scenario.name] = oracle.picture(made)
            return self._found[scenario.name]


class Pings:
    """One guest pings another while a run lasts."""

    def __init__(self, world_: World) -> None:
        self._process = subprocess.Popen(
            [
                "nsenter",
                "-t",
                str(world_.router),
                "-n",
                "ping",
                "-q",
                "-i",
                str(PING),
                "198.18.9.2",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def lost(self) -> int:
        """End it and return how many pings had no answer."""
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=10)
        sent, received = re.findall(r"(\d+) packets transmitted, (\d+)", text)[0]
        return int(sent) - int(received)


class Run:
    """The controller's side of one transaction under a fault."""

    def __init__(
        self, world_: World, fault: Fault, reference: dict[str, Any], deadline: float = 0.0
    ) -> None:
        self.world, self.fault, self.reference = world_, fault, reference
        self.scenario = SCENARIOS[fault.scenario]
        self.seconds = deadline or self.scenario.deadline
        self.notes: list[str] = []
        self.committed_here = False
        self.striker: Striker | None = None
        self.tracer: subprocess.Popen[str] | None = None
        self.traced = False
        self.armed_at = 0.0
        self.unit = True

    # The transaction

    def request(self) -> dict[str, Any]:
        """Return what every helper of this run is started with."""
        return {"places": [self.fault.place]} if self.striker else {}

    def transact(self) -> None:
        """Plan, arm, apply and confirm, as far as it goes."""
        main = self.world.helper(**self.request())
        if self.striker:
            self.striker.main = main
        try:
            if "#" in self.fault.place:
                self._trace(main)
            self._arm_and_apply(main)
        except (HelperFailed, EOFError) as error:
            self.notes.append(f"{type(error).__name__}: {error}")
        dead = self.striker is not None and self.striker.dead
        # After an nftables ruleset that locks out it is tried, and must not be possible.
        if not dead and (self.fault.confirms or self.fault.scenario.startswith("nft")):
            self._confirm()

    def _arm_and_apply(self, main: Helper) -> None:
        self._here("plan.before")
        digest = main.call("plan", at=self._here, state=self.scenario.state)["plan"]["digest"]
        self.digest = str(digest)
        self._here("plan.after")
        self.armed_at = now()
        main.call(
            "arm",
            at=self._here,
            transaction="tx1",
            plan_digest=digest,
            deadline=self.seconds,
            allow=list(self.scenario.allow),
            nonce_hash=hashlib.sha256(NONCE.encode()).hexdigest(),
            owner="ops@desk",
        )
        main.call("apply", timeout=self.seconds + 1.5, at=self._here, transaction="tx1")

    def _here(self, place: str) -> None:
        if self.striker and self.fault.place == place and not self.striker.reached:
            self.striker.reached = True
            self.striker.strike(0)
            if self.striker.dead:
                raise EOFError("the controller was killed")

    def _trace(self, main: Helper) -> None:
        """Have strace strike at a system call of the helper, and of all that it starts."""
        call, _, when = self.fault.place.partition("#")
        how = f"error={self.fault.action}" if self.fault.action != "KILL" else "signal=KILL"
        self.trace = self.world.folder / "strace"
        self.traced = True
        self.tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", str(self.trace), "-p", str(main.pid),
             "-e", f"trace={call}", "-e", f"inject={call}:{how}:when={when}"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + 5
        while time.monotonic() < end:
            status = Path(f"/proc/{main.pid}/status").read_text()
            if "TracerPid:\t0\n" not in status:
                return
            time.sleep(0.005)
        raise AssertionError("strace does not trace")

    def detach(self) -> None:
        """End strace: under it each system call takes many times as long, and a revert too long."""
        tracer, self.tracer = self.tracer, None
        if tracer is None:
            return
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)

    def _confirm(self) -> None:
        """Dial anew until the host is APPLIED or it is too late; whoever cannot dial does not."""
        end = self.armed_at + self.seconds + 1.0
        while now() < end and not end_of(self.world):
            if "APPLIED" in journal_states(self.world, "tx1"):
                break
            if not self.world.sealed("run/fleet/tx1/lease"):
                return
            time.sleep(0.03)
        else:
            return
        try:
            self._dial_and_confirm()
        except (HelperFailed, EOFError) as error:
            self.notes.append(f"confirm: {type(error).__name__}: {error}")

    def _dial_and_confirm(self) -> None:
        self._here("connect.before")
        for _ in range(3):
            began = now()
            if self.world.reachable(self.scenario.after):
                break
        else:
            self.notes.append("unreachable: not confirmed")
            return
        helper = self.world.helper(connection=[began, self.scenario.after], **self.request())
        if self.striker:
            self.striker.main = helper
        self._here("connect.after")
        answer = helper.call(
            "confirm",
            timeout=4.0,
            at=self._here,
            transaction="tx1",
            plan_digest=self.digest,
            nonce=NONCE,
            address=self.scenario.after,
        )
        self.committed_here = answer["state"] == "COMMITTED"

    # Afterwards

    def settle(self) -> float:
        """Wait for the end; play the unit where every watchdog is dead. Return the deadline."""
        striker, world_ = self.striker, self.world
        began, asked, lease = now(), False, self.lease()
        deadline = float(lease.get("deadline") or began)
        while not end_of(world_) and now() < deadline + GRACE:
            # A helper that was stopped before it armed does so when it wakes up.
            lease = self.lease()
            deadline = float(lease.get("deadline") or began)
            late = now() > deadline + 1.0
            if late:
                self.detach()
            if late and striker and striker.stopped:
                striker.go_on()
            # What systemd runs a second behind the watchdogs, and what the next operator's
            # command does where nothing was armed.
            if not asked and self.unit and (late or not lease) and not world_.watchdogs():
                asked = True
                self._recover(bool(lease))
            begun = lease or journal_states(world_, "tx1") or self.fault.action.startswith("stop")
            if not begun and (asked or not self.unit):
                break  # nothing ever will be
            time.sleep(0.03)
        if striker:
            striker.go_on()
            if striker.filled:
                world_.sh("rm -f " + " ".join(striker.filled))
        if self.unit and not end_of(world_):
            self._recover(True)
        return deadline

    def lease(self) -> dict[str, Any]:
        return self.world.sealed("run/fleet/tx1/lease")

    def _recover(self, by_unit: bool) -> None:
        request: dict[str, Any] = {"unit": ["recover"]} if by_unit else {}
        helper = self.world.helper(**request)
        with suppress(HelperFailed, EOFError):
            helper.call("recover") if not by_unit else helper.call("status")
        helper.close()


def run(keys_: Keys, references: References, fault: Fault, unit: bool = True) -> Result:
    """Carry out one faulted run; raises only where the harness itself is at fault.

    ``unit`` says that the host has systemd's timer, which the harness plays.
    """
    began = time.monotonic()
    result = Result(asdict(fault), fault.point)
    scenario = SCENARIOS[fault.scenario]
    hopeless = scenario.fails or scenario.refused or scenario.name.startswith("nft")
    reference = {} if hopeless else references.committed(scenario)
    with world(keys_) as made:
        scenario.begin(made)
        before = oracle.picture(made)
        pings = Pings(made) if scenario.pings else None
        each = Run(made, fault, reference)
        each.striker, each.unit = Striker(made, fault), unit
        try:
            each.transact()
            deadline = each.settle()
        finally:
            each.striker.close()
            each.detach()
        judge(result, each, before, deadline, pings)
    result.seconds = round(time.monotonic() - began, 2)
    return result


def judge(
    result: Result, each: Run, before: dict[str, Any], deadline: float, pings: Pings | None
) -> None:
    """Say what went wrong, by oracles that are not fleet's."""
    made, striker = each.world, each.striker
    assert striker is not None
    result.notes += [*each.notes, *striker.problems]
    result.reached = striker.reached
    if each.traced:
        text = each.trace.read_text() if each.trace.exists() else ""
        result.reached = "INJECTED" in text or "killed by SIGKILL" in text
    outcome = made.outcome()
    result.outcome = end_of(made) or "none"
    committed = result.outcome == "COMMITTED"
    if striker.unblock is not None:
        striker.unblock()
    address = each.scenario.after if committed else OWN
    while not (login := made.login(address)) and now() < deadline + GRACE:
        time.sleep(0.1)
    if not login:
        result.lockouts.append(f"no login at {address} by deadline + {GRACE:g} s")
    result.foreign += striker.lost()
    if committed:
        result.foreign += each.scenario.unmet(made)
    if each.scenario.refused and result.outcome not in ("none", "ABANDONED"):
        result.halves.append(f"{result.outcome}, where it had to be refused")
    if result.outcome not in (*TERMINAL, "none") or result.outcome == "REVERT_FAILED":
        result.halves.append(f"outcome {result.outcome}: {outcome.get('remaining')}")
    if result.outcome == "none" and journal_states(made, "tx1"):
        result.halves.append(f"the journal is not terminal: {journal_states(made, 'tx1')[-3:]}")
    if each.committed_here and not committed:
        result.halves.append("the controller was told COMMITTED, the host is not")
    if striker.problems:
        result.halves += striker.problems
    expected = each.reference if committed else before
    differences = oracle.compare(expected, oracle.picture(made))
    for _ in range(6):
        if not differences:
            break
        time.sleep(0.4)  # a carrier is told of once a second
        differences = oracle.compare(expected, oracle.picture(made))
    # A switch that was killed has lost every flow, as it does wherever it dies.
    if each.fault.action == "kill-vswitchd":
        differences = [line for line in differences if not line.startswith("flows:")]
    foreign = [line for line in differences if "foreign" in line or "30100" in line]
    result.foreign += foreign
    result.halves += [line for line in differences if line not in foreign]
    if each.scenario.ports:
        gone = set(each.scenario.ports) - oracle.ports_of(made, each.scenario.bridge)
        result.ports += [f"{port} left {each.scenario.bridge}" for port in sorted(gone)]
    # A bridge that somebody sets down forwards nothing until the host has gone back, and the
    # router, which is one of the two guests, says nothing while all packets on it are dropped.
    bound = float("inf") if each.fault.action in ("hand-down", "block-all") else LOST
    if pings is not None and (lost := pings.lost()) > bound:
        result.ports.append(f"{lost} pings between guests were lost")
