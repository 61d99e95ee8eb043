"""A host's data rendered: its templates in values, and its tables' template files."""

from __future__ import annotations

from typing import Any

from fleet.errors import IntentError
from fleet.intent.sections import SECTIONS
from fleet.intent.source import nearest
from fleet.intent.tree import TEMPLATES, Mapping, Node, Scalar, Sequence, path_text, plain
from fleet.render import Renderer, RenderError

Path = tuple[str | int, ...]


def render_data(renderer: Renderer, data: Mapping, about: dict[str, Any]) -> Mapping:
    """Return a host's data with its sections rendered; ``about`` is ``host`` in templates.

    Raises IntentError for the first template that cannot be rendered.
    """
    sections = [data.entries[key] for key in SECTIONS if key in data.entries]
    tables = _names_templates(data.get("network"))
    if not tables and not any(node.flags & TEMPLATES for node in sections):
        return data
    variables = {key: plain(node) for key, node in data.entries.items() if key not in SECTIONS}
    variables["host"] = about
    entries = {
        key: _rendered(renderer, node, variables, (key,)) if key in SECTIONS else node
        for key, node in data.entries.items()
    }
    network = entries.get("network")
    if tables and isinstance(network, Mapping):
        entries["network"] = _tables(renderer, network, variables, ("network",))
    return Mapping(entries, data.file, data.at, data.key_at)


def _tables(renderer: Renderer, network: Mapping, variables: dict[str, Any], base: Path) -> Mapping:
    """Return a network whose nftables tables have their template's text as rules."""
    entries = dict(network.entries)
    tables = network.get("nftables")
    if isinstance(tables, Mapping):
        own = {
            name: _table(renderer, node, variables, (*base, "nftables", name))
            for name, node in tables.entries.items()
        }
        entries["nftables"] = Mapping(own, tables.file, tables.at, tables.key_at)
    spaces = network.get("namespaces")
    if isinstance(spaces, Mapping):
        inner: dict[str, Node] = {
            name: _tables(renderer, node, variables, (*base, "namespaces", name))
            if isinstance(node, Mapping)
            else node
            for name, node in spaces.entries.items()
        }
        entries["namespaces"] = Mapping(inner, spaces.file, spaces.at, spaces.key_at)
    return Mapping(entries, network.file, network.at, network.key_at)


def _table(renderer: Renderer, node: Node, variables: dict[str, Any], path: Path) -> Node:
    name = node.get("template") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(name, Scalar):
        return node
    where = path_text((*path, "template"))
    if "rules" in node.entries:
        raise IntentError("rules and a template: name one of them", name.key_place, where)
    try:
        text = renderer.file(name.text, variables)
    except RenderError as error:
        at = f"templates/{name.text}:{error.line}: " if error.line else ""
        raise IntentError(f"{at}{error.message}", name.place, where) from error
    entries: dict[str, Node] = {k: v for k, v in node.entries.items() if k != "template"}
    entries["rules"] = Scalar(text, True, name.file, name.at, name.key_at)
    return Mapping(entries, node.file, node.at, node.key_at)


def _rendered(renderer: Renderer, node: Node, variables: dict[str, Any], path: Path) -> Node:
    if not node.flags & TEMPLATES:
        return node
    if isinstance(node, Mapping):
        entries = {
            key: _rendered(renderer, value, variables, (*path, key))
            for key, value in node.entries.items()
        }
        return Mapping(entries, node.file, node.at, node.key_at)
    if isinstance(node, Sequence):
        items = [
            _rendered(renderer, item, variables, (*path, index))
            for index, item in enumerate(node.items)
        ]
        return Sequence(items, node.file, node.at, node.key_at)
    assert isinstance(node, Scalar)
    try:
        text = renderer.text(node.text, variables)
    except RenderError as error:
        near = nearest(error.undefined, variables) if error.undefined else ""
        raise IntentError(error.message, node.place, path_text(path), nearest=near) from error
    # As if written so, but never null: that would leave out what a layer below says.
    rendered = Scalar(text, True, node.file, node.at, node.key_at)
    rendered.plain = not rendered.null
    return rendered


def _names_templates(network: Node | None) -> bool:
    """Say whether a table of a network, or of a namespace in it, is written as a template."""
    if not isinstance(network, Mapping):
        return False
    spaces = network.get("namespaces")
    inner = spaces.entries.values() if isinstance(spaces, Mapping) else ()
    tables = network.get("nftables")
    own = tables.entries.values() if isinstance(tables, Mapping) else ()
    named = any(isinstance(node, Mapping) and "template" in node.entries for node in own)
    return named or any(_names_templates(node) for node in inner)
