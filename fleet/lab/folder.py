"""The folder of all labs, which the first one makes and the last one's end removes; its locks.

A lab's own lock is held for as long as it goes up or down, which takes virtual machines a while;
that of the folder only while a lab enters it or leaves it, so that no lab waits for another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LABS = Path("/run/fleet-lab")


@contextmanager
def lock_labs() -> Iterator[None]:
    """Hold the lock of the folder of all labs, made if need be."""
    while True:
        LABS.mkdir(0o700, exist_ok=True)
        with _locked(LABS, os.O_RDONLY | os.O_DIRECTORY) as same:
            if same:
                yield
                return


@contextmanager
def lock_lab(name: str) -> Iterator[None]:
    """Hold the lock of one lab, so that its ups and downs do not meet."""
    path = LABS.with_name(f"{LABS.name}.{name}.lock")
    while True:
        with _locked(path, os.O_RDWR | os.O_CREAT) as same:
            if same:
                try:
                    yield
                finally:
                    path.unlink()
                return


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[bool]:
    """Lock a file or folder; yield whether it still has its name: the last holder removes it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _is_same(descriptor, path)
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
