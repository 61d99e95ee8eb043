"""A host's intent as YAML, and where each of its values comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fleet.report.text import Paint, clean

if TYPE_CHECKING:
    from fleet.intent.tree import Node

#: Where the places stand, unless a value is longer.
COLUMN = 52


#: Variables whose values a terminal, or the log of whoever runs fleet, has no business with.
SECRET = re.compile(r"(^|[_-])(password|passphrase|secret|psk|token|private[_-]?key)$", re.I)
HIDDEN = "(secret)"


def intent_lines(tree: Node, explain: bool = False, paint: Paint | None = None) -> list[str]:
    """Return a tree as lines of YAML; ``explain`` puts file and line behind every value."""
    paint = paint or Paint(False)
    return [
        f"{text:<{COLUMN}}  {paint.faint('# ' + place)}" if explain and place else text
        for text, place in _lines(tree, "")
    ]


def explained(tree: Node) -> list[dict[str, Any]]:
    """Return every value of a tree with its path, file and line, as plain data."""
    from fleet.intent.tree import leaves, path_text, plain

    return [
        {
            "path": path_text(path),
            "value": HIDDEN if _secret(path) else plain(node),
            "file": node.place.file,
            "line": node.place.line,
        }
        for path, node in leaves(tree)
    ]


def _secret(path: Sequence[str | int]) -> bool:
    return any(isinstance(step, str) and SECRET.search(step) for step in path)


def _lines(node: Node, indent: str) -> Iterator[tuple[str, str]]:
    from fleet.intent.tree import Mapping, Sequence

    if isinstance(node, Mapping):
        for key, inner in node.entries.items():
            if SECRET.search(key):
                yield f"{indent}{_scalar(key)}: {HIDDEN}", _place(inner)
                continue
            yield from _entry(f"{indent}{_scalar(key)}:", inner, f"{indent}  ")
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _entry(f"{indent}-", item, f"{indent}  ")


def _entry(head: str, node: Node, indent: str) -> Iterator[tuple[str, str]]:
    from fleet.intent.tree import Mapping, Sequence, plain

    place = _place(node)
    if isinstance(node, Mapping) and node.entries:
        if head.endswith("-") and all(not _deep(inner) for inner in node.entries.values()):
            yield f"{head} {_flow(node)}", place
            return
        yield head, ""
        yield from _lines(node, indent)
    elif isinstance(node, Sequence) and node.items:
        if all(not _deep(item) for item in node.items) and len(_flow(node)) < 60:
            yield f"{head} {_flow(node)}", place
            return
        yield head, ""
        yield from _lines(node, indent)
    else:
        yield f"{head} {_scalar(plain(node))}", place


def _place(node: Node) -> str:
    return f"{clean(node.place.file)}:{node.place.line}" if node.place.file else ""


def _deep(node: Node) -> bool:
    from fleet.intent.tree import Mapping, Sequence

    return (isinstance(node, Mapping) and bool(node.entries)) or (
        isinstance(node, Sequence) and bool(node.items)
    )


def _flow(node: Node) -> str:
    from fleet.intent.tree import Mapping, Sequence, plain

    if isinstance(node, Mapping):
        pairs = (f"{_scalar(key)}: {_flow(inner)}" for key, inner in node.entries.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(node, Sequence):
        return "[" + ", ".join(_flow(item) for item in node.items) + "]"
    data = plain(node)
    if isinstance(data, str) and set(data) & set(",[]{}"):
        # Inside brackets these end a plain scalar (YAML 1.2.2, 7.3.3).
        return json.dumps(data)
    return _scalar(data)


def _scalar(data: object) -> str:
    """Return a scalar as YAML writes it, quoted where it must be."""
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, (int, float)):
        return str(data)
    if isinstance(data, (dict, list)):
        return "{}" if isinstance(data, dict) else "[]"
    import yaml

    text = yaml.safe_dump(str(data), width=10_000, default_flow_style=True)
    return text.removesuffix("\n...\n").rstrip("\n")
