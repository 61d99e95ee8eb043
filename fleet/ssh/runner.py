"""Nornir's runner plugin ``asyncio``: ``async def`` tasks of all hosts at once on one loop.

Stock runners call a task and take what it returns for the result: of an ``async def`` task that is
a coroutine nobody awaits, and Nornir would call it a success. Here ``start`` and ``run`` are
awaited; plain ``def`` tasks run in threads of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from nornir.core.exceptions import NornirSubTaskError
from nornir.core.inventory import Host
from nornir.core.task import DEFAULT_SEVERITY_LEVEL, AggregatedResult, MultiResult, Result, Task

T = TypeVar("T")
logger = logging.getLogger("nornir.core.task")

#: Seconds in which a task that is cancelled may clean up, before nobody waits for it any more.
GRACE = 5.0
#: Threads of a loop of our own for what asyncio itself puts into threads: names to be resolved.
RESOLVERS = 32


class DeadlineExceeded(Exception):
    """A host did not finish its task in time."""


def _like(cls: type[Any], task: Task, function: Callable[..., Any], **params: Any) -> Any:
    """Return a subtask of ``task``, as Nornir's ``Task.run`` makes one."""
    params.setdefault("severity_level", task.severity_level)
    return cls(
        function,
        task.nornir,
        global_dry_run=task.global_dry_run,
        processors=task.processors,
        parent_task=task,
        **params,
    )


def _added(parent: Task, inner: Task, results: MultiResult) -> MultiResult:
    """Add a subtask's results to its parent's; raises NornirSubTaskError where they failed."""
    parent.results.append(results[0] if len(results) == 1 else cast("Result", results))
    if results.failed:
        raise NornirSubTaskError(task=inner, result=results)
    return results


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

    #: Whether the results have been handed on: what comes later is nobody's.
    completed = False

    async def start(self, host: Host) -> MultiResult:  # type: ignore[override]
        """Run the task for one host; an exception becomes a failed result."""
        self.host = host
        tell, sub = self.processors, self.parent_task is not None
        (tell.subtask_instance_started if sub else tell.task_instance_started)(self, host)
        try:
            result = await self._call()
        except NornirSubTaskError as error:
            logger.error("Host %r: task %r failed: %s", host.name, self.name, error)
            result = Result(host, exception=error, result=str(error), failed=True)
        except (Exception, SystemExit) as error:
            # A task that calls sys.exit() ends itself, not the loop with all other hosts.
            text = traceback.format_exc()
            logger.error("Host %r: task %r failed with traceback:\n%s", host.name, self.name, text)
            result = Result(host, exception=error, result=text, failed=True)
        return self._complete(result)

    def _complete(self, result: Result) -> MultiResult:
        if self.completed:
            return self.results
        self.completed = True
        result.name = self.name  # type: ignore[assignment]
        if result.severity_level == DEFAULT_SEVERITY_LEVEL:
            result.severity_level = logging.ERROR if result.failed else self.severity_level
        self.results.insert(0, result)
        tell, sub = self.processors, self.parent_task is not None
        hear = tell.subtask_instance_completed if sub else tell.task_instance_completed
        hear(self, self.host, self.results)
        return self.results

    def late(self, seconds: float) -> MultiResult:
        """Complete a task that has been given up, whatever it still does."""
        so_far, self.results = self.results, MultiResult(self.name)
        self.results.extend(so_far)
        error = DeadlineExceeded(f"no result within {seconds:g} s")
        return self._complete(Result(self.host, exception=error, result=str(error), failed=True))

    async def _call(self) -> Result:
        if inspect.iscoroutinefunction(self.task):
            value = await self.task(self, **self.params)
        else:
            plain = ThreadTask.of(self, asyncio.get_running_loop())
            try:
                value = await in_thread(lambda: plain.task(plain, **plain.params))
            except asyncio.CancelledError:
                plain.give_up()
                raise
            if inspect.isawaitable(value):
                value = await value
        return value if isinstance(value, Result) else Result(host=self.host, result=value)

    async def run(self, task: Callable[..., Any], **kwargs: Any) -> MultiResult:  # type: ignore[override]
        """Run a subtask for this host and return its results; raises NornirSubTaskError."""
        inner: AsyncTask = _like(AsyncTask, self, task, **kwargs)
        return _added(self, inner, await inner.start(self.host))


