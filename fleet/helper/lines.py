"""What a host sends, until it is understood: bounded, checked, made printable.

Whatever comes is hostile: lines and totals have limits, nesting has one, and what is no JSON ends
the channel at its first byte.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from typing import Any

from fleet.errors import ProtocolError
from fleet.printable import LONGEST_QUOTE, printable

#: The longest line and the most a session may send, in bytes; lines that nobody has read yet;
#: how deep an answer may be nested; how much of stderr is kept to tell why a helper ended.
LONGEST_LINE, LONGEST_SESSION, MOST_LINES = 16 << 20, 64 << 20, 10_000
DEEPEST, LONGEST_ERRORS = 64, 8192
#: Seconds between the end of a program's output and its own.
GRACE = 1.0


class Lines:
    """The receiving end: bytes in, lines out; an asyncssh client session."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = self._total = 0
        self._lines: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._errors = b""
        self._status = ""
        self._late: asyncio.TimerHandle | None = None
        #: Why nothing more is read; empty while all is well.
        self.broken = ""
        self.noise = False
        self.channel: Any = None
        self.ended = False

    def connection_made(self, channel: Any) -> None:
        self.channel = channel

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self.broken:
            return
        self._total += len(data)
        if datatype is not None:
            self._errors = (self._errors + data)[-LONGEST_ERRORS:]
        else:
            self._take(data)
        if self._total > LONGEST_SESSION or len(self._lines) > MOST_LINES:
            self.stop("it sends without end")

    def _take(self, data: bytes) -> None:
        self._buffer += data
        if not self._scanned and self._buffer and self._buffer[0] != ord("{"):
            seen = printable(self._buffer[:1000].decode("utf-8", "replace"))
            self.stop(f"not an answer of the helper: {seen!r}", noise=True)
            return
        begin, end = 0, self._buffer.find(b"\n", self._scanned)
        while end >= 0:
            self._lines.append(bytes(self._buffer[begin:end]))
            begin, end = end + 1, self._buffer.find(b"\n", end + 1)
        if begin:
            del self._buffer[:begin]
            self._wake()
        self._scanned = len(self._buffer)
        if self._scanned > LONGEST_LINE:
            self.stop(f"a line of more than {LONGEST_LINE >> 20} MiB")

    def stop(self, why: str, noise: bool = False) -> None:
        """Believe nothing more, and drop the channel."""
        self.broken = why
        self.noise = noise
        self._buffer = bytearray()
        self._lines.clear()
        self.channel.abort()
        self._end()

    def eof_received(self) -> bool:
        # The exit status follows, if the program does not only close its output.
        self._late = asyncio.get_running_loop().call_later(GRACE, self._end)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        self._end()

    def _end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes | None:
        """Return the next line, None at the end, again and again."""
        while not self._lines:
            if self.ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._lines.popleft()

    def exit_status_received(self, status: int) -> None:
        self._status = f" (exit status {status})" if status else ""

    def exit_signal_received(self, signal: str, *details: Any) -> None:
        self._status = f" (killed by SIG{printable(signal, 12)})"

    def said(self) -> str:
        """Return how the program ended and its last words, fit to be shown."""
        words = printable(self._errors.decode("utf-8", "replace").strip()[-LONGEST_QUOTE:])
        return self._status + (f": {words}" if words else "")

    def session_started(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def xon_xoff_requested(self, client_can_do: bool) -> None: ...


def parse(line: bytes, where: str) -> dict[str, Any]:
    """Return one line as a mapping, its texts printable; raises ProtocolError with what came."""
    words: Any
    try:
        words = json.loads(line, parse_constant=_no_number)
        _check_depth(line, words)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        seen = printable(line[:1000].decode("utf-8", "replace"))
        raise ProtocolError(f"{where}: not an answer of the helper: {seen!r}")
    if _SUSPECT.search(line):
        words = _printable_all(words)
    found: dict[str, Any] = words
    return found


#: What the helper never sends of itself: bytes beyond printable ASCII, escapes of controls.
_SUSPECT = re.compile(rb"[^\x20-\x7e]|\\[bfru]")


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _check_depth(line: bytes, value: Any) -> None:
    if line.count(b"{") + line.count(b"[") <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for each in level:
            inner = each.values() if isinstance(each, dict) else each
            deeper += [item for item in inner if isinstance(item, (dict, list))]
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nested deeper than {DEEPEST}")


def _printable_all(value: Any) -> Any:
    """Escape what would move a terminal's cursor in every text; lines and tabs are harmless."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join(
            c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
            for c in value
        )
    if isinstance(value, dict):
        return {_printable_all(key): _printable_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable_all(item) for item in value]
    return value
