"""Running hosts become intent: what the helper observed lean, as an inventory would write it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import IntentError
from fleet.host.registry import BY_NAME
from fleet.intent.assemble import Assembler
from fleet.intent.netplan import SECTIONS as DEVICE_SECTIONS
from fleet.intent.tree import Mapping as Tree
from fleet.intent.yaml import compose

Words = dict[str, Any]

_MAIN = 254
#: Jinja2's own: what came from a host is data, never a template.
_TEMPLATE = re.compile(r"\{[{%#]")
#: More rounds of leaving something out than a host has devices: then nothing helps.
_ROUNDS = 500


@dataclass
class Adopted:
    """A host as intent: its sections, and what of the host intent cannot say, one line each."""

    host: str
    intent: Words = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def adopted(host: str, spaces: Mapping[str, Any], hostname: str, assembler: Assembler) -> Adopted:
    """Return what ``fleet.host.planning.lean`` observed as an intent that is valid by itself.

    What intent has no words for is left out, with the key it would be exclusive under, and noted.
    """
    found = Adopted(host)
    found.intent = _sections(spaces.get("") or {}, found.notes)
    inner: Words = {}
    for name, space in spaces.items():
        if name:
            sections = _sections(space, found.notes, f"{name}: ")
            inner[name] = {**sections.pop("network", {}), **sections}
    if inner:
        found.intent.setdefault("network", {})["namespaces"] = inner
    found.intent = _quoted(found.intent)
    _make_valid(found, hostname, assembler)
    return found


def text_of(intent: Words) -> str:
    """Return sections as YAML: devices as blocks, what is inside them on one line each."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent(self, data: Any) -> None:
            node: Any = self.represent_data(data)
            node.flow_style = not data
            self.serialize(node)
            self.represented_objects = {}
            self.object_keeper: list[Any] = []
            self.alias_key = None

    def text(dumper: Any, data: str) -> Any:
        # A text that ends in empty lines, as a block, would swallow what comes after it.
        style = "|" if "\n" in data.rstrip("\n") and not data.endswith("\n\n") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(
        intent, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=96,
        allow_unicode=True,
    )  # fmt: skip
    return dumped


def _sections(space: Mapping[str, Any], notes: list[str], where: str = "") -> Words:
    own = [str(note) for note in space.get("notes") or ()]
    network: Words = {}
    intent: Words = {}
    resources: Mapping[str, Any] = space.get("resources") or {}
    for kind, named in resources.items():
        entry = BY_NAME.get(kind)
        if entry is None or kind in ("namespace", "rule"):
            continue
        if kind == "sysctl":
            intent["sysctl"] = {name: form["value"] for name, form in named.items()}
        elif kind == "sriov":
            for name, form in named.items():
                network.setdefault("ethernets", {}).setdefault(name, {}).update(_form(form))
        else:
            forms = {name: _form(form) for name, form in named.items()}
            holder = network if entry.under == "network" else intent
            if entry.under not in ("", "network"):
                holder = intent.setdefault(entry.under, {})
            # Two kinds may share a section, told apart by a key.
            holder.setdefault(entry.section, {}).update(forms)
    _place_routes(network, space.get("routes") or (), own)
    place_rules(network, (resources.get("rule") or {}).values(), own)
    notes += [where + note for note in own]
    return {**({"network": network} if network else {}), **intent}


def _form(form: Words) -> Any:
    """Return a resource's form as intent writes it: a list of entries has no key of its own."""
    return _whole(form["entries"] if set(form) == {"entries"} else form)


