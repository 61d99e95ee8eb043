"""The runner plugin: async tasks of many hosts, deadlines, threads, cancellation."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from nornir.core import Nornir
from nornir.core.configuration import Config, LoggingConfig
from nornir.core.inventory import Defaults, Groups, Host, Hosts, Inventory
from nornir.core.plugins.runners import RunnersPluginRegister
from nornir.core.task import AggregatedResult, MultiResult, Result, Task

from fleet.ssh import runner as module
from fleet.ssh.runner import AsyncioRunner, AsyncTask, DeadlineExceeded


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the tracebacks of tasks that are meant to fail to themselves; clean up fast."""
    monkeypatch.setattr(module, "GRACE", 0.2)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def nornir(count: int = 3, **options: Any) -> Nornir:
    """Return a Nornir of so many hosts over the runner."""
    names = [f"h{number}" for number in range(count)]
    hosts = Hosts({name: Host(name=name) for name in names})
    return Nornir(
        inventory=Inventory(hosts=hosts, groups=Groups(), defaults=Defaults()),
        config=Config(logging=LoggingConfig(enabled=False)),
        runner=AsyncioRunner(**options),
    )


class Heard:
    """A processor that remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def task_started(self, task: Task) -> None:
        self.events.append(("begin", task.name))

    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        self.events.append(("end", task.name))

    def task_instance_started(self, task: Task, host: Host) -> None:
        self.events.append(("host", task.name, host.name))

    def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        self.events.append(("done", task.name, host.name, str(result.failed)))

    def subtask_instance_started(self, task: Task, host: Host) -> None:
        self.events.append(("sub", task.name, host.name))

    def subtask_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        self.events.append(("subdone", task.name, host.name, str(result.failed)))


async def greet(task: AsyncTask, word: str = "hello") -> str:
    """Return a greeting."""
    await asyncio.sleep(0)
    return f"{word} {task.host.name}"


async def boom(task: AsyncTask) -> None:
    """Fail."""
    raise ValueError("boom")


def test_async_tasks_of_all_hosts_run_and_give_results() -> None:
    """An async def task is awaited; results come in the order of the hosts, arguments arrive."""
    result = nornir(5).run(greet, word="hi", name="greeting")
    assert list(result) == ["h0", "h1", "h2", "h3", "h4"]
    assert [each[0].result for each in result.values()] == [f"hi h{n}" for n in range(5)]
    assert (result.name, result["h0"].name, result["h0"][0].name) == ("greeting",) * 3
    assert not result.failed
    assert result["h0"][0].severity_level == logging.INFO


def test_a_result_is_taken_as_it_is() -> None:
    """A task that returns a Result says changed, failed and diff itself."""

    async def task(task: AsyncTask) -> Result:
        return Result(
            host=task.host, result=1, changed=True, diff="d", failed=task.host.name == "h1"
        )

    run = nornir()
    result = run.run(task)
    assert (result["h0"].changed, result["h0"].diff) == (True, "d")
    assert list(result.failed_hosts) == ["h1"]
    assert run.data.failed_hosts == {"h1"}
    assert result["h1"][0].severity_level == logging.ERROR


def test_an_exception_fails_its_host_alone() -> None:
    """What a task raises is that host's failed result, which Nornir then leaves out."""

    async def task(task: AsyncTask) -> str:
        if task.host.name == "h1":
            raise ValueError("boom")
        return "fine"

    run = nornir()
    result = run.run(task)
    failed = result["h1"][0]
    assert isinstance(failed.exception, ValueError)
    assert "Traceback" in failed.result
    assert (result["h0"].result, result["h2"].result) == ("fine", "fine")
    assert list(run.run(greet)) == ["h0", "h2"]
    assert list(run.run(greet, on_failed=True)) == ["h0", "h2", "h1"]


def test_subtasks_are_awaited_and_heard() -> None:
    """Subtasks' results follow their parent's; processors hear all of it, in order."""

    async def task(task: AsyncTask) -> str:
        inner = await task.run(greet, word="hey")
        return f"<{inner[0].result}>"

    heard = Heard()
    result = nornir(1).with_processors([heard]).run(task)
    assert [each.result for each in result["h0"]] == ["<hey h0>", "hey h0"]
    assert heard.events == [
        ("begin", "task"), ("host", "task", "h0"), ("sub", "greet", "h0"),
        ("subdone", "greet", "h0", "False"), ("done", "task", "h0", "False"), ("end", "task"),
    ]  # fmt: skip


