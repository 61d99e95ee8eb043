"""Located data: what the YAML files say, with the file, line and column of every value.

A tree is never changed once made, so a merge shares the parts that one layer alone wrote, and what
was worked out for a part once (validation, above all) holds for every host that shares it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Where a value is in the data: keys, and indexes into lists.
Path = tuple[str | int, ...]
#: What is somewhere inside a node.
NULLS, TEMPLATES = 1, 2

_COLUMN_BITS = 16
_COLUMN_MAX = (1 << _COLUMN_BITS) - 1


class Place(NamedTuple):
    """Where something is written; lines and columns count from 1, 0 is unknown."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def packed(line: int, column: int) -> int:
    """Return a position, both parts counted from 0, as one number: a tree holds very many."""
    return (line + 1) << _COLUMN_BITS | min(column + 1, _COLUMN_MAX)


class Node:
    """A value and its place; ``key_at`` is the place of its key, 0 in a list."""

    __slots__ = ("at", "file", "key_at")

    def __init__(self, file: str, at: int, key_at: int = 0) -> None:
        self.file, self.at, self.key_at = file, at, key_at

    @property
    def place(self) -> Place:
        """Where the value starts."""
        return Place(self.file, self.at >> _COLUMN_BITS, self.at & _COLUMN_MAX)

    @property
    def key_place(self) -> Place:
        """Where the value's key starts, or the value itself where it has none."""
        at = self.key_at or self.at
        return Place(self.file, at >> _COLUMN_BITS, at & _COLUMN_MAX)

    @property
    def flags(self) -> int:
        """NULLS and TEMPLATES, where the value is or holds one."""
        raise NotImplementedError

    def under(self, key_at: int) -> Node:
        """Return the same value under another key: what an alias is."""
        raise NotImplementedError


class Scalar(Node):
    """A text as written; ``plain`` where it stood without quotes or tag."""

    __slots__ = ("plain", "text")

    def __init__(self, text: str, plain: bool, file: str, at: int, key_at: int = 0) -> None:
        super().__init__(file, at, key_at)
        self.text, self.plain = text, plain

    @property
    def null(self) -> bool:
        """Whether this is YAML's null."""
        return self.plain and self.text in _NULL

    @property
    def flags(self) -> int:
        if "{" in self.text and is_template(self.text):
            return TEMPLATES
        return NULLS if self.null else 0

    def under(self, key_at: int) -> Scalar:
        return Scalar(self.text, self.plain, self.file, self.at, key_at)


class Mapping(Node):
    """Keys and values, in the order written."""

    __slots__ = ("_flags", "entries")

    def __init__(self, entries: dict[str, Node], file: str, at: int, key_at: int = 0) -> None:
        super().__init__(file, at, key_at)
        self.entries, self._flags = entries, _flags_of(entries.values())

    @property
    def flags(self) -> int:
        return self._flags

    def under(self, key_at: int) -> Mapping:
        return Mapping(self.entries, self.file, self.at, key_at)

    def get(self, key: str) -> Node | None:
        """Return a value, or None."""
        return self.entries.get(key)


class Sequence(Node):
    """A list."""

    __slots__ = ("_flags", "items")

    def __init__(self, items: list[Node], file: str, at: int, key_at: int = 0) -> None:
        super().__init__(file, at, key_at)
        self.items, self._flags = items, _flags_of(items)

    @property
    def flags(self) -> int:
        return self._flags

    def under(self, key_at: int) -> Sequence:
        return Sequence(self.items, self.file, self.at, key_at)


def _flags_of(nodes: object) -> int:
    flags = 0
    for node in nodes:  # type: ignore[attr-defined]
        flags |= node.flags
    return flags


def is_template(text: str) -> bool:
    """Return whether Jinja2 would do anything with a text."""
    return "{{" in text or "{%" in text or "{#" in text


_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEAN = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
# YAML 1.2.2, section 10.3.2: the core schema. No sexagesimals, no yes and no, no 1_000.
_NUMBER = re.compile(
    r"(?P<decimal>[-+]?[0-9]+)|(?P<octal>0o[0-7]+)|(?P<hex>0x[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)"
)
_CONSTANT = {
    ".inf": "inf",
    ".Inf": "inf",
    ".INF": "inf",
    "+.inf": "inf",
    "+.Inf": "inf",
    "+.INF": "inf",
    "-.inf": "-inf",
    "-.Inf": "-inf",
    "-.INF": "-inf",
    ".nan": "nan",
    ".NaN": "nan",
    ".NAN": "nan",
}
_LONGEST_NUMBER = 400


def resolve(scalar: Scalar) -> object:
    """Return the value that YAML 1.2's core schema gives a scalar."""
    text = scalar.text
    if not scalar.plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if text in _CONSTANT:
        return float(_CONSTANT[text])
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if match is None:
        return text
    if match["float"]:
        return float(text)
    return int(text, 10 if match["decimal"] else 8 if match["octal"] else 16)


def plain(node: Node) -> object:
    """Return a tree as dictionaries, lists and scalars."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    assert isinstance(node, Scalar)
    return resolve(node)


def words(node: Node) -> object:
    """Return a tree whose scalars are texts as written, None for null, and nulls are left out of
    mappings: what a schema converts, as netplan reads its files.
    """
    if isinstance(node, Mapping):
        pairs = ((key, words(value)) for key, value in node.entries.items())
        return {key: value for key, value in pairs if value is not None}
    if isinstance(node, Sequence):
        return [words(item) for item in node.items]
    assert isinstance(node, Scalar)
    return None if node.null else node.text


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every scalar and every empty collection with its path."""
    if isinstance(node, Mapping) and node.entries:
        for key, value in node.entries.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, Sequence) and node.items:
        for index, item in enumerate(node.items):
            yield from leaves(item, (*path, index))
    else:
        yield path, node


def path_text(path: Path) -> str:
    """Return a path as messages write it: ``network.bridges.br0.addresses[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def find(node: Node, path: Path) -> tuple[Node, Path]:
    """Return the node at a path, or the nearest one above it, and the path to what is returned."""
    for depth, step in enumerate(path):
        inner: Node | None = None
        if isinstance(node, Mapping):
            inner = node.entries.get(str(step))
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            inner = node.items[step]
        if inner is None:
            return node, path[:depth]
        node = inner
    return node, path
