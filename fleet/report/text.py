"""Text for a terminal: cleaned of what a host could smuggle in, coloured where one looks at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

#: Controls of C0 and C1, line separators and the bidirectional overrides (UAX #9): each of them
#: can make a terminal show something else than what was sent.
_UNSAFE = {
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
    0xFEFF,
}
_ESCAPES = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _UNSAFE}
_ESCAPES |= {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}

#: The order in which ip-route(8) says what a route has.
WORDS = ("via", "dev", "table", "metric", "src", "scope", "mtu")
#: Longer values than this say nothing more to a reader; JSON has them whole.
LONGEST = 200


def clean(value: object, longest: int = LONGEST) -> str:
    """Return a value as one line that is safe to print: controls escaped, too long cut short."""
    text = value if isinstance(value, str) else str(value)
    text = text.translate(_ESCAPES)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def value(data: Any) -> str:
    """Return a value of an intent as an operator writes it in YAML, on one line."""
    if data is None:
        return "none"
    if data is True or data is False:
        return "true" if data else "false"
    if isinstance(data, float) and data.is_integer():
        return str(int(data))
    if isinstance(data, dict) and data.get("to", data.get("address")) is not None:
        # A route or an address as ip(8) writes it: default via 198.51.100.1 table 100.
        first = "to" if "to" in data else "address"
        known = [key for key in WORDS if key in data]
        order = [*known, *(key for key in data if key not in known and key != first)]
        rest = (f"{clean(key)} {value(data[key])}" for key in order if data[key] is not None)
        return " ".join([value(data[first]), *rest])
    if isinstance(data, dict):
        return (
            ", ".join(f"{clean(k)}: {value(v)}" for k, v in data.items() if v is not None) or "{}"
        )
    if isinstance(data, (list, tuple)):
        return f"[{', '.join(value(item) for item in data)}]"
    return clean(data)


def block(text: str, most: int) -> list[str]:
    """Return a text's lines as they are, safe to print; what is beyond ``most`` is counted."""
    lines = [clean(line.replace("\t", "  ")) for line in text.rstrip("\n").split("\n")]
    if most and len(lines) > most:
        return [*lines[:most], f"… {len(lines) - most} more lines; --verbose shows them"]
    return lines


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 host`` or ``2 hosts``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names joined by commas, the rest counted: ``a, b and 4 more``; 0 lists them all."""
    cleaned = [clean(name, 80) for name in names]
    if most and len(cleaned) > most:
        return f"{', '.join(cleaned[:most])} and {len(cleaned) - most} more"
    return ", ".join(cleaned)


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: ``45 s``, ``2 min 5 s``, ``3 h 10 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole // 60, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


class Paint:
    """Colours by meaning; plain text where nobody looks."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def _paint(self, codes: str, text: str) -> str:
        return f"\x1b[{codes}m{text}\x1b[0m" if self.on else text

    def added(self, text: str) -> str:
        """Paint what comes, and what is well."""
        return self._paint("32", text)

    def removed(self, text: str) -> str:
        """Paint what goes, and what failed."""
        return self._paint("31", text)

    def changed(self, text: str) -> str:
        """Paint what changes, and what asks for attention."""
        return self._paint("33", text)

    def strong(self, text: str) -> str:
        """Paint a heading."""
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        """Paint what may be skipped."""
        return self._paint("2", text)


def colourful(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that wants colour (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint_for(stream: TextIO | None = None) -> Paint:
    """Return the paint for a stream, by default stdout."""
    return Paint(colourful(stream or sys.stdout))


def table(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> list[str]:
    """Return rows as aligned lines, two spaces between columns; cells are cleaned already."""
    everything = [list(heads), *map(list, rows)] if heads else [list(row) for row in rows]
    if not everything:
        return []
    columns = max(map(len, everything))
    widths = [
        max((len(row[i]) for row in everything if i < len(row)), default=0) for i in range(columns)
    ]
    return [
        "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()
        for row in everything
    ]


def fold(texts: Iterable[tuple[str, tuple[str, ...]]]) -> list[tuple[list[str], tuple[str, ...]]]:
    """Group hosts whose text is the same, in the order in which each text first appears."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, lines in texts:
        groups.setdefault(lines, []).append(host)
    return [(hosts, lines) for lines, hosts in groups.items()]
