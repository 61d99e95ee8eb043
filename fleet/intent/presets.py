"""Presets: plain data below a host's own, for the NICs that it names.

``presets: {low-latency: [eno2]}`` lays ``presets/low-latency.yaml`` of the project, or else
fleet's own, below the defaults, with the key ``NIC`` standing for each NIC named. So any key of a
preset can be overridden, or taken out with null, and every value says which file and line it is
from.
"""

from __future__ import annotations

from pathlib import Path

from fleet.errors import IntentError
from fleet.intent.tree import Mapping, Node, Scalar, Sequence, path_text
from fleet.intent.yaml import read

KEY = "presets"
#: What stands for a NIC in a preset.
NIC = "NIC"


class Presets:
    """The presets of some folders, the first folder's before the next one's."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._read: dict[str, Mapping] = {}
        #: Kept, so that hosts with the same presets share what is merged above them.
        self._layers: dict[tuple[str, tuple[str, ...]], Mapping] = {}

    def names(self) -> list[str]:
        """Return the names of all presets, sorted."""
        return sorted({file.stem for folder in self._folders for file in folder.glob("*.yaml")})

    def file(self, name: str) -> Path | None:
        """Return a preset's file, None where there is no such preset."""
        files = (folder / f"{name}.yaml" for folder in self._folders)
        return next((file for file in files if file.is_file()), None)

    def layers(self, node: Node) -> list[Mapping]:
        """Return the layers that a host's ``presets`` mean; raises IntentError."""
        if not isinstance(node, Mapping):
            raise IntentError("a mapping of presets to NICs is expected", node.place, KEY)
        return [self._layer(name, nics) for name, nics in node.entries.items()]

    def _layer(self, name: str, nics: Node) -> Mapping:
        where = path_text((KEY, name))
        if not isinstance(nics, Sequence):
            raise IntentError(
                "a list of NICs is expected", nics.place, where, remedy="write [eno2]"
            )
        named = tuple(item.text for item in nics.items if isinstance(item, Scalar))
        key = name, named
        if key not in self._layers:
            found = _for_each(self._preset(name, nics, where), named)
            assert isinstance(found, Mapping)
            self._layers[key] = found
        return self._layers[key]

    def _preset(self, name: str, node: Node, where: str) -> Mapping:
        if name not in self._read:
            file = self.file(name) if name in self.names() else None
            if file is None:
                from fleet.intent.source import nearest

                near, known = nearest(name, self.names()), ", ".join(self.names())
                remedy = "" if near else f"the presets are {known}"
                raise IntentError(
                    "no such preset", node.key_place, where, nearest=near, remedy=remedy
                )
            found = read(file, f"presets/{file.name}")
            if not isinstance(found, Mapping):
                raise IntentError("a mapping of sections is expected", node.key_place, where)
            self._read[name] = found
        return self._read[name]


def _for_each(node: Node, nics: tuple[str, ...]) -> Node:
    """Return a node with the key ``NIC`` put out for each NIC."""
    if not isinstance(node, Mapping):
        return node
    entries: dict[str, Node] = {}
    for key, value in node.entries.items():
        inner = _for_each(value, nics)
        for name in nics if key == NIC else (key,):
            entries[name] = inner
    return Mapping(entries, node.file, node.at, node.key_at)
