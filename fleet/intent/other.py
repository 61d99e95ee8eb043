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
from fleet.intent.convert import convert, joined, place_of
from fleet.intent.source import nearest
from fleet.intent.tree import Mapping, Node, Scalar, Sequence, path_text, words
from fleet.render import Renderer, RenderError

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


def read_others(
    data: Mapping, namespace: str, base: Path, renderer: Renderer
) -> Iterator[Resource | IntentError]:
    """Yield a resource, or what is wrong with it, for each entry that is no device.

    ``base`` is where the data's network is; ``renderer`` has the project's templates.
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
                yield _read(entry.kind, name, node, namespace, (*path, entry.section), renderer)
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


def _read(
    kind: str, name: str, node: Node, namespace: str, path: Path, renderer: Renderer
) -> Resource | IntentError:
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
        if kind == "network" and isinstance(node, Mapping) and "xml" not in node.entries:
            said = _network(said, name, node, (*path, name), renderer)
        spec = convert(module.SPEC, said, node, (*path, name))
    except IntentError as error:
        return error
    data = encode(spec)
    if kind in _NAMED_INSIDE and (inside := _name_inside(kind, data["xml"])) != name:
        message = f"the XML is that of {inside or 'one without a name'}: give both the same name"
        return IntentError(message, *place_of(node, (*path, name), ("xml",)))
    return Resource(namespace, kind, name, data)


#: Kinds whose XML has the resource's name once more.
_NAMED_INSIDE = ("network", "nwfilter")


def _name_inside(kind: str, text: str) -> str:
    from fleet.host.virtual import networks, tree

    if kind == "network":
        return networks.name_of(text)
    return str(tree.parse(text)["attributes"].get("name", ""))


def _network(said: Any, name: str, node: Node, path: Path, renderer: Renderer) -> dict[str, Any]:
    """Return a libvirt network that is written in words as its XML; raises IntentError."""
    from fleet.host.virtual import tree
    from fleet.intent.libvirt_network import TEMPLATE, NetworkWords, variables, wrong

    spec = convert(NetworkWords, said, node, path)
    errors = [IntentError(text, *place_of(node, path, steps)) for steps, text in wrong(spec)]
    if errors:
        raise joined(errors)
    file = spec.template or TEMPLATE
    place = place_of(node, path, ("template",) if spec.template else ())
    try:
        text = renderer.file(file, variables(name, spec))
        tree.expect(text, "network")
    except RenderError as error:
        at = f"templates/{file}:{error.line}" if error.line else f"templates/{file}"
        raise IntentError(f"{at}: {error.message}", *place) from error
    except ValueError as error:
        raise IntentError(f"what templates/{file} made is no network: {error}", *place) from error
    kept = {key: said[key] for key in ("active", "autostart") if key in said}
    return {"xml": text, **kept}


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