class ThreadTask(Task):
    """What a plain ``def`` task gets: its ``run`` is not awaited, and takes both sorts of task."""

    loop: asyncio.AbstractEventLoop
    waiting: set[Future[MultiResult]]

    @classmethod
    def of(cls, task: AsyncTask, loop: asyncio.AbstractEventLoop) -> ThreadTask:
        """Return the same task for a thread; results are shared."""
        plain = cls(
            task.task, task.nornir, task.global_dry_run, task.processors, task.name,
            task.severity_level, task.parent_task, **task.params,
        )  # fmt: skip
        plain.host, plain.results, plain.loop, plain.waiting = task.host, task.results, loop, set()
        return plain

    def run(self, task: Callable[..., Any], **kwargs: Any) -> MultiResult:
        """Run a subtask for this host and return its results; raises NornirSubTaskError."""
        if inspect.iscoroutinefunction(task):
            inner: AsyncTask = _like(AsyncTask, self, task, **kwargs)
            future = asyncio.run_coroutine_threadsafe(inner.start(self.host), self.loop)
            self.waiting.add(future)
            return _added(self, inner, future.result())
        plain: ThreadTask = _like(ThreadTask, self, task, **kwargs)
        plain.loop, plain.waiting = self.loop, self.waiting
        return _added(self, plain, plain.start(self.host))

    def give_up(self) -> None:
        """Cancel what this task waits for; a thread itself cannot be stopped."""
        for future in self.waiting:
            future.cancel()


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own and return what it returns.

    Not in asyncio's pool: a few calls that hang would take its threads from every other host, and
    from the resolver.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", value))

    def work() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = context.run(function)
        except (StopIteration, KeyboardInterrupt) as stopped:
            # Neither can be carried by a future.
            error = RuntimeError(f"the task raised {type(stopped).__name__}")
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    context = contextvars.copy_context()
    threading.Thread(target=work, daemon=True, name="fleet-task").start()
    return await done


class AsyncioRunner:
    """Runs a task for all hosts at once, at most ``num_workers`` at a time.

    ``timeout`` bounds each host in seconds: one that hangs fails alone and frees its place, even
    if it does not take its cancellation. With ``loop`` the tasks run on a loop that somebody else
    runs, in another thread; otherwise the runner keeps one of its own, so that connections live
    from one run to the next.
    """

    def __init__(
        self,
        num_workers: int = 100,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.num_workers, self.timeout = num_workers, timeout
        self._loop = loop
        self._abandoned: set[asyncio.Task[MultiResult]] = set()

    def run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        """Run a task over hosts and return every host's results, in the order of the hosts.

        Where it is interrupted (Ctrl-C) all hosts are cancelled, and have cleaned up when it
        returns. Raises RuntimeError on the loop's own thread, which it would block for ever.
        """
        loop = self._loop or own_loop()
        if _running() is loop:
            raise RuntimeError("on the loop itself await asyncio.to_thread(nornir.run, ...)")
        ended = threading.Event()
        running: list[asyncio.Task[AggregatedResult]] = []

        def begin() -> None:
            running.append(loop.create_task(self._run(task, hosts)))
            running[0].add_done_callback(lambda _: ended.set())

        def cancel() -> None:
            # The loop takes calls in their order: without a task begin() was never called.
            if running:
                running[0].cancel()
            else:
                ended.set()

        try:
            loop.call_soon_threadsafe(begin)
            ended.wait()
        except BaseException:
            # Ctrl-C may come anywhere in here, and as soon as begin() is known to the loop.
            loop.call_soon_threadsafe(cancel)
            ended.wait(GRACE + 1)
            raise
        try:
            return running[0].result()
        except asyncio.CancelledError:
            raise CancelledError from None

    async def _run(self, task: Task, hosts: list[Host]) -> AggregatedResult:
        found: dict[str, MultiResult] = {}
        waiting = iter(hosts)
        count = max(1, min(self.num_workers, len(hosts)))
        workers = [asyncio.ensure_future(self._work(task, waiting, found)) for _ in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        results = AggregatedResult(task.name)
        for host in hosts:
            results[host.name] = found[host.name]
        return results

    async def _work(
        self, task: Task, waiting: Iterator[Host], found: dict[str, MultiResult]
    ) -> None:
        for host in waiting:
            found[host.name] = await self._one(AsyncTask.of(task), host)

    async def _one(self, task: AsyncTask, host: Host) -> MultiResult:
        running = asyncio.ensure_future(task.start(host))
        try:
            await asyncio.wait({running}, timeout=self.timeout)
        finally:
            if not running.done():
                await self._cancel(running)
        if running.done() and not running.cancelled():
            return running.result()
        return task.late(self.timeout or 0.0)

    async def _cancel(self, running: asyncio.Task[MultiResult]) -> None:
        """Cancel a host's task and wait a while; one that will not end is left to itself."""
        running.cancel()
        await asyncio.wait({running}, timeout=GRACE)
        if not running.done():
            self._abandoned.add(running)
            running.add_done_callback(self._forget)

    def _forget(self, running: asyncio.Task[MultiResult]) -> None:
        self._abandoned.discard(running)
        if not running.cancelled():
            running.exception()  # it has been reported as late already


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_own: asyncio.AbstractEventLoop | None = None
_lock = threading.Lock()


def own_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that plain scripts share: a daemon thread runs it as long as they live."""
    global _own
    with _lock:
        if _own is None or _own.is_closed():
            _own = asyncio.new_event_loop()
            _own.set_default_executor(ThreadPoolExecutor(RESOLVERS, "fleet-resolver"))
            threading.Thread(target=_own.run_forever, name="fleet-asyncio", daemon=True).start()
        return _own
