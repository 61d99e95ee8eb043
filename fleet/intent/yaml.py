"""YAML, read once: libyaml's events into located trees.

The C parser gives events with marks at a tenth of the cost of the Python one, and composing from
events keeps one small object a value: PyYAML's own nodes take a gigabyte for 100,000 hosts.
Refused with their place: duplicate keys, several documents, keys that are no text, tags other than
the core schema's, control characters, and aliases that expand to more than the file could say.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from fleet.errors import IntentError
from fleet.intent.tree import Mapping, Node, Place, Scalar, Sequence, packed

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
#: Nodes that aliases may stand for, besides ten times what the file writes out.
MAX_EXPANSION = 200_000

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq")) | {"!"}


def read(path: Path, name: str = "") -> Node | None:
    """Return the tree of a file, None where it is empty; ``name`` is how messages call it.

    Raises IntentError where the file cannot be read or is not YAML that fleet takes.
    """
    name = name or str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise IntentError(f"cannot be read: {error.strerror}", Place(name, 0, 0)) from error
    if len(data) > MAX_BYTES:
        raise IntentError(f"larger than {MAX_BYTES >> 20} MiB", Place(name, 0, 0))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise IntentError("not UTF-8", Place(name, line, column)) from error
    return compose(text, name)


def compose(text: str, name: str) -> Node | None:
    """Return the tree of a text, None where it holds no document."""
    found = _CONTROL.search(text)
    if found:
        raise IntentError(f"control character {found[0]!r}", _place_of(text, found.start(), name))
    return _Composer(text, name).document()


def _place_of(text: str, index: int, name: str) -> Place:
    start = text.rfind("\n", 0, index) + 1
    return Place(name, text.count("\n", 0, index) + 1, index - start + 1)


class _Composer:
    def __init__(self, text: str, name: str) -> None:
        import yaml

        self.yaml: Any = yaml
        self.parser = (self.yaml.cyaml.CParser if yaml.__with_libyaml__ else yaml.SafeLoader)(text)
        self.name = name
        self.text = text
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.written = self.expanded = 0

    def document(self) -> Node | None:
        try:
            return self._document()
        except self.yaml.reader.ReaderError as error:
            place = _place_of(self.text, int(error.position), self.name)
            raise IntentError(f"not YAML: {error.reason}", place) from error
        except self.yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            message = f"not YAML: {error.problem or error.context}"
            raise IntentError(message, Place(self.name, *at)) from error

    def _document(self) -> Node | None:
        events = self.yaml.events
        self.parser.get_event()
        event = self.parser.get_event()
        if isinstance(event, events.StreamEndEvent):
            return None
        node, _ = self._node(self.parser.get_event(), 0, 0)
        self.parser.get_event()
        event = self.parser.get_event()
        if not isinstance(event, events.StreamEndEvent):
            self._refuse("a second document; a file holds one", event)
        return node if not (isinstance(node, Scalar) and node.null) else None

    def _refuse(self, message: str, event: Any) -> NoReturn:
        mark = event.start_mark
        raise IntentError(message, Place(self.name, mark.line + 1, mark.column + 1))

    def _node(self, event: Any, key_at: int, depth: int) -> tuple[Node, int]:
        """Return a node and how many nodes it stands for, aliases followed."""
        events = self.yaml.events
        kind = type(event)
        if kind is events.AliasEvent:
            return self._alias(event, key_at)
        self.written += 1
        mark = event.start_mark
        at = packed(mark.line, mark.column)
        node: Node
        if kind is events.ScalarEvent:
            node, size = self._scalar(event, at, key_at), 1
        else:
            if depth >= MAX_DEPTH:
                self._refuse(f"nested deeper than {MAX_DEPTH} levels", event)
            if event.tag is not None and event.tag not in _TAGS:
                self._refuse(f"the tag {event.tag} is not supported", event)
            if kind is events.MappingStartEvent:
                node, size = self._mapping(at, key_at, depth + 1)
            else:
                node, size = self._sequence(at, key_at, depth + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = node, size
        return node, size

    def _alias(self, event: Any, key_at: int) -> tuple[Node, int]:
        if event.anchor not in self.anchors:
            self._refuse(f"the alias *{event.anchor} has no anchor before it", event)
        node, size = self.anchors[event.anchor]
        self.expanded += size
        if self.expanded > MAX_EXPANSION + 10 * self.written:
            self._refuse(f"aliases expand to more than {MAX_EXPANSION} values", event)
        return node.under(key_at), size

    def _scalar(self, event: Any, at: int, key_at: int) -> Scalar:
        text = event.value
        if event.tag is not None and event.tag not in _TAGS:
            self._refuse(f"the tag {event.tag} is not supported", event)
        if not text.isprintable():
            found = _CONTROL.search(text)
            if found:
                self._refuse(f"control character {found[0]!r}", event)
        if len(text) < 32:
            text = sys.intern(text)
        return Scalar(text, bool(event.implicit[0]), self.name, at, key_at)

    def _sequence(self, at: int, key_at: int, depth: int) -> tuple[Sequence, int]:
        end = self.yaml.events.SequenceEndEvent
        items: list[Node] = []
        size = 1
        while type(event := self.parser.get_event()) is not end:
            item, inner = self._node(event, 0, depth)
            items.append(item)
            size += inner
        return Sequence(items, self.name, at, key_at), size

    def _mapping(self, at: int, key_at: int, depth: int) -> tuple[Mapping, int]:
        end = self.yaml.events.MappingEndEvent
        entries: dict[str, Node] = {}
        merged: list[Mapping] = []
        size = 1
        while type(event := self.parser.get_event()) is not end:
            key = self._key(event)
            mark = event.start_mark
            its = packed(mark.line, mark.column)
            value, inner = self._node(self.parser.get_event(), its, depth)
            size += inner
            if key is None:
                merged += self._merged(value, event)
            elif key in entries:
                first = entries[key].key_place.line
                self._refuse(f"{key!r} is here twice; first on line {first}", event)
            else:
                entries[key] = value
        for mapping in merged:
            # The mapping's own keys win, then the first one merged (yaml.org/type/merge.html).
            entries = {**mapping.entries, **entries}
        return Mapping(entries, self.name, at, key_at), size

    def _key(self, event: Any) -> str | None:
        """Return a key's text, None for the merge key."""
        if type(event) is not self.yaml.events.ScalarEvent:
            self._refuse("a key must be a text", event)
        scalar = self._scalar(event, 0, 0)
        if scalar.plain and scalar.text == "<<":
            return None
        if scalar.null:
            self._refuse("a key is missing", event)
        if event.anchor is not None:
            self.anchors[event.anchor] = scalar, 1
        return scalar.text

    def _merged(self, value: Node, event: Any) -> list[Mapping]:
        values = value.items if isinstance(value, Sequence) else [value]
        mappings = [item for item in values if isinstance(item, Mapping)]
        if len(mappings) != len(values):
            self._refuse("<< takes a mapping or a list of mappings", event)
        return mappings
