"""The only door from fleet to a host: netlink, programs, /proc and /sys, the clock."""

from __future__ import annotations

import errno
import posix
import time

from fleet.host.kernel.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What programs of a host run with: the same everywhere, whatever the login's environment was.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
    "LC_ALL": "C",
    "LANG": "C",
    "HOME": "/",
}
NAMESPACES = "/run/netns"
_CLONE_NEWNET = 0x40000000
_GETNSID = 90
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO)
#: net.ipv6.conf.*.stable_secret before it is set, keys that can only be written.
_UNREADABLE = (*_ABSENT, errno.EIO, errno.EINVAL, errno.EACCES, errno.EPERM)


#: What stands for the exit code of a program that did not end in time.
LATE = -1


class Completed:
    """What a program did: exit code, and its output as text."""

    def __init__(self, argv: list[str], code: int, out: str, err: str) -> None:
        self.argv, self.code, self.out, self.err = argv, code, out, err


class CommandError(Exception):
    """A program of the host failed, could not be started, or did not end in time."""

    def __init__(self, completed: Completed, reason: str) -> None:
        super().__init__(f"{' '.join(completed.argv)}: {reason}")
        self.completed = completed


class System:
    """A host, seen from one of its network namespaces.

    ``namespace`` is the name under /run/netns, a path of a namespace file, or empty for the
    namespace this process is in. ``root`` is put before every path that is read or written.
    """

    def __init__(self, namespace: str = "", root: str = "") -> None:
        self.namespace = namespace
        self.root = root
        self._netlink: dict[int, Netlink] = {}
        self._route: Any = None
        self._others: dict[str, System] = {namespace: self}

    def at(self, namespace: str) -> System:
        """Return the door to another namespace of the same host, always the same one."""
        found = self._others.get(namespace)
        if found is None:
            found = System(namespace, self.root)
            found._others = self._others
            self._others[namespace] = found
        return found

    def close(self) -> None:
        """Close the sockets of all namespaces; they open again when they are next asked for."""
        for door in self._others.values():
            door.shut()

    def shut(self) -> None:
        """Close the sockets of this namespace alone: an open one keeps a namespace alive."""
        for netlink in self._netlink.values():
            netlink.close()
        self._netlink.clear()
        if self._route is not None:
            self._route.close()
            self._route = None

    @property
    def netlink(self) -> Netlink:
        """The plain rtnetlink socket in this namespace."""
        return self.netlink_of(0)

    def netlink_of(self, protocol: int) -> Netlink:
        """Return the plain netlink socket of another protocol in this namespace."""
        found = self._netlink.get(protocol)
        if found is None:
            with self.enter():
                found = self._netlink[protocol] = Netlink(protocol)
        return found

    @property
    def route(self) -> Any:
        """pyroute2's IPRoute in this namespace: for applying only, its import takes 200 ms."""
        if self._route is None:
            from pyroute2.iproute.linux import IPRoute

            with self.enter():
                opened: Callable[[], Any] = IPRoute
                self._route = opened()
        return self._route

    def enter(self) -> Inside:
        """Return a context in which the calling thread is in this namespace."""
        return Inside(self.namespace)

    def exists(self) -> bool:
        """Say whether this namespace exists."""
        return not self.namespace or exists(path_of_namespace(self.namespace))

    def run(
        self,
        argv: list[str],
        input: str | bytes | None = None,
        timeout: float = 30,
        check: bool = True,
    ) -> Completed:
        """Run a program in this namespace and return what it did.

        ``timeout`` is in seconds. Raises CommandError where it cannot be started, does not end in
        time, or, with ``check``, ends with another code than 0.
        """
        import subprocess

        data = input.encode() if isinstance(input, str) else input
        source: dict[str, Any] = {"input": data}
        if data is None:
            source = {"stdin": subprocess.DEVNULL}
        try:
            with self.enter():
                done = subprocess.run(
                    argv, capture_output=True, timeout=timeout, env=ENVIRONMENT, cwd="/", **source
                )
        except OSError as error:
            raise CommandError(Completed(argv, 127, "", str(error)), str(error)) from error
        except subprocess.TimeoutExpired as error:
            late = f"it did not end within {timeout:g} s"
            raise CommandError(Completed(argv, LATE, "", late), late) from error
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        completed = Completed(argv, done.returncode, out, err)
        if check and done.returncode:
            raise CommandError(completed, err.strip() or out.strip() or f"exit {done.returncode}")
        return completed

    def id_in(self, other: System) -> int | None:
        """Return the number by which another namespace knows this one, None without one."""
        from fleet.host.kernel.netlink import attributes, number, pack_u32

        place = path_of_namespace(self.namespace) if self.namespace else "/proc/thread-self/ns/net"
        try:
            here = posix.open(place, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return None  # deleted meanwhile
        try:
            # struct rtgenmsg, NETNSA_FD (include/uapi/linux/net_namespace.h)
            answers = other.netlink.get(_GETNSID, bytes(4) + pack_u32(3, here))
        except OSError:
            return None  # a file that is no namespace
        finally:
            posix.close(here)
        for _, payload in answers:
            value = number(attributes(payload, 4).get(1, b""))
            return None if value == 0xFFFFFFFF else value
        return None

    def read(self, path: str) -> str | None:
        """Return a file's text, None where there is no such file; raises OSError."""
        try:
            with self.enter():
                return _read(self.root + path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def write(self, path: str, text: str) -> None:
        """Write a text to a file of /proc or /sys in one write; raises OSError."""
        with self.enter():
            descriptor = posix.open(self.root + path, posix.O_WRONLY | posix.O_CLOEXEC)
            try:
                posix.write(descriptor, text.encode("utf-8", "surrogateescape"))
            finally:
                posix.close(descriptor)

    def writable(self, path: str) -> bool:
        """Say whether a file of /proc or /sys may be written, without writing it."""
        with self.enter():
            return posix.access(self.root + path, posix.W_OK)

    def sysctl(self, name: str) -> str | None:
        """Return a key's value; None where this kernel has no such key or will not show it."""
        path = path_of_sysctl(name)
        if path is None:
            return None
        try:
            with self.enter():
                return _read(self.root + path).rstrip("\n")
        except OSError as error:
            if error.errno in _UNREADABLE:
                return None
            raise

    def set_sysctl(self, name: str, value: str) -> None:
        """Write a key's value; raises OSError, FileNotFoundError where there is no such key."""
        path = path_of_sysctl(name)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, posix.strerror(errno.ENOENT), name)
        self.write(path, value + "\n")

    def boottime(self) -> float:
        """Return seconds since boot, time asleep included (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        """Return the kernel's name of this boot."""
        return _read(self.root + "/proc/sys/kernel/random/boot_id").strip()


class Inside:
    """The calling thread in another network namespace, until the block ends."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._back = -1

    def __enter__(self) -> None:
        if not self._namespace:
            return
        there = posix.open(path_of_namespace(self._namespace), posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            self._back = posix.open("/proc/thread-self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                setns(there)
            except BaseException:
                posix.close(self._back)
                self._back = -1
                raise
        finally:
            posix.close(there)

    def __exit__(self, *failure: object) -> None:
        if self._back >= 0:
            back, self._back = self._back, -1
            try:
                setns(back)
            finally:
                posix.close(back)


_setns: Callable[[int, int], int] | None = None


def setns(descriptor: int) -> None:
    """Move the calling thread into the network namespace of a descriptor; raises OSError."""
    global _setns
    own = getattr(posix, "setns", None)  # Python 3.12; ctypes costs 4 ms, only inside a namespace
    if own is not None:
        own(descriptor, _CLONE_NEWNET)
        return
    import ctypes

    if _setns is None:
        _setns = ctypes.CDLL(None, use_errno=True).setns
    if _setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number))


def exists(path: str) -> bool:
    """Say whether there is something at a path."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def path_of_namespace(namespace: str) -> str:
    """Return the file of a namespace: a name's under /run/netns, a path as it is."""
    return namespace if "/" in namespace else f"{NAMESPACES}/{namespace}"


def path_of_sysctl(name: str) -> str | None:
    """Return the file of a key, None for what cannot be one.

    As in sysctl(8) the first separator decides: ``net.ipv4.conf.eth0/1.forwarding`` and
    ``net/ipv4/conf/eth0.1/forwarding`` are the same key.
    """
    parts = name.split("/")
    if "." in parts[0]:
        parts = [part.replace("/", ".") for part in name.split(".")]
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        return None
    return "/proc/sys/" + "/".join(parts)


def _read(path: str) -> str:
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        chunks: list[bytes] = []
        while True:
            chunk = posix.read(descriptor, 65536)
            if not chunk:
                return b"".join(chunks).decode("utf-8", "surrogateescape")
            chunks.append(chunk)
    finally:
        posix.close(descriptor)
