"""Locks of a host: one operation at a time, and one process that settles a transaction.

A lock is a flock, so it ends with its holder however that dies. The file says who holds it, for
the refusal; a holder that is stopped and holds a settlement up is killed by whoever waits.
"""

from __future__ import annotations

import fcntl
import os
import time

from fleet.host import wire
from fleet.host.transactions import fence, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Held(Exception):
    """Somebody else holds the lock; ``holder`` is what they wrote about themselves."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__("the lock is held")
        self.holder = holder


class Lock:
    """A flock on a private file, to be used as a context manager or released by hand."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1

    def take(self, budget: float = 0.0, **about: Any) -> Lock:
        """Take the lock within that many seconds; raises Held, or OSError on a planted file.

        ``about`` is written into the file beside the holder's identity.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            files.check_private(descriptor, self.path)
            self._wait(descriptor, budget)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        holder = {"holder": fence.identity(os.getpid()), "since": _boottime(), **about}
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, wire.dumps(holder).encode("ascii"), 0)
        except OSError:
            pass  # the lock holds without its label; a full /run must not stop a revert
        return self

    def _wait(self, descriptor: int, budget: float) -> None:
        deadline = time.monotonic() + budget
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Held(self.holder()) from None
            time.sleep(0.005)

    def take_by_force(self, patience: float, **about: Any) -> Lock:
        """Take the lock; a holder that does not let go within ``patience`` seconds is killed."""
        while True:
            try:
                return self.take(patience, **about)
            except Held as held:
                who = held.holder.get("holder")
                if isinstance(who, list) and who[0] != os.getpid():
                    fence.kill(who)

    def holder(self) -> dict[str, Any]:
        """Return what the holder wrote; empty where that cannot be read."""
        try:
            value = wire.loads(files.read(self.path).decode("ascii"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def release(self) -> None:
        """Let go; harmless where it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.release()


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
