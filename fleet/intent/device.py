"""One device of ``network:``: its keys sorted by netplan's table, and its spec."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import IntentError
from fleet.host import registry
from fleet.host.fields import DeviceName
from fleet.host.spec import encode
from fleet.intent.convert import convert, joined
from fleet.intent.netplan import (
    APPLIED,
    LATER,
    MANAGER,
    REFUSED,
    RENDERERS,
    SECTIONS,
    Key,
    device_table,
    marked_kind,
    verdict_text,
)
from fleet.intent.offloads import KEYS as OFFLOADS
from fleet.intent.offloads import read_offloads
from fleet.intent.source import nearest
from fleet.intent.tree import Mapping, Node, Scalar, Sequence, find, path_text, words

Path = tuple[str | int, ...]

#: A device's key that is a flag of the bridge's port it is, and the flag's name in bridge(8).
PORT_FLAGS = {
    "hairpin": "hairpin",
    "port-mac-learning": "learning",
    "neigh-suppress": "neigh-suppress",
}
#: What SR-IOV is written by: netplan's keys, and ours for each virtual function.
FUNCTIONS = ("virtual-function-count", "embedded-switch-mode", "virtual-functions")
#: Keys that are a resource's of its own.
_ELSEWHERE = frozenset((*PORT_FLAGS, *OFFLOADS, *FUNCTIONS, "routing-policy"))
#: Keys whose entries are names that somebody chose, with the table's keys below them.
_NAMED = ("addresses", "ports", "virtual-functions")

#: netplan's other spellings of parameters.
_SPELT = {
    "aging-time": "ageing-time",
    "all-slaves-active": "all-members-active",
    "packets-per-slave": "packets-per-member",
    "gratuitious-arp": "gratuitous-arp",
}

_check_name = DeviceName.__metadata__[0].function  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Rule:
    """One entry of a device's ``routing-policy``: its name, the rule in words, and its spec."""

    name: str
    data: dict[str, Any]
    node: Node


@dataclass(frozen=True)
class Device:
    """A device as intent has it: the spec, as a record and as data, and what is not in it."""

    section: str
    name: str
    node: Mapping
    spec: Any
    data: dict[str, Any]
    rules: tuple[Rule, ...] = ()
    port_flags: dict[str, Any] = field(default_factory=dict)
    manager: dict[str, Any] = field(default_factory=dict)
    offloads: dict[str, bool] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    base: Path = ("network",)
    kind: str = ""

    @property
    def path(self) -> Path:
        """Its place in the data."""
        return (*self.base, self.section, self.name)

    def node_at(self, *steps: str | int) -> tuple[Node, str]:
        """Return the node below the device at some steps, as far as they go, and its path."""
        node, where = find(self.node, steps)
        return node, path_text((*self.path, *where))


def read_device(section: str, name: str, node: Node, base: Path = ("network",)) -> Device:
    """Return a device from its rendered node; raises IntentError with all that is wrong with it."""
    path: Path = (*base, section, name)
    if not isinstance(node, Mapping):
        raise IntentError(
            "a mapping is expected",
            node.key_place,
            path_text(path),
            remedy="write {} for a device with no settings of its own",
        )
    kind = marked_kind(section, node.entries)
    table = device_table(section, kind)
    kind = kind or SECTIONS[section]
    errors = [*_name_errors(path, name, node), *check_keys(node, table, path)]
    if errors:
        raise joined(errors)
    own: dict[str, Any] = {}
    manager: dict[str, Any] = {}
    for key, value in node.entries.items():
        if table[key].verdict == MANAGER:
            if key != "renderer":
                manager[key] = words(value)
        elif key not in _ELSEWHERE:
            own[key] = _normal(key, words(value))
    spec_class = registry.load(kind).SPEC
    spec = _tried(errors, lambda: convert(spec_class, own, node, path))
    _tried(errors, lambda: _check_left(manager, node, path))
    offloads = _tried(errors, lambda: read_offloads(node, path))
    functions = _tried(errors, lambda: _functions(node, path))
    rules = _tried(errors, lambda: tuple(_rules(node, path)))
    if errors:
        raise joined(errors)
    ports = {
        PORT_FLAGS[key]: words(inner) for key, inner in node.entries.items() if key in PORT_FLAGS
    }
    return Device(
        section=section,
        name=name,
        node=node,
        spec=spec,
        data=encode(spec),
        rules=rules,
        port_flags=ports,
        manager=manager,
        offloads=offloads,
        functions=functions,
        base=base,
        kind=kind,
    )


