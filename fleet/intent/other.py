"""The kinds whose resources are no devices: their sections, as the registry and the kinds say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleet.errors import IntentError
from fleet.host import registry
from fleet.host.change import Resource
from fleet.host.fields import NamespaceName
from fleet.host.kernel.observation import HOST
from fleet.host.spec import encode
from fleet.intent.convert import convert
from fleet.intent.source import nearest
from fleet.intent.tree import Mapping, Node, Scalar, Sequence, path_text, words

Path = tuple[str | int, ...]

#: What is read elsewhere: namespaces hold sections of their own, and sysctl(8) has its own words.
_ELSEWHERE = ("namespace", "sysctl")
#: The kinds read here.
KINDS = tuple(
    entry
    for entry in registry.KINDS
    if entry.phase and not entry.device and entry.under != "device" and entry.kind not in _ELSEWHERE
)
#: The keys of the data that hold their sections, and those of the data that are sections.
HOLDERS = tuple(dict.fromkeys(entry.under for entry in KINDS if entry.under))
TOP = tuple(entry.section for entry in KINDS if not entry.under)


def entries_of(parent: Mapping, section: str, base: Path) -> Iterator[tuple[str, Node]]:
    """Yield the entries of one section; raises IntentError where it is no mapping."""
    node = parent.get(section)
    if node is None:
        return
    if not isinstance(node, Mapping):
        text = path_text((*base, section))
        raise IntentError("a mapping of names is expected", node.place, text)
    yield from node.entries.items()


def read_others(data: Mapping, namespace: str, base: Path) -> Iterator[Resource | IntentError]:
    """Yield a resource, or what is wrong with it, for each entry that is no device.

    ``base`` is where the data's network is.
    """
    for holder in HOLDERS:
        node = data.get(holder)
        if holder != "network" and node is not None:
            yield from _unknown(node, holder)
    for entry in KINDS:
        parent = data.get(entry.under) if entry.under else data
        path = base if entry.under == "network" else (entry.under,) if entry.under else ()
        if not isinstance(parent, Mapping):
            continue
        try:
            for name, node in entries_of(parent, entry.section, path):
                yield _read(entry.kind, name, node, namespace, (*path, entry.section))
        except IntentError as error:
            yield error


def _unknown(node: Node, holder: str) -> Iterator[IntentError]:
    if not isinstance(node, Mapping):
        yield IntentError("a mapping is expected", node.place, holder)
        return
    known = [entry.section for entry in KINDS if entry.under == holder]
    for key, value in node.entries.items():
        if key not in known:
            near, where = nearest(key, known), path_text((holder, key))
            remedy = "" if near else f"the keys here are {', '.join(known)}"
            yield IntentError("unknown key", value.key_place, where, nearest=near, remedy=remedy)


def _read(kind: str, name: str, node: Node, namespace: str, path: Path) -> Resource | IntentError:
    module: Any = registry.load(kind)
    try:
        name = _checked(module.NAME, name)
    except ValueError as error:
        return IntentError(str(error), node.key_place, path_text(path))
    short = getattr(module, "SHORT", "")
    said: Any = words(node)
    if short and isinstance(node, Scalar if getattr(module.SPEC, short) == "" else Sequence):
        said = {short: said}
        node = Mapping({short: node}, node.file, node.at, node.key_at)
    try:
        spec = convert(module.SPEC, said, node, (*path, name))
    except IntentError as error:
        return error
    return Resource(namespace, kind, name, encode(spec))


def _checked(of: Any, name: str) -> str:
    """Return a name in the form its type gives it; raises ValueError."""
    normal: str = of.__metadata__[0].function(name)
    return normal


def namespaces_of(network: Mapping) -> Iterator[tuple[str, Mapping] | IntentError]:
    """Yield the name and the content of each namespace, or what is wrong with it."""
    base: Path = ("network", "namespaces")
    try:
        for name, node in entries_of(network, "namespaces", base[:1]):
            where = path_text((*base, name))
            try:
                _checked(NamespaceName, name)
            except ValueError as error:
                yield IntentError(str(error), node.key_place, path_text(base))
                continue
            if name == HOST:
                message = "host is the host's own namespace; take another name"
                yield IntentError(message, node.key_place, path_text(base))
            elif not isinstance(node, Mapping):
                yield IntentError("a mapping is expected", node.key_place, where, remedy="write {}")
            elif "namespaces" in node.entries:
                inner = node.entries["namespaces"]
                yield IntentError("namespaces do not nest", inner.key_place, where)
            else:
                yield name, node
    except IntentError as error:
        yield error
