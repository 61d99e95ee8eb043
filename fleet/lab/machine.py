"""The one thing that a large lab has to borrow from the machine: room for neighbours.

The kernel counts the neighbours of all namespaces in one table (net/core/neighbour.c); at its
default of 1024, a lab of a thousand hosts loses packets while it waits for entries. The limits are
raised while such a lab is up and put back with the last lab's end.
"""

from __future__ import annotations

import json
from pathlib import Path

_LIMITS = tuple(Path(f"/proc/sys/net/ipv4/neigh/default/gc_thresh{n}") for n in (1, 2, 3))
#: A lab of this many hosts fits besides whatever else the machine talks to.
_FITS = 300
#: Each host knows its gateway, and is known by the router, in both families.
_PER_HOST = 8


def make_room(hosts: int, memory: Path) -> None:
    """Raise the limits for a lab of so many hosts, and remember in a file what they were."""
    if hosts <= _FITS:
        return
    try:
        now = [int(path.read_text()) for path in _LIMITS]
        wanted = [max(value, hosts * _PER_HOST) for value in now]
        if now != wanted:
            if not memory.exists():
                memory.write_text(json.dumps(now))
            _write(wanted)
    except OSError:
        # Inside a container the limits are the machine's own: large labs are slower there.
        return


def give_back(memory: Path) -> None:
    """Put the limits back as the file says, if they were raised."""
    try:
        before = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return
    _write(before)
    memory.unlink()


def _write(values: list[int]) -> None:
    for path, value in zip(_LIMITS, values, strict=True):
        path.write_text(str(value))
