"""The record's thread: what it is told is on disk before the caller goes on.

SQLAlchemy is imported in this thread, while the loop waits for hosts. Requests that have come
together are committed together, so that a hundred hosts arming at once cost one fsync or two.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from fleet.errors import FleetError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from fleet.host.change import Plan, Problem
    from fleet.record.reader import PastRun
    from fleet.record.store import Store

T = TypeVar("T")
#: How many requests may share one commit.
TOGETHER = 256


@dataclass(frozen=True)
class RunEntry:
    """A run as it begins; ``of`` names the run it takes back. Times in seconds since the epoch."""

    id: str
    started: float
    controller: str
    pid: int
    project: str
    kind: str = "rollout"
    of: str = ""
    revision: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostEntry:
    """A host as its run begins: the plan and the state it is to get."""

    host: str
    plan: Plan | None = None
    state: Mapping[str, Any] | None = None
    state_digest: str = ""


@dataclass(frozen=True)
class HostEnd:
    """How a host ended; ``phases`` are (name, seconds since its part began, seconds it took)."""

    host: str
    outcome: str
    message: str = ""
    problems: tuple[Problem, ...] = ()
    wave: int | None = None
    changes: int = 0
    seconds: float | None = None
    phases: tuple[tuple[str, float, float], ...] = ()


class RecordError(FleetError):
    """The record cannot be written; nothing is done to a host that it could not tell of."""


@dataclass
class _Request:
    work: Callable[[Store], Any]
    future: Future[Any]


class Record:
    """The record of a project, written by a thread of its own; an async context manager.

    Every method returns once what it says is durable. Raises RecordError.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="fleet-record", daemon=True)
        self._started = False

    def start(self) -> None:
        """Start the thread, which opens the record; harmless where it runs already."""
        if not self._started:
            self._started = True
            self._thread.start()

    async def __aenter__(self) -> Record:
        self.start()
        return self

    async def __aexit__(self, *ignored: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what is still to be written, and end the thread."""
        if self._started:
            self._requests.put(None)
            await asyncio.to_thread(self._thread.join)

    async def do(self, work: Callable[[Store], T]) -> T:
        """Have the thread do something in a transaction; return its result once committed."""
        self.start()
        future: Future[T] = Future()
        self._requests.put(_Request(work, future))
        return await asyncio.wrap_future(future)

    async def begin_run(self, run: RunEntry, hosts: Sequence[HostEntry]) -> None:
        """Record that a run begins: who, what, and every host's plan and state."""
        await self.do(lambda store: store.begin_run(run, hosts))

    async def resume_run(self, run: str, controller: str, pid: int, options: dict[str, Any]) -> int:
        """Record that a run is begun again; return which attempt it is."""
        return await self.do(lambda store: store.resume_run(run, controller, pid, options))

    async def waves(self, run: str, waves: Sequence[Sequence[str]]) -> None:
        """Record which hosts change together."""
        await self.do(lambda store: store.waves(run, waves))

    async def arming(
        self,
        run: str,
        host: str,
        transaction: str,
        plan: Plan,
        nonce_hash: str,
        addresses: Sequence[str],
    ) -> None:
        """Record what a host is about to be armed with."""
        await self.do(
            lambda store: store.arming(run, host, transaction, plan, nonce_hash, addresses)
        )

    async def confirmed(
        self, run: str, host: str, transaction: str, address: str, state: str, at: float
    ) -> None:
        """Record a confirmation and the host's answer."""
        await self.do(lambda store: store.confirmed(run, host, transaction, address, state, at))

    async def host_ended(self, run: str, end: HostEnd) -> None:
        """Record how a host ended, and how long its phases took."""
        await self.do(lambda store: store.host_ended(run, end))

    async def end_run(self, run: str, stopped: str = "") -> None:
        """Record that a run has ended."""
        await self.do(lambda store: store.end_run(run, stopped))

    async def load_run(self, name: str) -> PastRun:
        """Return one run in full; raises UsageError."""
        return await self.do(lambda store: store.load_run(name))

    def _work(self) -> None:
        try:
            from fleet.record.store import connect

            engine = connect(self.url)
        except Exception as error:
            self._refuse(_said(error))
            return
        try:
            while batch := self._batch():
                requests = [each for each in batch if each is not None]
                self._commit(engine, requests)
                if None in batch:
                    return
        finally:
            engine.dispose()

    def _batch(self) -> list[_Request | None]:
        batch = [self._requests.get()]
        while len(batch) < TOGETHER and batch[-1] is not None:
            try:
                batch.append(self._requests.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, engine: Engine, requests: list[_Request]) -> None:
        from sqlalchemy.orm import Session

        from fleet.record.store import Store

        if not requests:
            return
        results = []
        try:
            with Session(engine) as session, session.begin():
                for request in requests:
                    results.append(request.work(Store(session)))
                    session.flush()
        except Exception as error:
            if len(requests) > 1:
                # One of them is at fault; the others shall not suffer for it.
                for request in requests:
                    self._commit(engine, [request])
            else:
                requests[0].future.set_exception(_said(error))
            return
        for request, result in zip(requests, results, strict=True):
            request.future.set_result(result)

    def _refuse(self, error: Exception) -> None:
        while (request := self._requests.get()) is not None:
            request.future.set_exception(error)


def _said(error: Exception) -> FleetError:
    if isinstance(error, UsageError):
        return error
    original = getattr(error, "orig", None) or error
    said = str(original).strip() or type(error).__name__
    return RecordError(f"the record cannot be used: {said}")
