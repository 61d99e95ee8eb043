"""Shell patterns on names; ``fnmatch`` would import ``re`` and ``functools`` on a host."""

from __future__ import annotations


def matches(name: str, pattern: str) -> bool:
    """Say whether a whole name matches ``*``, ``?`` and ``[...]``, as fnmatch(3) does."""
    # One place to come back to is enough: a later * always covers what an earlier one could.
    at, star, resume = 0, -1, 0
    position = 0
    while position < len(name):
        step = _one(name[position], pattern, at) if at < len(pattern) else 0
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, position
            at += 1
        elif step:
            at += step
            position += 1
        elif star >= 0:
            at = star + 1
            resume += 1
            position = resume
        else:
            return False
    return not pattern[at:].strip("*")


def _one(character: str, pattern: str, at: int) -> int:
    """Return how much of the pattern one character uses up, 0 where it does not match."""
    here = pattern[at]
    if here == "?":
        return 1
    if here != "[":
        return int(here == character and here != "*")
    end = pattern.find("]", at + 2 + (pattern[at + 1 : at + 2] in ("!", "^")))
    if end < 0:
        return int(character == "[")
    choices = pattern[at + 1 : end]
    inverted = choices[:1] in ("!", "^")
    if inverted:
        choices = choices[1:]
    return (end + 1 - at) * int(_in(character, choices) != inverted)


def _in(character: str, choices: str) -> bool:
    at = 0
    while at < len(choices):
        if at + 2 < len(choices) and choices[at + 1] == "-":
            if choices[at] <= character <= choices[at + 2]:
                return True
            at += 3
        else:
            if choices[at] == character:
                return True
            at += 1
    return False


def any_matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a name matches one of several patterns."""
    return any(matches(name, pattern) for pattern in patterns)
