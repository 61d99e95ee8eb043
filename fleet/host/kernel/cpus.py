"""Sets of CPUs: lists (``0-3,8``) as people write them, and masks as parts of /sys do."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleet.host.kernel.system import System

ONLINE = "/sys/devices/system/cpu/online"
#: Of a word of 32 bits.
_DIGITS = 8


def members(text: str) -> set[int]:
    """Return a set written as libvirt and the kernel do (``0-3,^2``); raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.lstrip("^").partition("-")
        numbers = range(int(first), int(last or first) + 1)
        found = found - {*numbers} if part.startswith("^") else found | {*numbers}
    return found


def words(numbers: Iterable[int]) -> str:
    """Return a set of numbers in their form."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if low < high else str(low) for low, high in ranges)


def of_mask(text: str) -> set[int]:
    """Return the CPUs of a mask such as ``00000001,0000000f`` (lib/bitmap.c, %*pb)."""
    number = int(text.replace(",", "") or "0", 16)
    return {bit for bit in range(number.bit_length()) if number >> bit & 1}


def mask(numbers: Iterable[int]) -> str:
    """Return a mask of CPUs in words of 32 bits, as bitmap_parse() takes it."""
    text = f"{sum(1 << bit for bit in set(numbers)):x}"
    parts = [text[max(0, end - _DIGITS) : end] for end in range(len(text), 0, -_DIGITS)]
    return ",".join(reversed(parts))


def online(system: System) -> set[int]:
    """Return the CPUs that are on."""
    return members((system.read(ONLINE) or "").strip())


def spread(numbers: set[int], queues: Iterable[int]) -> dict[int, int]:
    """Return a CPU for each queue, one after the other, and from the start where they run out."""
    ordered = sorted(numbers)
    return {queue: ordered[place % len(ordered)] for place, queue in enumerate(sorted(queues))}
