"""Nornir's runner plugin ``asyncio``: ``async def`` tasks of all hosts at once on one loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any, cast

from nornir.core.exceptions import NornirSubTaskError
from nornir.core.inventory import Host
from nornir.core.task import DEFAULT_SEVERITY_LEVEL, AggregatedResult, MultiResult, Result, Task

logger = logging.getLogger("nornir.core.task")


class DeadlineExceeded(Exception):
    """A host did not finish its task in time."""


class AsyncTask(Task):
    """A Nornir task whose ``start`` and ``run`` are awaited; everything else is Nornir's.

    A plain ``def`` task runs in a thread, so that a blocking library holds up its own host alone.
    """

    @classmethod
    def of(cls, task: Task) -> AsyncTask:
        """Return a fresh copy of a task, as Nornir's ``copy`` makes one."""
        return cls(
            task.task,
            task.nornir,
            task.global_dry_run,
            task.processors,
            task.name,
            task.severity_level,
            task.parent_task,
            **task.params,
        )

    def copy(self) -> AsyncTask:
        """Return a fresh copy."""
        return AsyncTask.of(self)

    async def start(self, host: Host) -> MultiResult:  # type: ignore[override]
        """Run the task for one host; an exception becomes a failed result."""
        self.host = host
        sub = self.parent_task is not None
        started = (
            self.processors.subtask_instance_started
            if sub
            else (self.processors.task_instance_started)
        )
        started(self, host)
        try:
            result = await self._call()
        except NornirSubTaskError as error:
            logger.error("Host %r: task %r failed: %s", host.name, self.name, error)
            result = Result(host, exception=error, result=str(error), failed=True)
        except Exception as error:
            text = traceback.format_exc()
            logger.error("Host %r: task %r failed with traceback:\n%s", host.name, self.name, text)
            result = Result(host, exception=error, result=text, failed=True)
        result.name = self.name  # type: ignore[assignment]
        if result.severity_level == DEFAULT_SEVERITY_LEVEL:
            result.severity_level = logging.ERROR if result.failed else self.severity_level
        self.results.insert(0, result)
        completed = (
            self.processors.subtask_instance_completed
            if sub
            else (self.processors.task_instance_completed)
        )
        completed(self, host, self.results)
        return self.results

    async def _call(self) -> Result:
        if inspect.iscoroutinefunction(self.task):
            value = await self.task(self, **self.params)
        else:
            value = await asyncio.to_thread(_plain, self)
            if inspect.isawaitable(value):
                value = await value
        return value if isinstance(value, Result) else Result(host=self.host, result=value)

    async def run(self, task: Callable[..., Any], **kwargs: Any) -> MultiResult:  # type: ignore[override]
        """Run a subtask for this host and return its results; raises NornirSubTaskError."""
        kwargs.setdefault("severity_level", self.severity_level)
        inner = AsyncTask(
            task,
            self.nornir,
            global_dry_run=self.global_dry_run,
            processors=self.processors,
            parent_task=self,
            **kwargs,
        )
        results = await inner.start(self.host)
        self.results.append(results[0] if len(results) == 1 else cast("Result", results))
        if results.failed:
            raise NornirSubTaskError(task=inner, result=results)
        return results


def _plain(task: AsyncTask) -> Any:
    """Call a plain task with a plain Task, whose ``run`` it may call without awaiting."""
    plain = Task.copy(task)
    plain.host = task.host
    plain.results = task.results
    return plain.task(plain, **plain.params)


class AsyncioRunner:
    """Runs a task for all hosts at once, at most ``num_workers`` at a time.

    ``timeout`` bounds each host in seconds: one that hangs fails alone and frees its place. With
    ``loop`` the tasks run on a loop that somebody else runs, in another thread; otherwise the
    runner keeps one of its own, so that connections live from one run to the next.
    """

    def __init__(
        self,
        num_workers: int = 100,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.num_workers, self.timeout = num_workers, timeout
        self._loop = loop

    def run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        """Run a task over hosts and return every host's results, in the order of the hosts."""
        loop = self._loop or own_loop()
        future = asyncio.run_coroutine_threadsafe(self._run(task, hosts), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        places = asyncio.Semaphore(self.num_workers)
        results = AggregatedResult(task.name)
        done = await asyncio.gather(*(self._one(AsyncTask.of(task), h, places) for h in hosts))
        for host, result in zip(hosts, done, strict=True):
            results[host.name] = result
        return results

    async def _one(self, task: AsyncTask, host: Host, places: asyncio.Semaphore) -> MultiResult:
        async with places:
            try:
                async with asyncio.timeout(self.timeout):
                    return await task.start(host)
            except TimeoutError:
                error = DeadlineExceeded(f"no result within {self.timeout:g} s")
                late = Result(host, exception=error, result=str(error), failed=True)
                late.name = task.name  # type: ignore[assignment]
                late.severity_level = logging.ERROR
                task.results.insert(0, late)
                task.processors.task_instance_completed(task, host, task.results)
                return task.results


_own: asyncio.AbstractEventLoop | None = None
_lock = threading.Lock()


def own_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that plain scripts share: a daemon thread runs it as long as they live."""
    global _own
    with _lock:
        if _own is None or _own.is_closed():
            _own = asyncio.new_event_loop()
            threading.Thread(target=_own.run_forever, name="fleet-asyncio", daemon=True).start()
        return _own
