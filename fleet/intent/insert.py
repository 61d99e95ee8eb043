"""Puts data into a YAML text and leaves the rest of the text, its comments too, as it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Words = dict[str, Any]
Dump = Callable[[Words], str]


class CannotInsert(Exception):
    """A place of the text that only a person can change without losing something."""


class _Edit(NamedTuple):
    """Replace the text from ``start`` to ``end``; ``column`` is that of the mapping it is of."""

    start: int
    end: int
    text: str
    column: int = 0


def insert(text: str, data: Mapping[str, Words], dump: Dump) -> tuple[str, dict[str, str]]:
    """Return a YAML text with data merged into its top mapping, key by key.

    ``dump`` writes a mapping as block YAML. The second result says, for each top key whose data
    could not be put in, why: where a comment would be lost, or an anchor's other uses would change.
    """
    import yaml

    loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    root: Any = yaml.compose(text, Loader=loader)
    if root is None or (root.tag.endswith(":null") and not root.value):
        return _appended(text, dump(dict(data))), {}
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return text, dict.fromkeys(data, "the file is no block mapping")
    edits: list[_Edit] = []
    refused: dict[str, str] = {}
    for key, value in data.items():
        writer = _Writer(text, dump)
        try:
            writer.merge(root, {key: value})
        except CannotInsert as reason:
            refused[key] = str(reason)
        else:
            edits += writer.edits
    # Where mappings end at one place, the innermost ends first. From the end, so that earlier
    # places stay where they are; sorting keeps what is equal in order.
    edits.sort(key=lambda edit: (edit.start, -edit.column))
    for edit in edits[::-1]:
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text, refused


def _appended(text: str, more: str) -> str:
    return text + ("" if not text or text.endswith("\n") else "\n") + more


class _Writer:
    def __init__(self, text: str, dump: Dump) -> None:
        self.text, self.dump = text, dump
        self.edits: list[_Edit] = []

    def merge(self, node: Any, data: Words) -> None:
        """Note the edits that merge data into a block mapping."""
        pairs = {key.value: (key, value) for key, value in node.value}
        added: Words = {}
        for name, value in data.items():
            if name not in pairs:
                added[name] = value
                continue
            key, old = pairs[name]
            if old.start_mark.index < key.start_mark.index:
                raise CannotInsert(f"{name} is an alias of what is written elsewhere")
            if isinstance(value, dict) and _is_mapping(old) and not old.flow_style:
                self.merge(old, value)
            else:
                self._replace(node, key, old, value)
        if added:
            self._add(node, added)

    def _add(self, node: Any, added: Words) -> None:
        key, value = node.value[-1]
        at = self._end_of_line(self._end(key, value))
        column = node.value[0][0].start_mark.column
        block = textwrap.indent(self.dump(added), " " * column)
        if at > len(self.text) or not self.text[:at].endswith("\n"):
            block = "\n" + block
        self.edits.append(_Edit(at, at, block, column))

    def _replace(self, node: Any, key: Any, old: Any, value: Any) -> None:
        colon = self.text.index(":", key.end_mark.index) + 1
        end = self._end(key, old)
        rest = self._end_of_line(end)
        after = self.text[end:rest].rstrip("\n")
        if after.strip() and not after.lstrip().startswith("#"):
            raise CannotInsert(f"there is more on the line of {key.value}")
        inside = self.text[colon:end]
        if re.search(r"(^|\s)#", inside):
            raise CannotInsert(f"{key.value} has comments inside that would be lost")
        if isinstance(value, dict) and _is_mapping(old):
            if not inside.lstrip().startswith("{"):
                raise CannotInsert(f"{key.value} has an anchor or a tag")
            lines = self._spread(old, value)
        elif isinstance(value, dict):
            if inside.strip() not in ("", "~", "null"):
                raise CannotInsert(f"{key.value} is {inside.strip()!r} and would be a mapping")
            lines = self.dump(value)
        else:
            text = self.dump({key.value: value}).partition(":")[2].rstrip("\n")
            indent = " " * key.start_mark.column
            self.edits.append(_Edit(colon, end, text.replace("\n", "\n" + indent)))
            return
        step = " " * (key.start_mark.column + 2)
        block = after.rstrip() + "\n" + textwrap.indent(lines, step)
        self.edits.append(_Edit(colon, rest, block))

    def _spread(self, node: Any, data: Words) -> str:
        """Return a flow mapping as a block, its own pairs as written, with data merged in."""
        lines = []
        known = set()
        for key, old in node.value:
            known.add(key.value)
            if old.start_mark.index < key.start_mark.index:
                raise CannotInsert(f"{key.value} is an alias of what is written elsewhere")
            value = data.get(key.value)
            written = self.text[key.start_mark.index : old.end_mark.index]
            name = self.text[key.start_mark.index : key.end_mark.index]
            if "\n" in written:
                raise CannotInsert(f"{key.value} goes over several lines")
            if key.value not in data:
                lines.append(f"{written}\n")
            elif isinstance(value, dict) and _is_mapping(old):
                lines.append(f"{name}:\n" + textwrap.indent(self._spread(old, value), "  "))
            else:
                lines.append(self.dump({key.value: value}))
        rest = {key: value for key, value in data.items() if key not in known}
        return "".join(lines) + (self.dump(rest) if rest else "")

    def _end(self, key: Any, value: Any) -> int:
        """Return where a pair ends; a block's own mark is where the next thing starts."""
        while True:
            if value.start_mark.index < key.start_mark.index:
                stop = self.text.find("\n", key.end_mark.index)
                return len(self.text) if stop < 0 else stop
            if _is_scalar(value) or value.flow_style or not value.value:
                break
            last = value.value[-1]
            key, value = last if _is_mapping(value) else (key, last)
        end: int = value.end_mark.index
        while end > value.start_mark.index and self.text[end - 1] in " \t\n":
            end -= 1
        return end

    def _end_of_line(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1


def _is_mapping(node: Any) -> bool:
    return bool(node.id == "mapping")


def _is_scalar(node: Any) -> bool:
    return bool(node.id == "scalar")