def test_a_failed_subtask_ends_its_parent() -> None:
    """NornirSubTaskError goes up as in Nornir; a parent may catch it."""

    async def careless(task: AsyncTask) -> None:
        await task.run(boom)
        raise AssertionError("not reached")

    async def careful(task: AsyncTask) -> str:
        try:
            await task.run(boom)
        except Exception as error:
            return type(error).__name__
        return ""

    run = nornir(1)
    result = run.run(careless)["h0"]
    assert [each.failed for each in result] == [True, True]
    assert "Subtask: boom" in str(result[0].result)
    assert run.run(careful, on_failed=True)["h0"][0].result == "NornirSubTaskError"


def test_plain_tasks_run_in_threads_of_their_own() -> None:
    """Blocking tasks of more hosts than asyncio's pool has threads run side by side."""
    together = threading.Barrier(40)

    def task(task: Task) -> str:
        together.wait(10)
        return threading.current_thread().name

    result = nornir(40).run(task)
    assert {each[0].result for each in result.values()} == {"fleet-task"}


def test_plain_and_async_tasks_call_each_other() -> None:
    """A def task runs async subtasks without awaiting, an async one awaits def subtasks."""

    def lowest(task: Task) -> str:
        return "low"

    def middle(task: Task) -> str:
        return f"{task.run(greet)[0].result} {task.run(lowest)[0].result}"

    async def top(task: AsyncTask) -> str:
        return f"{(await task.run(middle))[0].result}!"

    for entry in (top, middle):
        heard = Heard()
        result = nornir(1).with_processors([heard]).run(entry)["h0"]
        assert not result.failed, result[0].result
        assert "hello h0 low" in result[0].result
        assert ("subdone", "greet", "h0", "False") in heard.events

    def broken(task: Task) -> None:
        task.run(boom)

    result = nornir(1).run(broken)["h0"]
    assert [each.failed for each in result] == [True, True]


def test_callables_of_other_sorts_are_tasks_too() -> None:
    """A partial and an object with an async __call__ are awaited like functions."""

    class Object:
        __name__ = "object"

        async def __call__(self, task: AsyncTask) -> str:
            return "called"

    partial = functools.partial(greet, word="ho")
    assert nornir(1).run(partial, name="partial")["h0"].result == "ho h0"
    assert nornir(1).run(Object())["h0"].result == "called"


def test_no_more_than_the_limit_run_at_once() -> None:
    """num_workers bounds how many hosts are worked on, and all of them have their turn."""
    now = most = 0

    async def task(task: AsyncTask) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    assert len(nornir(50, num_workers=7).run(task)) == 50
    assert most == 7


@pytest.mark.parametrize("stubborn", [False, True])
def test_hung_hosts_cost_their_own_rows_only(stubborn: bool) -> None:
    """With more hung hosts than places the others still finish: a deadline frees the place, even
    of a task that does not take its cancellation."""
    release = threading.Event()

    async def task(task: AsyncTask) -> str:
        while int(task.host.name[1:]) < 12 and not release.is_set():
            try:
                await asyncio.sleep(0.05 if stubborn else 30)
            except asyncio.CancelledError:
                if not stubborn:
                    raise
        return "fine"

    heard = Heard()
    run = nornir(20, num_workers=6, timeout=0.2)
    began = time.monotonic()
    result = run.with_processors([heard]).run(task)
    assert time.monotonic() - began < 5
    release.set()
    assert sorted(result.failed_hosts, key=lambda name: int(name[1:])) == [
        f"h{n}" for n in range(12)
    ]
    assert isinstance(result["h0"][0].exception, DeadlineExceeded)
    assert result["h0"][0].result == "no result within 0.2 s"
    assert result["h0"][0].severity_level == logging.ERROR
    assert result["h15"].result == "fine"
    assert sum(event[0] == "done" for event in heard.events) == 20


