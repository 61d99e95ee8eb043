"""A shell's characters in every field of the intent: refused with file and line, or plain data.

The fields are walked, not listed: a kind that is added is held to the same from its first day.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from fleet.errors import IntentError
from fleet.host import registry
from fleet.host.spec import dashed
from fleet.intent.assemble import Assembler
from fleet.intent.left import Left
from fleet.intent.libvirt_network import NetworkWords
from fleet.intent.settings import Settings
from fleet.intent.tree import Mapping
from fleet.intent.yaml import compose
from fleet.render import Renderer
from fleet.state import State

ASSEMBLER = Assembler(Renderer(()))
NASTY = ("$(touch x)", "`touch x`", "a;touch x", "a\ntouch x", "-rf", "a|b", "../x", "\x1b[2J")
#: Where free text is meant, which test_text_on_hosts.py sees arrive, and the tables of such text.
FREE = {
    "sysctl.kernel.core_pattern",
    "network.nftables.inet/t.rules",
    "network.flows.e.flows",
    "network.flows.e.groups",
    "network.flows.e.meters",
    "fleet.record",
    "libvirt.networks.e.dns.txt.0",
}
FREE_TABLES = {"external-ids", "other-config", "options"}
Steps = tuple[str, ...]
#: Steps that stand for an item of a list, and for a name that somebody chooses.
ITEM, NAME, KEY = "[]", "{name}", "{key}"


#: What a resource may be called where that is no device.
EXAMPLES = {
    "nftables": "inet/t", "hugepages": "2M", "drivers": "0000:01:00.0", "mounts": "/dev/huge",
    "governors": "all",
}  # fmt: skip


def places(hint: Any, steps: Steps = ()) -> Iterator[Steps]:
    """Yield the way to every scalar of a type, and to every name that it lets somebody choose."""
    origin, inner = get_origin(hint), get_args(hint)
    if hasattr(hint, "__spec_fields__"):
        for name, kind in get_type_hints(hint, include_extras=True).items():
            if name in hint.__spec_fields__:
                yield from places(kind, (*steps, dashed(name)))
    elif origin is Annotated:
        yield from places(inner[0], steps)
    elif origin in (Union, types.UnionType):
        for variant in inner:
            if variant is not type(None):
                yield from places(variant, steps)
    elif origin is tuple:
        yield from places(inner[0], (*steps, ITEM))
    elif origin is dict:
        yield (*steps, NAME if hasattr(inner[1], "__spec_fields__") else KEY)
        yield from places(inner[1], (*steps, "0"))
    else:
        yield steps


def planted(steps: Steps, nasty: str) -> Any:
    """Return data that has a text at a place, and nothing else."""
    if not steps:
        return nasty
    if steps[0] == ITEM:
        return [planted(steps[1:], nasty)]
    if steps[0] in (NAME, KEY):
        return {nasty: {} if steps[0] == NAME else "1"}
    return {steps[0]: planted(steps[1:], nasty)}


def all_places() -> Iterator[Steps]:
    """Yield the way to every place of a host's data where somebody writes something."""
    for entry in registry.KINDS:
        of = registry.load(entry.kind).SPEC
        if entry.kind == "sriov":
            yield from places(of, ("network", "ethernets", "e"))
        elif entry.under == "device":
            yield from places(of, ("network", "ethernets", "e", entry.section, ITEM))
        elif entry.kind == "sysctl":
            yield ("sysctl", KEY)
            yield ("sysctl", "kernel.core_pattern")
        else:
            section = (entry.under, entry.section) if entry.under else (entry.section,)
            yield (*section, NAME)
            example = EXAMPLES.get(entry.section, "e")
            yield from places(of, (*section, example))
    yield from places(Left, ("network", "ethernets", "e"))
    yield from places(NetworkWords, ("libvirt", "networks", "e"))
    yield from places(Settings, ("fleet",))
    yield ("network", "renderer")
    yield ("network", "version")
    yield ("network", "ethernets", "e", "renderer")


def state_of(data: Any) -> State:
    """Return a host's state from its data as JSON, which is YAML; raises IntentError."""
    node = compose(json.dumps(data), "inventory/defaults.yaml")
    assert isinstance(node, Mapping)
    return ASSEMBLER.state("h1", "198.18.0.1", ASSEMBLER.render(node, {}))


def refusals(data: Any) -> list[IntentError]:
    """Return all that is wrong with a host's data."""
    try:
        state_of(data)
    except IntentError as error:
        return [error, *error.others]
    return []


def names(error: IntentError, nasty: str) -> bool:
    """Say whether an error is about a text, and not about what else is missing."""
    return repr(nasty) in error.message or "control character" in error.message


def holds(data: Any, nasty: str) -> bool:
    """Say whether a text is in a host's state, letter for letter; the record is no host's."""
    said = json.dumps([resource.spec for resource in state_of(data).resources])
    return json.dumps(nasty) in said or data == {"fleet": {"record": nasty}}


PLACES = list(dict.fromkeys(all_places()))


@pytest.mark.parametrize("steps", PLACES, ids=[".".join(each) for each in PLACES])
def test_a_shells_characters_are_refused_or_plain_text(steps: Steps) -> None:
    """What is not meant to be free text is refused with its file and line, at every place."""
    free = ".".join(steps) in FREE or (steps[-2] in FREE_TABLES and steps[-1] != KEY)
    for nasty in NASTY:
        data = planted(steps, nasty)
        found = refusals(data)
        named = [error for error in found if names(error, nasty)]
        for error in named:
            assert (error.file, error.line) == ("inventory/defaults.yaml", 1)
        if free and not named:
            assert [error.message for error in found] in (
                [],
                ["flows is missing"],
                ["forward is missing"],
            )
            assert found or holds(data, nasty)
        else:
            assert named, nasty
