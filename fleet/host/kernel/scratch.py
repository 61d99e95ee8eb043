"""A network namespace of the moment, for asking the kernel what it would make of something."""

from __future__ import annotations

import os
import signal

from fleet.host.kernel.system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_CLONE_NEWNET = 0x40000000


class Scratch:
    """A new namespace, held by a child process and gone with it; ``system`` is the door to it.

    Raises OSError where the kernel refuses another namespace.
    """

    system: System

    def __enter__(self) -> System:
        ready, told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _hold(ready, told)
        os.close(told)
        answer = os.read(ready, 16)
        os.close(ready)
        if answer != b"ready":
            self._end()
            number = int(answer or b"1")
            raise OSError(number, os.strerror(number))
        self.system = System(f"/proc/{self.pid}/ns/net")
        return self.system

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.system.close()
        self._end()

    def _end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _hold(ready: int, told: int) -> None:
    """Be the child: unshare, say so, and hold the namespace until killed or orphaned."""
    try:
        os.close(ready)
        unshare()
        os.write(told, b"ready")
        # PR_SET_PDEATHSIG would follow the thread that forked; an orphan ends by itself instead.
        parent = os.getppid()
        while os.getppid() == parent:
            signal.sigtimedwait([signal.SIGTERM], 0.5)
    except OSError as error:
        os.write(told, str(error.errno).encode())
    finally:
        os._exit(0)


def unshare() -> None:
    """Move this process into a new network namespace; raises OSError."""
    own = getattr(os, "unshare", None)  # Python 3.12
    if own is not None:
        own(_CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
