"""Hosts that lie, babble, drip and fall silent: each is one clear error, bounded and printable."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from server import opened

from fleet.errors import FleetError, HelperError, HostUnreachable, ProtocolError
from fleet.helper import lines, session
from fleet.helper.session import HelperSession

READY = b'{"fleet":"ready"}\n'
Script = Callable[[Any], Awaitable[None]]


class Hostile:
    """An SSH server in a thread of its own, whose every command is the script of the moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script: Script | None = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.key.write_private_key(folder / "client")
        self.port = 0

    async def start(self) -> None:
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        clients = self.folder / "clients"
        self.key.write_public_key(clients)
        self.server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(clients),
            process_factory=self._process, encoding=None,
        )  # fmt: skip
        self.port = self.server.sockets[0].getsockname()[1]
        public = host_key.export_public_key().decode()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {public}")

    async def _process(self, process: Any) -> None:
        assert self.script is not None
        try:
            await self.script(process)
        except (asyncssh.Error, OSError):
            pass  # the other side has had enough
        finally:
            process.channel.abort()

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """Give the one hostile server of this module."""
    made = Hostile(tmp_path_factory.mktemp("hostile"))
    made.thread.start()
    try:
        asyncio.run_coroutine_threadsafe(made.start(), made.loop).result(20)
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.stop(), made.loop).result(20)
        made.loop.call_soon_threadsafe(made.loop.stop)
        made.thread.join()
        made.loop.close()


@contextmanager
def limits(monkeypatch: pytest.MonkeyPatch, **values: Any) -> Iterator[None]:
    """Have the limits smaller, so that a test does not move hundreds of megabytes."""
    with monkeypatch.context() as patch:
        for name, value in values.items():
            patch.setattr(session if hasattr(session, name) else lines, name, value)
        yield


def ask(server: Hostile, script: Script, op: str = "audit", timeout: float = 10.0) -> Any:
    """Open a session with the server and call an operation; the connection is closed after."""
    server.script = script

    async def main() -> Any:
        keys = {"client_keys": [str(server.folder / "client")]}
        extras = {**keys, "known_hosts": str(server.folder / "known"), "config": []}
        plugin = opened("127.0.0.1", server.port, "root", extras)
        try:
            channel = await HelperSession.open(plugin)
            return await channel.call(op, timeout=timeout)
        finally:
            await plugin.aclose()

    return asyncio.run(main())


def saying(*parts: bytes, end: bool = True) -> Script:
    """Return a script that says all parts once a request has come, and then ends or waits."""

    async def script(process: Any) -> None:
        process.stdout.write(READY)
        await process.stdin.readline()
        for part in parts:
            process.stdout.write(part)
        if not end:
            await process.stdin.read()
        process.exit(0)
        await process.wait_closed()

    return script


def endless(part: bytes, first: bytes = READY, stderr: bool = False) -> Script:
    """Return a script that says a part again and again, as fast as it is read."""

    async def script(process: Any) -> None:
        process.stdout.write(first)
        stream = process.stderr if stderr else process.stdout
        while not process.is_closing():
            stream.write(part)
            await stream.drain()

    return script


def answer(**words: Any) -> bytes:
    return json.dumps({"id": 1, **words}).encode() + b"\n"


