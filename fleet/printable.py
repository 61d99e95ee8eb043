"""What a host says, made fit to be shown."""

from __future__ import annotations

#: The longest text of a host that is quoted.
LONGEST_QUOTE = 300


def printable(text: str, limit: int = LONGEST_QUOTE) -> str:
    """Return a host's text with control characters escaped, cut to a length."""
    cut = text[: limit + 1]
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return clean if len(text) <= limit and len(clean) <= 4 * limit else clean[:limit] + "…"