def _whole(data: Any) -> Any:
    """Return plain data with whole numbers whole."""
    if isinstance(data, Mapping):
        return {key: _whole(inner) for key, inner in data.items()}
    if isinstance(data, (list, tuple)):
        return [_whole(item) for item in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def place_rules(network: Words, rules: Iterable[Words], notes: list[str]) -> None:
    """Put each policy rule under the device it is about, for netplan knows no other place."""
    for rule in sorted(rules, key=lambda rule: rule.get("priority") or 0):
        words = {key: value for key, value in rule.items() if key != "family"}
        if words.get("table") == _MAIN:
            del words["table"]
        if "from" not in words and "to" not in words:
            words["family"] = rule.get("family", "ipv4")
        device = _device_of_rule(network, words)
        if device is None:
            notes.append(f"a policy rule is left out, for there is no device: {words}")
        else:
            device.setdefault("routing-policy", []).append(words)


def _place_routes(network: Words, routes: Iterable[Words], notes: list[str]) -> None:
    for route in routes:
        words = {key: value for key, value in route.items() if key != "dev"}
        device = _device_of_rule(network, {"table": words.get("table", _MAIN)})
        if device is None:
            notes.append(f"a route is left out, for there is no device: {words}")
        else:
            device.setdefault("routes", []).append(words)


def _device_of_rule(network: Words, rule: Words) -> Words | None:
    devices: list[Words] = [
        device
        for section, named in network.items()
        if section in DEVICE_SECTIONS
        for device in named.values()
    ]
    source = rule.get("from") or ""
    for device in devices:
        if source and any(_inside(item, source) for item in device.get("addresses") or ()):
            return device
    table = rule.get("table", _MAIN)
    for device in devices:
        if any(route.get("table", _MAIN) == table for route in device.get("routes") or ()):
            return device
    with_addresses = (device for device in devices if device.get("addresses"))
    return next(with_addresses, devices[0] if devices else None)


def _inside(address: Any, network: str) -> bool:
    text = address["address"] if isinstance(address, dict) else address
    try:
        return ipaddress.ip_interface(text).ip in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _quoted(data: Any) -> Any:
    """Return data in which Jinja2 finds nothing to do."""
    if isinstance(data, Mapping):
        return {key: _quoted(inner) for key, inner in data.items()}
    if isinstance(data, list):
        return [_quoted(item) for item in data]
    if isinstance(data, str):
        return _TEMPLATE.sub(lambda found: "{{ '" + found[0] + "' }}", data)
    return data


def _make_valid(found: Adopted, hostname: str, assembler: Assembler) -> None:
    """Leave out, one by one, the keys that the intent's own checks refuse."""
    for _ in range(_ROUNDS):
        if not found.intent:
            return
        tree = compose(text_of(found.intent), found.host)
        assert isinstance(tree, Tree)
        about = {"name": found.host, "hostname": hostname, "groups": []}
        try:
            assembler.state(found.host, hostname, assembler.render(tree, about))
            return
        except IntentError as error:
            first = error
        steps = _steps(first.path)
        depth = _drop(found.intent, steps)
        if depth == 0:
            found.notes.append(str(first))
            found.intent = {}
            return
        left = ".".join(str(step) for step in steps[:depth])
        found.notes.append(f"{left} is left out: {first.message}")
        found.intent = _without_empty(found.intent)


def _steps(path: str) -> list[str]:
    return [step for step in re.split(r"\.|\[\d+\]", path) if step]


def _drop(intent: Words, steps: list[str]) -> int:
    """Delete the deepest mapping's key on a path, below a device; return how deep it was."""
    here: Any = intent
    parents: list[tuple[Words, str]] = []
    rest = list(steps)
    while rest and isinstance(here, dict):
        # Names of devices, tables and sysctls may have dots in them.
        for count in range(len(rest), 0, -1):
            key = ".".join(rest[:count])
            if key in here:
                parents.append((here, key))
                here, rest = here[key], rest[count:]
                break
        else:
            break
    if not parents:
        return 0
    owner, key = parents[-1]
    del owner[key]
    return len(steps) - len(rest)


def _without_empty(intent: Words) -> Words:
    """Return sections without those that nothing is left in."""
    network = {key: named for key, named in intent.get("network", {}).items() if named}
    others = {key: value for key, value in intent.items() if key != "network" and value}
    return {**({"network": network} if network else {}), **others}


# What hosts share


def shared(intents: list[Words]) -> Words:
    """Return what all intents say alike: mappings by key, and other values where identical."""
    if not intents:
        return {}
    first, others = intents[0], intents[1:]
    found: Words = {}
    for key, value in first.items():
        if not all(key in other for other in others):
            continue
        theirs = [other[key] for other in others]
        if all(value == other for other in theirs):
            found[key] = value
        elif isinstance(value, dict) and all(isinstance(other, dict) for other in theirs):
            inner = shared([value, *theirs])
            if inner:
                found[key] = inner
    return found


def beyond(intent: Words, base: Mapping[str, Any]) -> Words:
    """Return what an intent says that a base does not, so that the two merged are the intent."""
    found: Words = {}
    for key, value in intent.items():
        if key not in base:
            found[key] = value
        elif isinstance(value, dict) and isinstance(base[key], Mapping):
            inner = beyond(value, base[key])
            if inner:
                found[key] = inner
        elif not _same(value, base[key]):
            found[key] = value
    return found


def _same(one: Any, other: Any) -> bool:
    """Say whether two values mean the same: YAML's 9000 and a rendered '9000' do."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, Mapping):
        return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    return one == other or (not isinstance(one, bool) and str(one) == str(other))


def only_new(intent: Words, base: Mapping[str, Any]) -> tuple[Words, Words]:
    """Split what goes beyond a base into what the base has no word of, and what it contradicts.

    Only the first can stand in a group: what a base says, something nearer to the host may say.
    """
    new: Words = {}
    other: Words = {}
    for key, value in intent.items():
        if key not in base:
            new[key] = value
        elif isinstance(value, dict) and isinstance(base[key], Mapping):
            inner_new, inner_other = only_new(value, base[key])
            if inner_new:
                new[key] = inner_new
            if inner_other:
                other[key] = inner_other
        else:
            other[key] = value
    return new, other


def merged(low: Words, high: Words) -> Words:
    """Return one intent laid over another, as the inventory's merge does."""
    found = dict(low)
    for key, value in high.items():
        here = found.get(key)
        found[key] = (
            merged(here, value) if isinstance(here, dict) and isinstance(value, dict) else value
        )
    return found
