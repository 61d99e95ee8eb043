"""The inventory's files: defaults.yaml, groups.yaml and hosts.yaml in SimpleInventory's layout.

This is what Nornir's inventory, the intent and ``--explain`` are all made from; it imports neither
Nornir nor pydantic. Hosts are kept as read and worked on when asked for, so 100,000 of them cost
what their text costs.
"""

from __future__ import annotations

import difflib
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import InventoryError
from fleet.intent.merge import Linearisation, Merger
from fleet.intent.tree import Mapping, Node, Place, Scalar, Sequence, resolve
from fleet.intent.yaml import read

if TYPE_CHECKING:
    from fleet.intent.presets import Presets

CONNECTION = ("hostname", "port", "username", "password", "platform")
HOST_KEYS = (*CONNECTION, "groups", "data", "connection_options")
DEFAULTS_KEYS = (*CONNECTION, "data", "connection_options")
OPTION_KEYS = (*CONNECTION, "extras")

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}")
#: A name or address; no leading dash, for it ends up on command lines of ssh's kind.
_HOSTNAME = re.compile(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%\[\]-]{0,254}")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}")


class Source:
    """An inventory as read: its hosts, its groups, and what all have in common."""

    def __init__(self, hosts: Path, groups: Path, defaults: Path, root: Path | None = None) -> None:
        """Read and check the three files; ``groups`` and ``defaults`` may be absent.

        ``root`` is the directory that messages name files from. Raises InventoryError or
        IntentError with the place of the first thing that is wrong.
        """
        self.hosts = _elements(hosts, root, "host")
        if not self.hosts:
            raise InventoryError(
                "no host is here",
                Place(_name(hosts, root), 1, 1),
                remedy="write the first: `hv-1: {hostname: ADDRESS, groups: []}`",
            )
        self.groups = _elements(groups, root, "group") if groups.exists() else {}
        self.defaults = _mapping_of(defaults, root) if defaults.exists() else Mapping({}, "", 0)
        _check(self.defaults, DEFAULTS_KEYS, "defaults")
        self._root = root
        self._merger = Merger()
        self._order = Linearisation(lambda name: self.listed(self.groups[name]))
        self._base: dict[tuple[str, ...], Mapping] = {}
        for name, group in self.groups.items():
            _check(group, HOST_KEYS, f"group {name}")
            self._order.of(self.listed(group), f"group {name}")
        for name, host in self.hosts.items():
            if not _HOST_NAME.fullmatch(name):
                raise InventoryError(
                    f"{name!r} cannot be a host's name",
                    host.key_place,
                    remedy="use letters, digits and _ . : - only, the first a letter or digit",
                )
            _check(host, HOST_KEYS, f"host {name}")
            self._order.of(self.listed(host), f"host {name}")

    def listed(self, element: Mapping) -> list[tuple[str, Place]]:
        """Return the groups that a host or group lists, with their places."""
        node = element.get("groups")
        if not isinstance(node, Sequence):  # null, as everything else was refused before
            return []
        names: list[tuple[str, Place]] = []
        for item in node.items:
            assert isinstance(item, Scalar)
            if item.text not in self.groups:
                raise InventoryError(
                    f"there is no group {item.text!r}",
                    item.place,
                    nearest=nearest(item.text, self.groups),
                )
            names.append((item.text, item.place))
        return names

    def groups_of(self, host: str) -> tuple[str, ...]:
        """Return all groups of a host, the winning one first; KeyError where there is no host."""
        return self._order.of(self.listed(self.hosts[host]), f"host {host}")

    def data(self, host: str) -> Mapping:
        """Return the merged data of a host."""
        groups = self.groups_of(host)
        if groups not in self._base:
            layers = [self.defaults, *(self.groups[name] for name in reversed(groups))]
            self._base[groups] = self._merger.stack([_data(layer) for layer in layers])
        # Not remembered: there are as many results as hosts.
        found = Merger().stack([self._base[groups], _data(self.hosts[host])])
        named = found.get("presets")
        if named is None:
            return found
        # Below all layers, so that a null of any takes out what a preset says.
        layers = [self.defaults, *(self.groups[name] for name in reversed(groups))]
        below = self.presets.layers(named)
        base = self._merger.stack([*below, *(_data(layer) for layer in layers)])
        return Merger().stack([base, _data(self.hosts[host])])

    @functools.cached_property
    def presets(self) -> Presets:
        """The presets that hosts may name: the project's, then fleet's own."""
        from fleet.intent.presets import Presets

        own = [self._root / "presets"] if self._root else []
        return Presets([*own, Path(__file__).parents[1] / "_starter" / "presets"])

    def connection(self, host: str, key: str) -> str | int | None:
        """Return a connection parameter of a host, from itself, its groups or the defaults."""
        elements = [self.hosts[host], *(self.groups[name] for name in self.groups_of(host))]
        for element in (*elements, self.defaults):
            value = parameter(element, key)
            if value is not None:
                return value
        return None


