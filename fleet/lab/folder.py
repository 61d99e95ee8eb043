"""The folder of all labs, which the first one makes and the last one's end removes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LABS = Path("/run/fleet-lab")


def lock_labs() -> int:
    """Lock the folder of all labs, made if need be; return what to close to let go of it."""
    while True:
        LABS.mkdir(0o700, exist_ok=True)
        descriptor = os.open(LABS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The last lab's end removes the folder: what was locked may be gone.
        if _is_same(descriptor, LABS):
            return descriptor
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