def _tried(errors: list[IntentError], read: Callable[[], Any]) -> Any:
    """Return what was read, or note what is wrong with it, to be told with the rest."""
    try:
        return read()
    except IntentError as error:
        errors.append(error)
    return None


def _functions(node: Mapping, path: Path) -> dict[str, Any]:
    """Return the spec of a NIC's virtual functions, empty without one; raises IntentError."""
    said = {key: words(value) for key, value in node.entries.items() if key in FUNCTIONS}
    if not said:
        return {}
    found: dict[str, Any] = encode(convert(registry.load("sriov").SPEC, said, node, path))
    return found


def _check_left(manager: dict[str, Any], node: Mapping, path: Path) -> None:
    """Raise IntentError for values of the manager's keys that netplan would not take."""
    if manager:
        from fleet.intent.left import Left

        convert(Left, manager, node, path)


def _name_errors(path: Path, name: str, node: Mapping) -> Iterator[IntentError]:
    try:
        # With `match` the name is netplan's identifier alone; the kernel never sees it.
        _check_name(name[:15] if path[-2] == "ethernets" and "match" in node.entries else name)
    except ValueError as error:
        yield IntentError(str(error), node.key_place, path_text(path[:-1]))


def check_keys(node: Mapping, table: dict[str, Key], path: Path) -> Iterator[IntentError]:
    """Yield an error for every key, at any depth, that fleet does not know or refuses."""
    for key, value in node.entries.items():
        entry = table.get(key)
        where = (*path, key)
        if entry is None:
            known = [name for name, item in table.items() if item.verdict in (APPLIED, MANAGER)]
            near = nearest(key, known or table) or _deeper(key, table)
            remedy = "" if near else f"the keys here are {', '.join(known)}"
            yield IntentError(
                "unknown key", value.key_place, path_text(where), nearest=near, remedy=remedy
            )
        elif entry.verdict in (REFUSED, LATER):
            yield IntentError(verdict_text(key, entry), value.key_place, path_text(where))
        elif key == "renderer":
            yield from check_renderer(value, where)
        elif entry.inner:
            yield from _inner(value, entry.inner, where, key in _NAMED)


def _deeper(key: str, table: dict[str, Key]) -> str:
    """Return the nearest key one level below, where it may have been meant to be."""
    for name, entry in table.items():
        if entry.inner and name not in _NAMED:
            # Stricter than for a key's own level: a guess from afar has to be a good one.
            for near in difflib.get_close_matches(key, list(entry.inner), 1, 0.8):
                return f"{name}.{near}"
    return ""


def check_renderer(node: Node, path: Path) -> Iterator[IntentError]:
    """Yield an error where a renderer is not networkd."""
    name = node.text if isinstance(node, Scalar) else ""
    reason = RENDERERS.get(name, f"{name!r} is no renderer; write `networkd`")
    if reason:
        yield IntentError(reason, node.place, path_text(path))


def _inner(node: Node, table: dict[str, Key], path: Path, named: bool) -> Iterator[IntentError]:
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            yield from _inner(item, table, (*path, index), named)
    elif isinstance(node, Mapping) and named:
        for name, inner in node.entries.items():
            yield from _inner(inner, table, (*path, name), False)
    elif isinstance(node, Mapping):
        yield from check_keys(node, table, path)


def _normal(key: str, value: Any) -> Any:
    """Return a key's words in the one form that its spec takes."""
    if key == "addresses" and isinstance(value, list):
        return [_address(item) for item in value]
    if key == "parameters" and isinstance(value, dict):
        return {_SPELT.get(name, name): item for name, item in value.items()}
    return value


def _address(item: Any) -> Any:
    if isinstance(item, str):
        return {"address": item}
    if isinstance(item, dict) and len(item) == 1:
        ((address, options),) = item.items()
        if isinstance(options, dict):
            return {"address": address, **options}
    return item


def _rules(node: Mapping, path: Path) -> Iterator[Rule]:
    policy = node.get("routing-policy")
    if policy is None:
        return
    where = (*path, "routing-policy")
    if not isinstance(policy, Sequence):
        raise IntentError("a list is expected", policy.place, path_text(where))
    from fleet.host.kinds.rule import SPEC

    for index, item in enumerate(policy.items):
        spec = convert(SPEC, words(item), item, (*where, index))
        yield named_rule(encode(spec), item)


def named_rule(data: dict[str, Any], node: Node) -> Rule:
    """Return a rule from its data; what it says is its name."""
    said = [f"{name.rstrip('_').replace('_', '-')} {value}" for name, value in data.items()]
    return Rule(" ".join(said), data, node)