def test_a_good_answer_comes_through(server: Hostile) -> None:
    """The server of these tests can also behave."""
    events: list[Any] = []
    assert ask(server, saying(answer(event="x"), answer(ok=True, plan=[1])))["plan"] == [1]
    assert events == []


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\xff\x00\x1b[2J\n",
        b"[]\n",
        b"{]\n",
        b'{"id": 1, "ok": true\n',
        b'{"id": 1, "ok": true, "x": NaN}\n',
        b'{"id": 1, "ok": true, "x": 1' + b"0" * 10_000 + b"}\n",
        b'{"id": 1, "ok": true, "x": ' + b"[" * 100 + b"]" * 100 + b"}\n",
        b'{"id": 1, "ok": true, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"id": 1, "ok": true, "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}\n",
        b'{"id": 2, "ok": true}\n',
        b'{"id": true, "ok": true}\n',
        b'{"id": "1", "ok": true}\n',
        b'{"ok": true}\n',
        b'{"id": 1}\n',
        b'{"id": 1, "ok": 1}\n',
        b'{"id": 1, "ok": false, "error": "no"}\n',
        b'{"id": 1, "ok": true, "x": "\xff"}\n',
    ],
    ids=range(18),
)
def test_what_is_not_an_answer_is_not_believed(server: Hostile, line: bytes) -> None:
    """Wrong JSON, deep JSON, another's id, half an answer: one error, of printable text."""
    with pytest.raises(ProtocolError) as info:
        ask(server, saying(line, end=False))
    check_text(info.value)


def check_text(error: FleetError) -> None:
    """An error's text is printable, short, and names the host."""
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 1600
    assert "127.0.0.1" in text


@pytest.mark.parametrize("first", [b"", READY])
@pytest.mark.parametrize(
    ("part", "said"),
    [
        (b"A" * 65536, "not an answer"),
        (b"\n" * 65536, "not an answer"),
        (b'{"a' * 20000, "a line of more than 1 MiB"),
        (answer(event="x") * 5000, "without end|began with"),
    ],
    ids=["garbage", "newlines", "line", "events"],
)
def test_endless_output_ends_the_channel(
    server: Hostile, monkeypatch: pytest.MonkeyPatch, first: bytes, part: bytes, said: str
) -> None:
    """However a host babbles, memory stays bounded and that host alone fails."""
    with limits(monkeypatch, LONGEST_LINE=1 << 20, LONGEST_SESSION=8 << 20):
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match=said) as info:
                ask(server, endless(part, first))
            assert tracemalloc.get_traced_memory()[1] < 96 << 20
        finally:
            tracemalloc.stop()
    check_text(info.value)


