"""The program that runs on the host: requests on stdin, answers on stdout, a JSON line each.

Nothing but answers goes to stdout, and never a traceback. Once a transaction is armed stdout does
not block any more: the peer may be gone, and the host comes first.
"""

from __future__ import annotations

import posix
import sys
import time

from fleet.host import wire
from fleet.host.kernel.system import System
from fleet.host.protocol import Session, carry_out
from fleet.host.transactions.files import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The longest request, in bytes, and the deepest.
LONGEST = 64 << 20
DEEPEST = 32
#: Bytes read at once; a larger buffer is one that malloc(3) asks the kernel for.
_PIECE = 1 << 16
#: Seconds an answer may wait for a peer that does not read, once a transaction is armed.
_PATIENCE = 5.0


class TooLong(Exception):
    """A request longer than LONGEST: what follows it cannot be told apart any more."""


class Channel:
    """The two pipes to the controller."""

    def __init__(self, read: int = 0, write: int = 1) -> None:
        self._read, self._write = read, write
        self._coming = b""
        self._going = b""
        self._open = True
        #: The request that events belong to.
        self.number: Any = None

    def receive(self) -> bytes | None:
        """Return the next line, None at the end; raises TooLong."""
        parts, size = [], 0
        while True:
            line, newline, rest = self._coming.partition(b"\n")
            parts.append(line)
            size += len(line)
            if size > LONGEST:
                raise TooLong
            if newline:
                self._coming = rest
                return b"".join(parts)
            self._coming = self._more()
            if not self._coming:
                return None

    def _more(self) -> bytes:
        while True:
            try:
                return posix.read(self._read, _PIECE)
            except BlockingIOError:
                import select

                # One socket for both directions: making one not block makes the other.
                select.select([self._read], [], [])
            except OSError:
                return b""

    def stop_blocking(self) -> None:
        """From now on drop what a full or closed pipe does not take."""
        try:
            posix.set_blocking(self._write, False)
        except OSError:
            self._open = False

    def event(self, words: dict[str, Any]) -> None:
        """Send an event, or drop it where it would have to wait."""
        if self._flush(0.0):
            self._going = _line({"id": self.number, **words})
            self._flush(0.0)

    def answer(self, words: dict[str, Any]) -> None:
        """Send an answer; wait a bounded time where the pipe is full."""
        self._flush(0.0)
        self._going += _line(words)
        self._flush(_PATIENCE)

    def _flush(self, budget: float) -> bool:
        """Write what is to go; a line once begun is never left out. Return whether all went."""
        end = time.monotonic() + budget
        while self._going and self._open:
            try:
                self._going = self._going[posix.write(self._write, self._going) :]
            except BlockingIOError:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                import select

                select.select([], [self._write], [], left)
            except OSError:
                self._open = False
        return not self._going


def _line(words: dict[str, Any]) -> bytes:
    return (wire.dumps(words) + "\n").encode("ascii")


def parse(line: bytes) -> Any:
    """Return a request; raises ValueError where it is no JSON, or deeper than DEEPEST."""
    value = wire.loads(line.decode("utf-8"))
    level = [value]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for each in level:
            inner = each.values() if isinstance(each, dict) else each
            deeper += [item for item in inner if isinstance(item, (dict, list))]
        if not deeper:
            return value
        level = deeper
    raise ValueError(f"nested deeper than {DEEPEST}")


def serve(session: Session, channel: Channel) -> int:
    """Answer requests until there are no more; return the exit code."""
    while True:
        try:
            line = channel.receive()
        except TooLong:
            _refuse(channel, f"a request has at most {LONGEST} bytes")
            return 1
        if line is None:
            return 0
        if not line.strip():
            continue
        try:
            request = parse(line)
        except (ValueError, TypeError) as error:
            _refuse(channel, f"not a request: {str(error)[:200]}")
            continue
        channel.number = request.get("id") if isinstance(request, dict) else None
        answer = carry_out(session, request, channel.event)
        if session.armed is not None:
            channel.stop_blocking()
        channel.answer(answer)


def _refuse(channel: Channel, message: str) -> None:
    error = {"code": "failed", "message": message, "problems": []}
    channel.answer({"id": None, "ok": False, "error": error})


def main(digest: str = "", system: System | None = None, paths: Paths | None = None) -> int:
    """Serve the controller at stdin and stdout; ``digest`` is the helper's own content hash."""
    _stay_private()
    # A prefix over everything a program of the host might be told by the login's environment.
    for name in list(posix.environ):
        if name.startswith((b"PYTHON", b"LD_")):
            del posix.environ[name]
            posix.unsetenv(name)
    session = Session(system or System(), paths or Paths(), digest)
    return serve(session, Channel())


def _stay_private() -> None:
    """Keep what fleet holds, in files and in memory, from everybody else: no core files."""
    import resource

    posix.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def unit_main(arguments: list[str]) -> int:
    """What a unit runs: ``recover [TRANSACTION | --at POINT]``, or ``boot`` and a phase."""
    _stay_private()
    if arguments[:1] == ["recover"]:
        from fleet.host.transactions.recover import main as recover

        return recover(arguments[1:])
    if arguments in (["boot", "early"], ["boot", "switch"], ["boot", "late"]):
        from fleet.host.transactions.boot import apply_committed

        return 1 if apply_committed(System(), Paths(), arguments[1]) else 0
    if arguments == ["boot", "prove"]:
        from fleet.host.transactions.first_boot import prove

        return prove(System(), Paths())
    sys.stderr.write(
        "usage: recover [TRANSACTION | --at POINT] | boot early | switch | late | prove\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
