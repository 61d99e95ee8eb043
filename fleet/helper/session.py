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
from fleet.helper.lines import Lines, parse
from fleet.host.change import Problem
from fleet.host.spec import decode, field_names
from fleet.printable import printable

if TYPE_CHECKING:
    from fleet.ssh.connection import AsyncSSH

MOST_PROBLEMS = 100
PUSH_TIMEOUT, START_TIMEOUT = 60.0, 30.0
DEFAULT_TIMEOUT = 60.0
FLAGS = ["-I", "-S", "-c"]
#: The operations that need pyroute2 on the host.
CHANGING = ("arm",)

Event = Callable[[dict[str, Any]], None]


class HelperSession:
    """A running helper on one host."""

    def __init__(self, connection: AsyncSSH, lines: Lines, where: str) -> None:
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
        except HelperError:
            raise
        except TimeoutError:
            self._lines.channel.abort()
            raise HostUnreachable(f"{self._where}: {op}: no answer within {timeout:g} s") from None
        except BaseException:
            # An answer that comes later would be taken for that of the next request.
            self._lines.channel.abort()
            raise

    def _send(self, text: bytes) -> None:
        if self._lines.ended:
            raise self._lost()
        try:
            self._lines.channel.write(text)
        except OSError as error:
            raise self._lost() from error

    async def _answer(self, number: int, on_event: Event | None) -> dict[str, Any]:
        while True:
            line = await self._lines.next()
            if line is None:
                raise self._lost()
            words = parse(line, self._where)
            if type(words.get("id")) is not int or words["id"] != number:
                said = printable(repr(words.get("id")), 80)
                raise ProtocolError(f"{self._where}: an answer to a request never made: {said}")
            if "event" in words:
                if on_event:
                    on_event(words)
                continue
            if words.get("ok") is True:
                return words
            raise _helper_error(words.get("error"), self._where)

    def _lost(self) -> Exception:
        if self._lines.broken:
            return ProtocolError(f"{self._where}: {self._lines.broken}")
        return HostUnreachable(f"{self._where}: the helper is gone{self._lines.said()}")

    async def close(self) -> None:
        """End the helper: its standard input ends, and it with it."""
        self._lines.channel.close()


def _helper_error(said: Any, where: str) -> Exception:
    if not isinstance(said, dict):
        return ProtocolError(f"{where}: an answer without a result")
    listed = said.get("problems")
    fields = field_names(Problem)
    problems = [
        decode(Problem, {k: printable(str(v), 2000) for k, v in each.items() if k in fields})
        for each in (listed if isinstance(listed, list) else ())[:MOST_PROBLEMS]
        if isinstance(each, dict)
    ]
    code = printable(str(said.get("code", "failed")), 40)
    return HelperError(code, printable(str(said.get("message", "")), 2000), problems)


async def _start(connection: AsyncSSH, text: str) -> Lines:
    import asyncssh

    ssh = await connection.ready()
    argv = [*await connection.command_prefix(), connection.python, *FLAGS, text]
    try:
        async with asyncio.timeout(START_TIMEOUT):
            made: Any = Lines
            _, lines = await ssh.create_session(
                made, shlex.join(argv), encoding=None, term_type=None
            )
    except (asyncssh.Error, OSError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error or "no answer in time"
        raise HostUnreachable(f"{connection.hostname}: no channel: {reason}") from error
    started: Any = lines
    ours: Lines = started
    return ours


async def _first(lines: Lines, where: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            line = await lines.next()
    except TimeoutError:
        lines.channel.abort()
        raise HostUnreachable(f"{where}: the helper does not start: no answer in time") from None
    if line is None:
        raise _ended(lines, where)
    try:
        return parse(line, where)
    except ProtocolError:
        lines.channel.abort()
        raise


def _ended(lines: Lines, where: str) -> Exception:
    """Return why a program that was just started has ended without an answer."""
    if lines.broken:
        advice = "; its login shell must print nothing where no terminal is" if lines.noise else ""
        return ProtocolError(f"{where}: {lines.broken}{advice}")
    reason = lines.said().removeprefix(": ") or "it ended without a word"
    return _preflight({"fleet": "refused", "reason": reason}, where)


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
        ("exit status 127", "python3", "install python3, or name it with the extra python"),
        ("exit status 126", "python3 that runs", "see what the host has as its python3"),
        ("not root", "root", "log in as root, or as a user that sudo -n lets"),
        (
            "root alone",
            "a directory that root alone can enter",
            "see who made it; then chown root and chmod 0700 it",
        ),
        ("No space left", "space under /var/lib/fleet", "free some space"),
        ("Read-only file", "a writable /var/lib/fleet", "remount its file system writable"),
    ):
        if sign in reason:
            return _refusal(expected, reason, remedy)
    return _refusal("a helper that runs", reason, "run python3 on the host by hand")


def _refusal(expected: str, actual: str, remedy: str) -> HelperError:
    problem = Problem("host", "", expected, actual, remedy)
    return HelperError("preflight", f"expected {expected}, found: {actual}; {remedy}", [problem])


async def push(connection: AsyncSSH, archive: bundle.Archive) -> None:
    """Give a host an archive over a channel of its own; it takes the bytes only if it lacks them.

    Raises HelperError (code ``preflight``) where the host refuses it.
    """
    where = connection.hostname
    lines = await _start(
        connection, bootstrap.take_text(archive.name, len(archive.data), archive.kind)
    )
    try:
        async with asyncio.timeout(PUSH_TIMEOUT):
            while True:
                line = await lines.next()
                if line is None:
                    raise _ended(lines, where)
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
