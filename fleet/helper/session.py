"""The channel to a host's helper: one process a host and run, a JSON line each way.

Whatever a host sends is hostile until it is understood: lines and totals are bounded, text is made
printable before it is shown, and what does not fit ends the channel and fails that host alone.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleet.errors import HelperError, HostUnreachable, ProtocolError
from fleet.helper import bootstrap, bundle
from fleet.host.change import Problem
from fleet.host.spec import decode
from fleet.ssh.text import printable

if TYPE_CHECKING:
    from fleet.ssh.connection import AsyncSSH

#: The longest line and the most a session may send, in bytes.
LONGEST_LINE, LONGEST_SESSION = 16 << 20, 256 << 20
PUSH_TIMEOUT, START_TIMEOUT = 60.0, 30.0
DEFAULT_TIMEOUT = 60.0
FLAGS = ["-I", "-S", "-c"]
#: The operations that need pyroute2 on the host.
CHANGING = ("arm",)

Event = Callable[[dict[str, Any]], None]


class _Lines:
    """The receiving end: bytes in, lines out; an asyncssh client session."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = self._total = 0
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.errors = bytearray()
        self.broken = ""
        self.channel: Any = None
        self.ended = False

    def connection_made(self, channel: Any) -> None:
        self.channel = channel

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            if len(self.errors) < 8192:
                self.errors += data[:8192]
            return
        self._total += len(data)
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            self._lines.put_nowait(bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._scanned = 0
        self._scanned = len(self._buffer)
        if self._scanned > LONGEST_LINE or self._total > LONGEST_SESSION:
            self._buffer.clear()
            self.broken = "it sends without end"
            self.channel.abort()
            self._end()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._lines.put_nowait(None)

    async def next(self) -> bytes | None:
        """Return the next line, None at the end, again and again."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
        return line

    def session_started(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def xon_xoff_requested(self, client_can_do: bool) -> None: ...
    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, *details: Any) -> None: ...


class HelperSession:
    """A running helper on one host."""

    def __init__(self, connection: AsyncSSH, lines: _Lines, where: str) -> None:
        self._connection, self._lines, self._where = connection, lines, where
        self._number = 0
        self._armed_ready = False

    @classmethod
    async def open(cls, connection: AsyncSSH) -> HelperSession:
        """Start the helper, pushing it first where the host lacks it.

        Raises HostUnreachable, HelperError (code ``preflight``) where the host cannot run it, and
        ProtocolError where something else answers.
        """
        where = connection.hostname
        helper, pyroute2 = bundle.helper_archive(), bundle.pyroute2_archive()
        text = bootstrap.run_text(helper.name, pyroute2.name)
        for attempt in (1, 2):
            lines = await _start(connection, text)
            words = await _first(lines, where)
            if words.get("fleet") == "ready":
                return cls(connection, lines, where)
            lines.channel.close()
            if words.get("fleet") != "miss" or attempt == 2:
                raise _preflight(words, where)
            await push(connection, helper)
        raise AssertionError("unreachable")

    async def call(
        self,
        op: str,
        on_event: Event | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        **fields: Any,
    ) -> dict[str, Any]:
        """Return the answer to one operation; events reach ``on_event`` as they come.

        ``timeout`` is in seconds, for the whole operation. Raises HelperError with the helper's
        code and problems, ProtocolError, and HostUnreachable where the connection is lost or the
        host is silent for too long.
        """
        if op in CHANGING and not self._armed_ready:
            await push(self._connection, bundle.pyroute2_archive())
            self._armed_ready = True
        self._number += 1
        request = {"id": self._number, "op": op, **fields}
        text = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        try:
            async with asyncio.timeout(timeout):
                self._send(text)
                return await self._answer(self._number, on_event)
        except TimeoutError:
            self._lines.channel.abort()
            raise HostUnreachable(f"{self._where}: {op}: no answer within {timeout:g} s") from None

    def _send(self, text: bytes) -> None:
        if self._lines.ended:
            raise self._lost()
        try:
            self._lines.channel.write(text)
        except (OSError, BrokenPipeError) as error:
            raise self._lost() from error

    async def _answer(self, number: int, on_event: Event | None) -> dict[str, Any]:
        while True:
            line = await self._lines.next()
            if line is None:
                raise self._lost()
            words = parse(line, self._where)
            if words.get("id") != number:
                raise self._broken(f"an answer to request {words.get('id')!r}")
            if "event" in words:
                if on_event:
                    on_event(words)
                continue
            if words.get("ok") is True:
                return words
            raise _helper_error(words.get("error"), self._where)

    def _broken(self, what: str) -> ProtocolError:
        self._lines.channel.abort()
        return ProtocolError(f"{self._where}: the helper sent {printable(what)}")

    def _lost(self) -> Exception:
        if self._lines.broken:
            return ProtocolError(f"{self._where}: {self._lines.broken}")
        said = printable(bytes(self._lines.errors).decode("utf-8", "replace").strip()[-300:])
        return HostUnreachable(f"{self._where}: the helper is gone{': ' + said if said else ''}")

    async def close(self) -> None:
        """End the helper: its standard input ends, and it with it."""
        if not self._lines.ended:
            self._lines.channel.write_eof()
        self._lines.channel.close()


def parse(line: bytes, where: str) -> dict[str, Any]:
    """Return one line as a mapping; raises ProtocolError with what came instead."""
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        seen = printable(line[:1000].decode("utf-8", "replace"))
        raise ProtocolError(f"{where}: not an answer of the helper: {seen!r}")
    return words


def _helper_error(said: Any, where: str) -> Exception:
    if not isinstance(said, dict):
        return ProtocolError(f"{where}: an answer without a result")
    problems = []
    for each in said.get("problems") or ():
        fields = Problem.__spec_fields__  # type: ignore[attr-defined]
        if isinstance(each, dict):
            known = {k: printable(str(v), 2000) for k, v in each.items() if k in fields}
            problems.append(decode(Problem, known))
    code = printable(str(said.get("code", "failed")), 40)
    return HelperError(code, printable(str(said.get("message", "")), 2000), problems)


async def _start(connection: AsyncSSH, text: str) -> _Lines:
    import asyncssh

    ssh = await connection.ready()
    argv = [*await connection.command_prefix(), connection.python, *FLAGS, text]
    try:
        async with asyncio.timeout(START_TIMEOUT):
            made: Any = _Lines
            _, lines = await ssh.create_session(
                made, shlex.join(argv), encoding=None, term_type=None
            )
    except (asyncssh.Error, OSError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error or "no answer in time"
        raise HostUnreachable(f"{connection.hostname}: no channel: {reason}") from error
    started: Any = lines
    ours: _Lines = started
    return ours


async def _first(lines: _Lines, where: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            line = await lines.next()
    except TimeoutError:
        lines.channel.abort()
        raise HostUnreachable(f"{where}: the helper does not start: no answer in time") from None
    if line is None:
        said = printable(bytes(lines.errors).decode("utf-8", "replace").strip())
        if lines.broken:
            raise ProtocolError(f"{where}: {lines.broken}")
        raise _preflight({"fleet": "refused", "reason": said or "it ended without a word"}, where)
    try:
        return parse(line, where)
    except ProtocolError:
        lines.channel.abort()
        raise


def _preflight(words: dict[str, Any], where: str) -> Exception:
    told, reason = words.get("fleet"), printable(str(words.get("reason", "")))
    if told == "old":
        python = printable(str(words.get("python")), 20)
        return _refusal("Python 3.9 or later", f"Python {python}", "install a newer python3")
    if told == "miss":
        return _refusal("the helper to stay", "it is gone after the push", "look at the disk")
    if told != "refused":
        return ProtocolError(f"{where}: the helper began with {printable(repr(words))}")
    for sign, expected, remedy in (
        ("sudo: a password", "sudo without a password", "allow the login to run sudo -n"),
        ("sudo: not found", "sudo", "install sudo, or log in as root"),
        ("sudo: command not found", "sudo", "install sudo, or log in as root"),
        ("python3: not found", "python3", "install python3 3.9 or later"),
        ("python3: command not found", "python3", "install python3 3.9 or later"),
        ("not root", "root", "log in as root, or as a user that sudo -n lets"),
        ("No space left", "space under /var/lib/fleet", "free some space"),
    ):
        if sign in reason:
            return _refusal(expected, reason, remedy)
    return _refusal("a helper that runs", reason, "run python3 on the host by hand")


def _refusal(expected: str, actual: str, remedy: str) -> HelperError:
    problem = Problem("host", "", expected, actual, remedy)
    return HelperError("preflight", f"expected {expected}, found: {actual}; {remedy}", [problem])


async def push(connection: AsyncSSH, archive: bundle.Archive, only_missing: bool = False) -> None:
    """Give a host an archive over a channel of its own; it takes the bytes only if it lacks them.

    Raises HelperError (code ``preflight``) where the host refuses it.
    """
    where = connection.hostname
    lines = await _start(connection, bootstrap.take_text(archive.name, len(archive.data)))
    try:
        async with asyncio.timeout(PUSH_TIMEOUT):
            while True:
                line = await lines.next()
                if line is None:
                    said = printable(bytes(lines.errors).decode("utf-8", "replace").strip())
                    raise _preflight({"fleet": "refused", "reason": said}, where)
                words = parse(line, where)
                if words.get("fleet") == "taken":
                    return
                if words.get("fleet") != "send":
                    raise _preflight(words, where)
                lines.channel.write(archive.data)
    except TimeoutError:
        raise HostUnreachable(f"{where}: the push was not taken in time") from None
    finally:
        lines.channel.close()