def test_hung_threads_cost_their_own_rows_only() -> None:
    """A blocking library that never returns keeps neither a place nor a pool's thread."""
    release = threading.Event()

    def task(task: Task) -> str:
        if int(task.host.name[1:]) < 12:
            release.wait(30)
        return "fine"

    result = nornir(20, num_workers=6, timeout=0.3).run(task)
    release.set()
    assert len(result.failed_hosts) == 12
    assert result["h19"].result == "fine"


def test_what_was_done_before_the_deadline_is_kept() -> None:
    """The results of a hung host's finished subtasks follow its failed one."""

    async def task(task: AsyncTask) -> None:
        await task.run(greet)
        await asyncio.sleep(30)

    result = nornir(1, timeout=0.1).run(task)["h0"]
    assert [each.name for each in result] == ["task", "greet"]
    assert [each.failed for each in result] == [True, False]


def test_a_task_that_exits_ends_itself_only() -> None:
    """sys.exit() in a task, async or plain, is that host's failure; the loop goes on."""

    async def leave(task: AsyncTask) -> None:
        sys.exit(3)

    def leave_thread(task: Task) -> None:
        sys.exit(3)

    for task in (leave, leave_thread):
        run = nornir(2)
        assert run.run(task).failed
        assert not run.run(greet, on_failed=True).failed


def test_a_processors_error_stops_the_run() -> None:
    """As in Nornir an error of a processor goes to the caller, and nothing goes on behind it."""

    class Broken(Heard):
        def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
            raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        nornir(5, num_workers=2).with_processors([Broken()]).run(greet)
    assert not nornir().run(greet).failed


def test_connections_live_from_run_to_run() -> None:
    """All runs of a script share one loop, and what lives on it."""

    async def loop(task: AsyncTask) -> int:
        return id(asyncio.get_running_loop())

    run = nornir(2)
    found = {each[0].result for _ in range(3) for each in run.run(loop).values()}
    assert len(found) == 1


def test_an_engines_loop_is_used() -> None:
    """With a loop of its own the engine calls nornir.run through a thread, and tasks run here."""

    async def loop(task: AsyncTask) -> int:
        return id(asyncio.get_running_loop())

    async def main() -> None:
        here = asyncio.get_running_loop()
        run = nornir(2, loop=here)
        result = await asyncio.to_thread(run.run, loop)
        assert {each[0].result for each in result.values()} == {id(here)}
        with pytest.raises(RuntimeError, match="to_thread"):
            run.run(loop)

    asyncio.run(main())


def test_a_cancelled_engine_leaves_nothing_behind() -> None:
    """Where the loop is shut down in the middle of a run, tasks clean up and the thread ends."""
    begun: list[str] = []
    cleaned: list[str] = []

    async def task(task: AsyncTask) -> None:
        begun.append(task.host.name)
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append(task.host.name)

    async def main() -> None:
        run = nornir(3, loop=asyncio.get_running_loop())
        running = asyncio.ensure_future(asyncio.to_thread(run.run, task))
        while len(begun) < 3:
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(main())
    assert sorted(cleaned) == ["h0", "h1", "h2"]


def test_ctrl_c_in_a_script_settles_first() -> None:
    """A script's Ctrl-C cancels every host, waits for what they clean up, and is an interrupt."""
    program = """
import asyncio, sys
sys.path[:0] = sys.argv[1:]
from test_runner import nornir
async def task(task):
    print("begun", flush=True)
    try:
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.05)
        print("cleaned", flush=True)
try:
    nornir(2).run(task)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *sys.path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as out:
        assert [out.readline() for _ in range(2)] == ["begun\n"] * 2
        process.send_signal(signal.SIGINT)
        assert out.read() == "cleaned\ncleaned\ninterrupted\n"
    assert process.wait(10) == 0


def test_nornir_finds_the_plugins_by_name() -> None:
    """Both plugins are entry points: a script names them and needs nothing else of fleet."""
    from nornir.core.plugins.connections import ConnectionPluginRegister

    from fleet.ssh.connection import AsyncSSH

    RunnersPluginRegister.auto_register()
    ConnectionPluginRegister.auto_register()
    assert RunnersPluginRegister.get_plugin("asyncio") is AsyncioRunner
    assert ConnectionPluginRegister.get_plugin("asyncssh") is AsyncSSH
