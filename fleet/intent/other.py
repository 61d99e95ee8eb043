"""The sections of ``network:`` whose entries are no devices: entries, tables, policies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from fleet.errors import IntentError
from fleet.host import registry
from fleet.host.change import Resource
from fleet.host.fields import DeviceName, NamespaceName
from fleet.host.kernel.observation import HOST
from fleet.host.spec import encode
from fleet.intent.convert import convert
from fleet.intent.tree import Mapping, Node, Scalar, path_text, words

Path = tuple[str | int, ...]

_FAMILIES = ("inet", "ip", "ip6", "arp", "bridge", "netdev")
_check_device = DeviceName.__metadata__[0].function  # type: ignore[attr-defined]
_check_namespace = NamespaceName.__metadata__[0].function  # type: ignore[attr-defined]


def _table_name(name: str) -> str:
    family, _, table = name.partition("/")
    if family not in _FAMILIES or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", table):
        raise ValueError(
            f"{name!r} is not a table such as inet/fleet: a family ({', '.join(_FAMILIES)}), "
            "a slash and a name"
        )
    return name


def _policy_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,48}", name):
        raise ValueError(f"{name!r} is not a name of a policy: letters, digits, _ . - only")
    return name


_NAMES: dict[str, Callable[[str], str]] = {
    "fdb": _check_device,
    "mdb": _check_device,
    "neighbours": _check_device,
    "nftables": _table_name,
    "policies": _policy_name,
    "shaping": _check_device,
}


def entries_of(network: Mapping, section: str, base: Path) -> Iterator[tuple[str, Node]]:
    """Yield the entries of one section; raises IntentError where it is no mapping."""
    node = network.get(section)
    if node is None:
        return
    if not isinstance(node, Mapping):
        text = path_text((*base, section))
        raise IntentError("a mapping of names is expected", node.place, text)
    yield from node.entries.items()


def read_others(network: Mapping, namespace: str, base: Path) -> Iterator[Resource | IntentError]:
    """Yield a resource, or what is wrong with it, for each entry that is no device."""
    for section, check in _NAMES.items():
        kind = registry.BY_SECTION[section].kind
        try:
            for name, node in entries_of(network, section, base):
                yield _read(section, kind, check, name, node, namespace, base)
        except IntentError as error:
            yield error


def _read(
    section: str,
    kind: str,
    check: Callable[[str], str],
    name: str,
    node: Node,
    namespace: str,
    base: Path,
) -> Resource | IntentError:
    path = (*base, section, name)
    try:
        check(name)
    except ValueError as error:
        return IntentError(str(error), node.key_place, path_text(path[:-1]))
    said: Any = words(node)
    if section in ("fdb", "mdb", "neighbours"):
        said = {"entries": said}
        node = Mapping({"entries": node}, node.file, node.at, node.key_at)
    elif section == "nftables" and isinstance(node, Scalar):
        said = {"rules": said}
        node = Mapping({"rules": node}, node.file, node.at, node.key_at)
    try:
        return Resource(
            namespace, kind, name, encode(convert(registry.load(kind).SPEC, said, node, path))
        )
    except IntentError as error:
        return error


def namespaces_of(network: Mapping) -> Iterator[tuple[str, Mapping] | IntentError]:
    """Yield the name and the content of each namespace, or what is wrong with it."""
    base: Path = ("network", "namespaces")
    try:
        for name, node in entries_of(network, "namespaces", base[:1]):
            where = path_text((*base, name))
            try:
                _check_namespace(name)
                if name == HOST:
                    raise ValueError("host is the host's own namespace; take another name")
            except ValueError as error:
                yield IntentError(str(error), node.key_place, path_text(base))
                continue
            if not isinstance(node, Mapping):
                yield IntentError("a mapping is expected", node.key_place, where, remedy="write {}")
            elif "namespaces" in node.entries:
                inner = node.entries["namespaces"]
                yield IntentError("namespaces do not nest", inner.key_place, where)
            else:
                yield name, node
    except IntentError as error:
        yield error