def parameter(element: Mapping, key: str) -> str | int | None:
    """Return a connection parameter as one element itself gives it."""
    node = element.get(key)
    if not isinstance(node, Scalar) or node.null:
        return None
    return int(node.text) if key == "port" else node.text


def nearest(word: str, words: object) -> str:
    """Return the word that was probably meant, empty where none is near."""
    found = difflib.get_close_matches(word, list(words), 1)  # type: ignore[call-overload]
    return str(found[0]) if found else ""


def _data(element: Mapping) -> Mapping:
    node = element.get("data")
    return node if isinstance(node, Mapping) else Mapping({}, element.file, element.at)


def _name(path: Path, root: Path | None) -> str:
    return str(path.relative_to(root) if root and path.is_relative_to(root) else path)


def _mapping_of(path: Path, root: Path | None) -> Mapping:
    name = _name(path, root)
    if not path.exists():
        raise InventoryError(
            "there is no such file", Place(name, 0, 0), remedy="`fleet init DIR` makes a project"
        )
    node = read(path, name)
    if node is None:
        return Mapping({}, name, 0)
    if not isinstance(node, Mapping):
        raise InventoryError("a mapping is expected here", node.place)
    return node


def _elements(path: Path, root: Path | None, what: str) -> dict[str, Mapping]:
    elements: dict[str, Mapping] = {}
    for name, node in _mapping_of(path, root).entries.items():
        if not isinstance(node, Mapping):
            empty = isinstance(node, Scalar) and node.null
            raise InventoryError(
                f"{what} {name} is {'empty' if empty else 'not a mapping'}",
                node.key_place,
                remedy=f"write `{name}: {{}}` for a {what} with nothing of its own",
            )
        elements[name] = node
    return elements


def _check(element: Mapping, keys: tuple[str, ...], owner: str) -> None:
    for key, node in element.entries.items():
        if key not in keys:
            raise InventoryError(
                f"{owner} has an unknown key {key!r}",
                node.key_place,
                nearest=nearest(key, keys),
                remedy=f"the keys are {', '.join(keys)}; intent and variables go under data",
            )
        _check_value(key, node, owner)


def _check_value(key: str, node: Node, owner: str) -> None:
    if isinstance(node, Scalar) and node.null:
        return
    if key == "groups":
        items = node.items if isinstance(node, Sequence) else [node]
        if not isinstance(node, Sequence) or not all(isinstance(item, Scalar) for item in items):
            raise InventoryError(f"{owner}: groups is a list of names", node.place)
        names = [item.text for item in items if isinstance(item, Scalar)]
        if len(set(names)) != len(names):
            raise InventoryError(f"{owner} lists a group twice", node.place)
    elif key in ("data", "extras"):
        if not isinstance(node, Mapping):
            raise InventoryError(f"{owner}: {key} is a mapping", node.place)
    elif key == "connection_options":
        _check_options(node, owner)
    elif not isinstance(node, Scalar):
        raise InventoryError(f"{owner}: {key} is a text", node.place)
    else:
        _check_parameter(key, node, owner)


def _check_options(node: Node, owner: str) -> None:
    if not isinstance(node, Mapping):
        raise InventoryError(f"{owner}: connection_options is a mapping", node.place)
    for name, options in node.entries.items():
        if not isinstance(options, Mapping):
            raise InventoryError(f"{owner}: connection_options.{name} is a mapping", options.place)
        _check(options, OPTION_KEYS, f"{owner}: connection_options.{name}")


def _check_parameter(key: str, node: Scalar, owner: str) -> None:
    text = node.text
    if key == "port":
        number = resolve(node)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 65536:
            raise InventoryError(f"{owner}: {text!r} is not a port, 1 to 65535", node.place)
    elif key == "hostname" and not _HOSTNAME.fullmatch(text):
        remedy = "it is not rendered: write it out for each host" if "{" in text else ""
        message = f"{owner}: {text!r} is not a hostname or address"
        raise InventoryError(message, node.place, remedy=remedy)
    elif key == "username" and not _USERNAME.fullmatch(text):
        raise InventoryError(f"{owner}: {text!r} is not a user's name", node.place)