def test_an_endless_stderr_ends_it_too(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors count as output."""
    with (
        limits(monkeypatch, LONGEST_SESSION=4 << 20),
        pytest.raises(ProtocolError, match="without end"),
    ):
        ask(server, endless(b"e" * 65536, stderr=True))


def test_silence_costs_the_calls_deadline(server: Hostile) -> None:
    """A helper that never answers is unreachable after the call's own time."""
    with pytest.raises(HostUnreachable, match=r"audit: no answer within 0\.2 s"):
        ask(server, saying(end=False), timeout=0.2)


def test_silence_at_the_start_costs_the_starts_deadline(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that takes the command and says nothing does not hold up a run."""

    async def script(process: Any) -> None:
        await process.stdin.read()

    with limits(monkeypatch, START_TIMEOUT=0.3), pytest.raises(HostUnreachable, match="start"):
        ask(server, script)


def test_a_slow_drip_costs_the_calls_deadline(server: Hostile) -> None:
    """A byte now and then does not keep a call alive."""

    async def script(process: Any) -> None:
        process.stdout.write(READY)
        while not process.is_closing():
            process.stdout.write(b'{"a":' if not process.get_extra_info("x") else b"1")
            await asyncio.sleep(0.02)

    with pytest.raises(HostUnreachable, match="no answer within"):
        ask(server, script, timeout=0.3)


@pytest.mark.parametrize("begun", [b"", READY, READY + b'{"id": 1, "ok'])
def test_an_early_end_says_how(server: Hostile, begun: bytes) -> None:
    """A helper that ends is told with its exit status and its last words, escaped."""

    async def script(process: Any) -> None:
        process.stdout.write(begun)
        process.stderr.write(b"Traceback\n\x1b]0;title\x07boom")
        process.exit(9)
        await process.wait_closed()

    with pytest.raises(FleetError, match=r"exit status 9\): Traceback\\n\\x1b\]0;title\\x07boom"):
        ask(server, script)


def test_a_killed_helper_says_by_what(server: Hostile) -> None:
    """A signal is named: the kernel's for want of memory is KILL."""

    async def script(process: Any) -> None:
        process.stdout.write(READY)
        process.exit_with_signal("KILL")
        await process.wait_closed()

    with pytest.raises(HostUnreachable, match=r"the helper is gone \(killed by SIGKILL"):
        ask(server, script)


def test_a_lost_connection_is_unreachable(server: Hostile) -> None:
    """A connection that breaks while a call waits is not an answer of the helper."""

    async def script(process: Any) -> None:
        process.stdout.write(READY)
        await process.stdin.readline()
        process.channel.get_connection().abort()

    with pytest.raises(HostUnreachable, match="the helper is gone"):
        ask(server, script)


def test_a_refusal_is_printable_and_bounded(server: Hostile) -> None:
    """What a host puts into an error cannot move the cursor, flood a report or break its form."""
    evil = "\x1b[31mred\x07\u202e\x00\ud800" + "x" * 5000
    problem = {"resource": evil, "remedy": evil, "nonsense": 1, "actual": {"a": [evil]}}
    error = {"code": evil, "message": evil, "problems": [problem, 7, None, *[problem] * 500]}
    with pytest.raises(HelperError) as info:
        ask(server, saying(answer(ok=False, error=error)))
    assert len(info.value.problems) <= session.MOST_PROBLEMS
    for text in (info.value.code, info.value.message, *vars(info.value.problems[0]).values()):
        assert text.isprintable()
        assert len(text) <= 8100
    with pytest.raises(HelperError):
        ask(server, saying(answer(ok=False, error={"problems": 5})))


def test_an_answers_texts_are_printable(server: Hostile) -> None:
    """Control characters and halves of characters in an answer are escaped, lines are kept."""
    evil = "a\x1b[2Jb\x07\u202ec\ud800\nd\te"
    found = ask(server, saying(answer(ok=True, plan={evil: [evil, {"k": evil}]})))["plan"]
    safe = "a\\x1b[2Jb\\x07\\u202ec\\ud800\nd\te"
    assert found == {safe: [safe, {"k": safe}]}


def test_an_answer_that_comes_too_late_is_nobodys(server: Hostile) -> None:
    """A call that was given up takes its channel along: its answer is not the next one's."""
    server.script = saying(end=False)

    async def main() -> None:
        keys = {"client_keys": [str(server.folder / "client")]}
        extras = {**keys, "known_hosts": str(server.folder / "known"), "config": []}
        plugin = opened("127.0.0.1", server.port, "root", extras)
        try:
            channel = await HelperSession.open(plugin)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await channel.call("audit")
            with pytest.raises(HostUnreachable):
                await channel.call("audit")
        finally:
            await plugin.aclose()

    asyncio.run(main())


def test_a_push_that_is_not_taken_fails(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that says it lacks the helper and then takes nothing costs the push's deadline."""

    async def script(process: Any) -> None:
        if "blake2b" in process.command and "bz2" in process.command:
            process.stdout.write(b'{"fleet":"send"}\n')
            await asyncio.sleep(3600)
        process.stdout.write(b'{"fleet":"miss"}\n')
        process.exit(4)
        await process.wait_closed()

    with limits(monkeypatch, PUSH_TIMEOUT=0.5), pytest.raises(HostUnreachable, match="push"):
        ask(server, script)


def test_a_helper_that_is_always_missing_is_refused(server: Hostile) -> None:
    """Pushed, said to be taken, and still not there: refused, not tried for ever."""

    async def script(process: Any) -> None:
        taken = "bz2" in process.command
        process.stdout.write(b'{"fleet":"taken"}\n' if taken else b'{"fleet":"miss"}\n')
        process.exit(0)
        await process.wait_closed()

    with pytest.raises(HelperError, match="it is gone after the push"):
        ask(server, script)
