"""Private files of root: made, read and replaced without following anything planted.

Every file fleet keeps on a host lies in a directory of mode 0700 that root owns. Reading and
writing still follow no symlink and accept no second hard link (a file that somebody else can
name is not ours), because the directory may have been made by someone else first.
"""

from __future__ import annotations

import errno
import posix
from _stat import S_ISREG

from fleet.host.planning.digest import sha256 as sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_NONBLOCK
_MAKE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_FOLDER = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
#: Bytes read at once; a larger buffer is one that malloc(3) asks the kernel for.
_PIECE = 1 << 16


class Paths:
    """Where fleet keeps things: ``state`` outlives a reboot, ``run`` does not."""

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.state = f"{root}/var/lib/fleet"
        self.run = f"{root}/run/fleet"
        self.journal = f"{self.state}/journal"

    def of(self, transaction: str) -> str:
        """Return the directory of a transaction's journal."""
        return f"{self.journal}/{valid_name(transaction)}"

    def live(self, transaction: str) -> str:
        """Return the directory of what only this boot needs of a transaction."""
        return f"{self.run}/{valid_name(transaction)}"


def valid_name(transaction: Any) -> str:
    """Return a transaction's name if it can name a directory; raises ValueError."""
    if (
        not isinstance(transaction, str)
        or not 1 <= len(transaction) <= 64
        or not transaction.isascii()
        or not transaction[0].isalnum()
        or not transaction.replace("-", "").replace("_", "").replace(".", "").isalnum()
        or transaction in ("lock", "lease")
    ):
        raise ValueError(f"{str(transaction)[:80]!r} cannot name a transaction")
    return transaction


def make_private(directory: str) -> None:
    """Make sure a directory exists, is root's alone and is no symlink; raises OSError."""
    import os  # an audit makes nothing, and does without it

    parent = os.path.dirname(directory)
    if not os.path.isdir(parent):
        os.makedirs(parent, 0o755, exist_ok=True)
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    folder = posix.open(directory, _FOLDER)
    try:
        status = posix.fstat(folder)
        if status.st_uid != posix.geteuid():
            raise OSError(errno.EPERM, f"owned by uid {status.st_uid}, not by root", directory)
        if status.st_mode & 0o077:
            posix.fchmod(folder, 0o700)
    finally:
        posix.close(folder)


def read(path: str) -> bytes:
    """Return a private file's content; raises OSError, EPERM where the file is not ours."""
    descriptor = posix.open(path, _READ)
    try:
        check_private(descriptor, path)
        parts: list[bytes] = []
        while True:
            part = posix.read(descriptor, _PIECE)
            if not part:
                return b"".join(parts)
            parts.append(part)
    finally:
        posix.close(descriptor)


def check_private(descriptor: int, path: str) -> None:
    """Raise OSError unless an open file is a plain one, root's alone, under one name only."""
    status = posix.fstat(descriptor)
    if not S_ISREG(status.st_mode):
        raise OSError(errno.EPERM, "not a regular file", path)
    if status.st_uid != posix.geteuid():
        raise OSError(errno.EPERM, f"owned by uid {status.st_uid}, not by root", path)
    if status.st_mode & 0o077:
        raise OSError(errno.EPERM, f"readable by others (mode {status.st_mode & 0o777:o})", path)
    if status.st_nlink != 1:
        raise OSError(errno.EPERM, f"has {status.st_nlink} hard links", path)


def create(path: str, data: bytes, mode: int = 0o600, sync: bool = True) -> None:
    """Write a new file, on the disk when this returns; raises OSError where it exists."""
    descriptor = posix.open(path, _MAKE, mode)
    try:
        posix.fchmod(descriptor, mode)
        write_all(descriptor, data)
        if sync:
            posix.fsync(descriptor)
    finally:
        posix.close(descriptor)
    if sync:
        sync_directory(_folder(path))


def replace(path: str, data: bytes, mode: int = 0o600, sync: bool = True) -> None:
    """Put a file in another's place in one step; raises OSError."""
    staged = f"{path}.new"
    remove(staged)
    create(staged, data, mode, sync)
    posix.rename(staged, path)
    if sync:
        sync_directory(_folder(path))


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[posix.write(descriptor, rest) :]


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def sync_directory(directory: str) -> None:
    """Bring a directory's entries to the disk; raises OSError."""
    folder = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        posix.fsync(folder)
    finally:
        posix.close(folder)


def seal(text: str) -> bytes:
    """Return a text with its checksum before it, as ``unseal`` takes it."""
    return f"fleet-sealed-1 {sha256(text)}\n{text}".encode("utf-8", "surrogatepass")


def unseal(data: bytes) -> str:
    """Return a sealed text; raises ValueError where even one bit is not as it was sealed."""
    head, newline, body = data.partition(b"\n")
    text = body.decode("utf-8", "surrogatepass")
    if not newline or head != f"fleet-sealed-1 {sha256(text)}".encode():
        raise ValueError("the checksum does not match")
    return text


def ended(directory: str) -> bool:
    """Whether the copy of a transaction's outcome beside its journal is there and whole."""
    try:
        unseal(read(f"{directory}/outcome"))
    except (OSError, ValueError):
        return False
    return True
