"""One host's part in a run: its state, plan, session, transaction and outcome.

Nornir would put what a task is given into its results and its log; states may hold secrets.
So a Part lies where Nornir keeps connections, ``task.host.connections["fleet"]``, and tasks find
it with ``part_of(task)``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleet.errors import FleetError, HostUnreachable
from fleet.host import wire
from fleet.host.change import Plan, Problem
from fleet.host.planning.digest import sha256
from fleet.report.text import clean
from fleet.rollout import outcome as words
from fleet.rollout.events import Event, HostEnded, HostPhase
from fleet.rollout.options import RolloutOptions
from fleet.rollout.outcome import HostOutcome
from fleet.rollout.trouble import Ended, quietly, root

if TYPE_CHECKING:
    from nornir.core.inventory import Host
    from nornir.core.task import Task

    from fleet.nornir import Tasks
    from fleet.record.writer import HostEnd, Record
    from fleet.rollout.dial import Dial, Session
    from fleet.rollout.nonce import Nonces

KEY = "fleet"
#: How far a host has come; each includes the ones before it.
STAGES = ("idle", "planned", "arming", "armed", "applying", "applied", "confirming", "committed")


@dataclass(frozen=True)
class Target:
    """What a host should become: the state as it goes over the wire, and its digest.

    ``back`` names the transaction that is to be taken back from the host's own snapshot; the
    state then says the same in the intent's words, and is gone to where the host cannot do that.
    """

    state: Mapping[str, Any]
    back: str = ""

    @property
    def digest(self) -> str:
        """The digest that names this state in records and plan files."""
        return sha256(wire.dumps(dict(self.state)))


@dataclass
class Shared:
    """What all parts of a run have in common."""

    dial: Dial
    nonces: Nonces
    tasks: Tasks
    emit: Callable[[Event], None]
    owner: str
    run: str = ""
    transaction: str = ""
    options: RolloutOptions = field(default_factory=RolloutOptions)
    record: Record | None = None
    #: Why no further host is begun; empty while the run goes on.
    stopping: str = ""
    ended: Callable[[HostOutcome], None] | None = None


@dataclass
class Timing:
    """One phase of a host: seconds since the part began, and how long it took."""

    name: str
    began: float
    took: float


class Part:
    """One host's part in a run. Steps in ``fleet.rollout.steps`` move it on."""

    def __init__(self, host: Host, shared: Shared, target: Target | None = None) -> None:
        self.host, self.shared, self.target = host, shared, target
        self.settings: dict[str, Any] = _settings(host)
        self.reviewed: Plan | None = None
        self.reviewed_state = ""
        self.plan: Plan | None = None
        self.pending: Mapping[str, Any] | None = None
        self.stage = "idle"
        self.cause: BaseException | None = None
        self.addresses: tuple[str, ...] = ()
        self.deadline = 0.0
        self.wave: int | None = None
        self.outcome: HostOutcome | None = None
        self.timings: list[Timing] = []
        self.reply: dict[str, Any] = {}
        self.began = time.monotonic()
        self._session: Session | None = None
        self._visits = 0
        self._running: asyncio.Task[Any] | None = None
        self._aborted = False

    def close(self) -> None:
        """Nothing: Nornir calls it on what lies among the connections."""

    def place(self) -> None:
        """Lie where the host's tasks look for their part."""
        self.host.connections[KEY] = self  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    @property
    def transaction(self) -> str:
        """The transaction's name, which is the run's, so that one name settles all its hosts."""
        return self.shared.transaction

    @property
    def changing(self) -> bool:
        """Whether there is something to change and nothing has ended the part."""
        return self.outcome is None and self.plan is not None and bool(self.plan.changes)

    @property
    def confirm_timeout(self) -> float:
        """The dead-man's deadline in seconds: the option, else the host's setting, else 120."""
        asked = self.shared.options.confirm_timeout
        return float(asked if asked is not None else self.settings.get("confirm-timeout") or 120)

    @property
    def left(self) -> float:
        """Seconds until the host puts itself back, negative from then on."""
        return self.deadline - time.monotonic()

    def armed(self, seconds: float) -> None:
        """Note that the host is armed, and how long it waits."""
        self.stage, self.deadline = "armed", time.monotonic() + seconds

    def past(self, stage: str) -> bool:
        """Whether the host has come at least as far as a stage."""
        return STAGES.index(self.stage) >= STAGES.index(stage)

    def begin(self) -> None:
        """Note that the host's turn has come; raises Ended where no host is begun any more."""
        self.began = time.monotonic()
        self.go_on()

    def go_on(self) -> None:
        """Raise Ended where the run stops; for places at which nothing was changed yet."""
        if self.shared.stopping:
            raise Ended(words.NOT_STARTED, self.shared.stopping)

    def say(self, phase: str, detail: str = "", done: int = 0, total: int = 0) -> None:
        """Tell whoever shows progress."""
        self.shared.emit(HostPhase(self.name, phase, detail, done, total))

    @asynccontextmanager
    async def phase(self, name: str, timeout: float | None = None) -> AsyncIterator[None]:
        """Time a phase and bound it; what ends it is kept as the part's ``cause``."""
        self.say(name)
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout) as limit:
                yield
        except TimeoutError as error:
            said = f"no answer to {name} within {timeout or 0:.0f} seconds"
            self.cause = HostUnreachable(said) if limit.expired() else error
            raise self.cause from error
        except Exception as error:
            self.cause = error
            raise
        finally:
            took = time.monotonic() - began
            self.timings.append(Timing(name, began - self.began, took))

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Session]:
        """The host's session, connected where it is not; the outermost visit closes it."""
        self._visits += 1
        try:
            self._running = self._running or asyncio.current_task()
            if self._session is None:
                async with self.phase("connect", CONNECT):
                    self._session = await self.shared.dial.main(self.host)
            yield self._session
        except asyncio.CancelledError:
            if self._visits > 1 or not self._aborted:
                raise
            _forgive()
            raise Ended(words.NOT_STARTED, "interrupted") from None
        finally:
            self._visits -= 1
            if not self._visits:
                self._running = None
                await self.drop()

    async def drop(self) -> None:
        """Close the session, if there is one; a connection that is broken is no news."""
        session, self._session = self._session, None
        if session is not None:
            await quietly(session.close())

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Call an operation of the helper over the host's session."""
        async with self.visit() as session:
            # The phase bounds it.
            return await session.call(op, on_event=self._progress, timeout=None, **fields)

    def _progress(self, event: Mapping[str, Any]) -> None:
        number, of = event.get("index"), event.get("of")
        if isinstance(number, int) and isinstance(of, int):
            said = " ".join(str(event.get(key) or "") for key in ("key", "what"))
            self.say("apply", clean(said.strip(), 80), min(number + 1, of), of)

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Whatever happens inside, the host has a true outcome afterwards, and it is recorded.

        The second Ctrl-C cancels the task: a host that may be armed is then left to its own
        dead-man, and its outcome is unknown.
        """
        from fleet.rollout.settle import settle

        self._running = asyncio.current_task()
        self._visits += 1
        try:
            try:
                self.begin()
                yield
            except Exception as error:
                cause = root(error)
                known = isinstance(cause, FleetError) or self.cause is None
                await settle(self, cause if known else self.cause or cause)
            else:
                if self.outcome is None:
                    self.end(words.COMMITTED if self.past("committed") else words.UNCHANGED)
        except asyncio.CancelledError:
            self.end(*_abandoned(self))
            if not self._aborted:
                raise
            # The run itself goes on to say how its hosts are.
            _forgive()
        finally:
            self._running = None
            self._visits -= 1
            await self._keep()
            await self.drop()

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Record whatever outcome the part gets inside."""
        self._visits += 1
        try:
            yield
        finally:
            self._visits -= 1
            await self._keep()
            await self.drop()

    async def conclude(
        self, outcome: str, message: str = "", problems: tuple[Problem, ...] = ()
    ) -> None:
        """Give the part an outcome that needs no host, and record it."""
        self.end(outcome, message, problems)
        await self._keep()

    def abort(self) -> None:
        """Stop at once, wherever the host is."""
        self._aborted = True
        if self._running is not None:
            self._running.cancel()

    def end(self, outcome: str, message: str = "", problems: tuple[Problem, ...] = ()) -> None:
        """Give the part its outcome; only the first counts."""
        if self.outcome is not None:
            return
        begun = outcome != words.NOT_STARTED
        self.outcome = HostOutcome(
            self.name,
            outcome,
            clean(message, 600),
            problems,
            self.wave,
            len(self.plan.changes) if self.plan else 0,
            round(time.monotonic() - self.began, 3) if begun else None,
            self.transaction if self.past("arming") else "",
        )

    async def _keep(self) -> None:
        if self.outcome is None:
            return
        if self.shared.record is not None:
            await self.shared.record.host_ended(self.shared.run, self._entry(self.outcome))
        if self.outcome.outcome in (words.COMMITTED, words.REVERTED):
            self.shared.nonces.forget(self.transaction, self.name)
        self.shared.emit(HostEnded(self.name, self.outcome.outcome, self.outcome.message))
        if self.shared.ended is not None:
            self.shared.ended(self.outcome)

    def _entry(self, end: HostOutcome) -> HostEnd:
        from fleet.record.writer import HostEnd

        phases = tuple((each.name, each.began, each.took) for each in self.timings)
        return HostEnd(
            end.host,
            end.outcome,
            end.message,
            end.problems,
            end.wave,
            end.changes,
            end.seconds,
            phases,
        )


#: Seconds for connecting, logging in and starting the helper, pushing it where it is missing.
CONNECT = 45.0


def _forgive() -> None:
    """Take a cancellation that was the part's own back from its task (asyncio's uncancel)."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _abandoned(part: Part) -> tuple[str, str]:
    if part.past("committed"):
        return words.COMMITTED, ""
    if part.past("applying"):
        return words.UNKNOWN, "interrupted; the host puts itself back at its deadline"
    if part.past("arming"):
        return words.FAILED, "interrupted before anything changed; its lock ends at its deadline"
    return words.NOT_STARTED, "interrupted"


def part_of(task: Task) -> Part:
    """Return the part of the host that a Nornir task runs for; raises FleetError without one."""
    found: Any = task.host.connections.get(KEY)
    if not isinstance(found, Part):
        raise FleetError(f"{task.name} works on a host's part in a run: start it with fleet run")
    return found


def _settings(host: Host) -> dict[str, Any]:
    data = host.data.get(KEY) if isinstance(host.data, Mapping) else None
    return dict(data) if isinstance(data, Mapping) else {}
