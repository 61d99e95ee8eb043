"""The sections of a host's data: which are fleet's, and what is wrong with a key that is none."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.errors import IntentError
from fleet.intent.device import check_renderer
from fleet.intent.netplan import LATER, NETWORK, REFUSED, verdict_text
from fleet.intent.netplan import SECTIONS as SECTIONS_OF_DEVICES
from fleet.intent.other import HOLDERS, KINDS, TOP
from fleet.intent.source import nearest
from fleet.intent.tree import Mapping, Node, Scalar, path_text, plain

Path = tuple[str | int, ...]

#: Keys of ``data`` that are fleet's; the others are the operator's own variables.
SECTIONS = tuple(dict.fromkeys(("network", "sysctl", "fleet", "presets", *HOLDERS, *TOP)))
#: Sections that later kinds will have.
RESERVED = tuple(name for name in ("libvirt", "hugepages", "dpdk") if name not in SECTIONS)
#: Sections that people may look for here.
UNDER_NETWORK = ("namespaces", *(entry.section for entry in KINDS if entry.under == "network"))


def check_sections(data: Mapping) -> None:
    """Raise IntentError for a key of the data that was meant to be a section and is none."""
    for key, node in data.entries.items():
        if key in SECTIONS:
            continue
        if key in RESERVED:
            raise IntentError(f"this fleet cannot apply {key} yet", node.key_place, key)
        if key in UNDER_NETWORK and isinstance(node, Mapping):
            message = f"{key} belongs under network"
            raise IntentError(message, node.key_place, key, nearest=f"network.{key}")
        if key == "host":
            raise IntentError(
                "in templates `host` is fleet's own",
                node.key_place,
                key,
                remedy="call the variable something else",
            )
        near = nearest(key, SECTIONS)
        if near and isinstance(node, Mapping) and _looks_like(near, node):
            raise IntentError("unknown section", node.key_place, key, nearest=near)


def _looks_like(section: str, node: Mapping) -> bool:
    if section == "network":
        return any(key in NETWORK for key in node.entries)
    if section == "sysctl":
        return any("." in key or "/" in key for key in node.entries)
    return any(key in ("management", "gates", "probes", "ignore", "drain") for key in node.entries)


def check_network(network: Mapping, base: Path) -> Iterator[IntentError]:
    """Yield what is wrong with the keys of a network; ``base`` is its place."""
    for key, node in network.entries.items():
        entry = NETWORK.get(key)
        if entry is None:
            known = [name for name, item in NETWORK.items() if item.verdict not in (REFUSED, LATER)]
            yield IntentError(
                "unknown key", node.key_place, path_text((*base, key)), nearest=nearest(key, known)
            )
        elif entry.verdict in (REFUSED, LATER):
            if not isinstance(node, Mapping) or node.entries:
                yield IntentError(verdict_text(key, entry), node.key_place, path_text((*base, key)))
        elif key == "renderer":
            yield from check_renderer(node, (*base, key))
        elif key == "version" and not (isinstance(node, Scalar) and node.text == "2"):
            yield IntentError(
                f"netplan's version is 2, not {plain(node)!r}", node.place, "network.version"
            )
        elif key in SECTIONS_OF_DEVICES and not isinstance(node, Mapping):
            yield IntentError(
                "a mapping of devices is expected", node.place, path_text((*base, key))
            )
        elif isinstance(node, Mapping) and "renderer" in node.entries:
            yield from check_renderer(node.entries["renderer"], (*base, key, "renderer"))


def device_entries(network: Mapping) -> Iterator[tuple[str, str, Node]]:
    """Yield (section, name, node) of each device of a network."""
    for section in SECTIONS_OF_DEVICES:
        node = network.get(section)
        if isinstance(node, Mapping):
            for name, inner in node.entries.items():
                if name != "renderer" or isinstance(inner, Mapping):
                    yield section, name, inner
