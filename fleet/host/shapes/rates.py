"""Rates, sizes and times in the words of tc(8), and back; pure, and light enough for a host."""

from __future__ import annotations

#: Bits per second; a word with ``bps`` counts bytes (iproute2, tc/tc_util.c, get_rate).
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
RATES = {f"{word}bit": times for word, times in {**_PREFIXES, **_BINARY}.items()}
RATES.update({f"{word}bps": 8 * times for word, times in {**_PREFIXES, **_BINARY}.items()})
RATES[""] = 1
#: Bytes; tc's prefixes of sizes are binary.
SIZES = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}
#: Microseconds.
TIMES = {"us": 1, "usec": 1, "ms": 10**3, "msec": 10**3, "s": 10**6, "sec": 10**6}

#: What fits into the kernel's message without the 64-bit attributes' own limits mattering.
MOST_RATE = 10**12


def _parse(text: str, units: dict[str, int], what: str) -> float:
    low = text.strip().lower()
    digits = low.rstrip("abcdefghijklmnopqrstuvwxyz")
    whole, dot, part = digits.partition(".")
    known = digits.isascii() and whole.isdigit() and (part.isdigit() or not dot)
    if not known or low[len(digits) :] not in units:
        raise ValueError(f"{text!r} is not {what}")
    return float(digits) * units[low[len(digits) :]]


def bytes_per_second(text: str) -> int:
    """Return a rate such as ``100mbit`` in bytes per second; raises ValueError."""
    rate = round(_parse(text, RATES, "a rate such as 100mbit or 512kbit") / 8)
    if not 1 <= rate <= MOST_RATE:
        raise ValueError(f"{text!r} is not a rate from 8bit to 8tbit")
    return rate


def size(text: str) -> int:
    """Return a size such as ``64kb`` in bytes; raises ValueError."""
    found = round(_parse(text, SIZES, "a size such as 64kb or 1mb"))
    if not 1 <= found < 2**31:
        raise ValueError(f"{text!r} is not a size from 1b to 2gb")
    return found


def microseconds(text: str) -> int:
    """Return a time such as ``50ms`` in microseconds; raises ValueError."""
    found = round(_parse(text, TIMES, "a time such as 50ms"))
    if not 1 <= found <= 60 * 10**6:
        raise ValueError(f"{text!r} is not a time from 1us to 60s")
    return found


def _words(value: int, units: tuple[tuple[str, int], ...]) -> str:
    for word, times in units:
        if value % times == 0 and value >= times:
            return f"{value // times}{word}"
    return f"{value}{units[-1][0]}"


def rate_words(rate: int) -> str:
    """Return bytes per second as a text that ``bytes_per_second`` takes."""
    units = tuple((f"{word}bit", _PREFIXES[word]) for word in ("t", "g", "m", "k", ""))
    return _words(rate * 8, units)


def size_words(number: int) -> str:
    """Return bytes as a text that ``size`` takes."""
    return _words(number, (("mb", 2**20), ("kb", 2**10), ("b", 1)))


def time_words(number: int) -> str:
    """Return microseconds as a text that ``microseconds`` takes."""
    return _words(number, (("s", 10**6), ("ms", 10**3), ("us", 1)))
