"""Fencing: whatever may still change the host is dead before the host is put back.

What applies a plan leads a session of its own and, where a writable cgroup v2 exists, sits in a
cgroup of its own. Both are recorded; killing goes by the cgroup, by the session and by the pid
together with its start time, so that a reused pid is never hit.
"""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIGKILL = 9
#: Where fleet's cgroups are, below the root of the unified hierarchy.
_FOLDER = "fleet"


def stat_of(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command (proc(5)), None if there is none."""
    text = _text(f"/proc/{pid}/stat")
    if not text:
        return None
    return text[text.rfind(")") + 2 :].split()


def _text(path: str) -> str:
    """A file of /proc or a cgroup, empty where it cannot be read; no codec has to be loaded."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def identity(pid: int) -> list[int]:
    """Return [pid, start time in ticks since boot]; [pid, 0] where there is no such process."""
    fields = stat_of(pid)
    return [pid, int(fields[19]) if fields else 0]


def alive(who: Any) -> bool:
    """Return whether the very process of an identity still runs; a zombie does not."""
    if not who or not who[0]:
        return False
    fields = stat_of(int(who[0]))
    return bool(fields) and int(fields[19]) == who[1] and fields[0] not in "ZX"  # type: ignore[index]


def unified_root() -> str:
    """Return where cgroup v2 is mounted writable for us, or an empty string."""
    for line in _text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            fields = left.split()
            if "rw" in fields[5].split(",") and os.access(fields[4], os.W_OK):
                return fields[4]
    return ""


def enter(name: str) -> str:
    """Move this process into a cgroup of its own; return its path, empty where none can be had."""
    root = unified_root()
    if not root:
        return ""
    path = f"{root}/{_FOLDER}/{name}"
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        write(f"{path}/cgroup.procs", str(os.getpid()))
    except OSError:
        return ""
    return path


def write(path: str, text: str) -> None:
    """Write a text to a file of /proc, /sys or a cgroup; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def members(cgroup: str, session: Any, spare: tuple[int, ...] = ()) -> list[list[int]]:
    """Return the identities of all that is fenced in: the cgroup's and the session's processes."""
    pids = set(_in_cgroup(cgroup)) | set(_in_session(session))
    found = [identity(pid) for pid in sorted(pids - set(spare)) if pid]
    return [who for who in found if alive(who)]


def _in_cgroup(cgroup: str) -> list[int]:
    if not cgroup:
        return []
    return [int(line) for line in _text(f"{cgroup}/cgroup.procs").split()]


def _in_session(session: Any) -> list[int]:
    """The kernel gives no new process a pid that still names a session (kernel/pid.c), so what
    has this session id is ours unless its leader is another process than ours."""
    if not session or not session[0]:
        return []
    leader = stat_of(session[0])
    if leader and int(leader[19]) != session[1]:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_of(int(name))
            if fields and int(fields[3]) == session[0]:
                found.append(int(name))
    return found


def kill(who: list[int]) -> None:
    """Kill the very process of an identity, a stopped one too."""
    import signal  # with enum, 3 ms that an audit does not need

    try:
        descriptor = os.pidfd_open(who[0])
    except OSError:
        return
    try:
        # The descriptor holds the pid: alive() now speaks of the process it stands for.
        if alive(who):
            signal.pidfd_send_signal(descriptor, SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def kill_all(
    cgroup: str, session: Any, budget: float = 10.0, spare: tuple[int, ...] = ()
) -> list[list[int]]:
    """Kill everything fenced in and wait until nothing is left.

    ``budget`` is seconds. Returns what is left after it: a process inside an uninterruptible
    system call, which ends with that call and never runs a line of its own again.
    """
    deadline = time.monotonic() + budget
    pause = 0.001
    while True:
        if cgroup and not spare:
            try:
                write(f"{cgroup}/cgroup.kill", "1")  # since Linux 5.14
            except OSError:
                pass
        left = members(cgroup, session, spare)
        if not left or time.monotonic() > deadline:
            return left
        for who in left:
            kill(who)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def sweep(name: str) -> None:
    """Remove the cgroup of a process that has ended; it could not do so itself."""
    root = unified_root()
    if root:
        leave(f"{root}/{_FOLDER}/{name}")


def leave(cgroup: str) -> None:
    """Remove an empty cgroup."""
    if cgroup:
        try:
            os.rmdir(cgroup)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                raise
