"""The system calls of namespaces(7) and mount(2), which Python 3.11's ``os`` lacks."""

from __future__ import annotations

import ctypes
import os

#: include/uapi/linux/sched.h
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWPID, NEWNET = 0x20000000, 0x40000000

#: include/uapi/linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND = 1, 2, 4, 8, 32, 4096
REC, PRIVATE = 16384, 1 << 18
DETACH = 2

#: Not in libc: the number of pivot_root by machine.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this thread (for NEWPID: its next children) into new namespaces; raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move this thread into the namespace of a descriptor; raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def enter(path: str, kind: int) -> None:
    """Move this thread into the namespace of a file such as /proc/PID/ns/net; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, kind)
    finally:
        os.close(descriptor)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; raises OSError that names the target."""
    arguments = [text.encode() if text else None for text in (source, target, kind)]
    data = options.encode() if options else None
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {kind or source} {target}")


def unmount(target: str, flags: int = DETACH) -> None:
    """Take a mount away, lazily unless flags say otherwise; raises OSError."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def change_root(new: str) -> None:
    """Make a mount point the root of this mount namespace and let go of the old one."""
    os.chdir(new)
    number = _PIVOT_ROOT[os.uname().machine]
    # "." twice: the old root is stacked below the new one, and goes (pivot_root(2), NOTES).
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."), f"pivot_root {new}")
    unmount(".")
    os.chdir("/")


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace; raises OSError."""
    text = name.encode()[:64]
    _check(_libc.sethostname(text, ctypes.c_size_t(len(text))), "sethostname")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2))."""
    _check(_libc.prctl(1, ctypes.c_ulong(9), 0, 0, 0), "prctl")
