"""The file of a host's own network manager, from its devices: what netplan can say of them.

It says what intent says, less the words and devices that netplan lacks: those are applied at boot
by fleet's own units. The floor is netplan 0.106, Debian 12's: a key that netplan does not know
makes it refuse all of its files, and the host would boot without a network.
"""

from __future__ import annotations

from typing import Any

from fleet.errors import IntentError
from fleet.host.spec import dashed
from fleet.host.transactions.lasting import HEADER
from fleet.intent.device import Device
from fleet.intent.netplan import APPLIED, NETPLAN, SECTIONS, Key, device_table
from fleet.intent.networkd_devices import carried_mac
from fleet.intent.tree import Mapping, path_text
from fleet.intent.yaml import compose
from fleet.render import Renderer, RenderError

NETPLAN_FILE = "/etc/netplan/90-fleet.yaml"
TEMPLATE = "netplan/90-fleet.yaml.j2"
#: netplan 0.107 and later: sections, and keys of a device.
_NEW_SECTIONS = frozenset(("virtual-ethernets", "dummy-devices"))
_NEW_KEYS = frozenset(("hairpin", "port-mac-learning", "neigh-suppress"))
#: Maps whose keys are ports, below ``parameters``.
_OF_PORTS = ("path-cost", "port-priority")
_NOWHERE = ("local", "blackhole", "unreachable", "prohibit", "throw")


def netplan_file(
    devices: dict[str, Device], renderer: Renderer, management: tuple[str, ...] = ()
) -> str:
    """Return the text of NETPLAN_FILE; the same devices give the same text.

    ``management`` are the addresses by which the host is managed. Raises IntentError where the
    project's template makes no netplan file of it.
    """
    tree = network_tree(devices, management)
    text = _yaml(tree).rstrip("\n")
    try:
        made = HEADER + renderer.file(TEMPLATE, {"network": tree, "text": text})
    except RenderError as error:
        line = f":{error.line}" if error.line else ""
        raise IntentError(f"templates/{TEMPLATE}{line}: {error.message}") from error
    _check(made)
    return made


def network_tree(devices: dict[str, Device], management: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``network:`` in netplan's words, sections and devices in a fixed order."""
    tree: dict[str, Any] = {"version": 2, "renderer": "networkd"}
    said: dict[str, dict[str, Any]] = {}
    for name in sorted(devices):
        keys = _device(devices[name])
        if keys is not None:
            said[name] = keys
            mac = carried_mac(devices[name], devices, management)
            if mac:
                keys.setdefault("macaddress", mac)
    _drop_without_link(said)
    for section in SECTIONS:
        here = {name: said[name] for name in said if devices[name].section == section}
        for keys in here.values():
            _only_known_ports(keys, said)
        if here:
            tree[section] = here
    return tree


def _device(device: Device) -> dict[str, Any] | None:
    """Return a device's keys, None where netplan cannot have the device."""
    if device.section in _NEW_SECTIONS or device.section not in NETPLAN:
        return None
    table = device_table(device.section)
    keys = _netplans(device.data, table)
    if "match" in device.data and not keys.get("match"):
        return None  # found by PCI address only; an empty match would be every NIC
    for name in _NEW_KEYS:
        keys.pop(name, None)
    if "addresses" in keys:
        keys["addresses"] = [_address(each) for each in keys["addresses"]]
    if "routes" in keys:
        keys["routes"] = [_route(each) for each in keys["routes"]]
    rules = [_netplans(rule.data, table["routing-policy"].inner or {}) for rule in device.rules]
    rules = [rule for rule in rules if "from" in rule or "to" in rule]
    if rules:
        keys["routing-policy"] = rules
    return {**keys, **_typed(device.manager)}


def _netplans(data: dict[str, Any], table: dict[str, Key]) -> dict[str, Any]:
    """Return a spec's data in netplan's spelling, without the words that are fleet's own."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        word = dashed(name)
        entry = table.get(word)
        if entry is None or entry.ours or entry.verdict != APPLIED:
            continue
        if isinstance(value, dict) and entry.inner:
            value = _netplans(value, entry.inner)
        found[word] = _number(value)
    return found


def _number(value: Any) -> Any:
    """netplan's times are whole seconds."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return value


def _address(entry: dict[str, Any]) -> Any:
    options = {name: value for name, value in entry.items() if name != "address"}
    return {entry["address"]: options} if options else entry["address"]


def _route(entry: dict[str, Any]) -> dict[str, Any]:
    route = {dashed(name): value for name, value in entry.items()}
    if "via" not in route and route.get("type") not in _NOWHERE:
        # Without a gateway it is the link's; the kernel takes that as said, netplan does not.
        route.setdefault("scope", "link")
    return route


def _drop_without_link(said: dict[str, Any]) -> None:
    """netplan refuses a file with a device that stands on one which is not in it."""
    while True:
        lost = [name for name, keys in said.items() if keys.get("link", name) not in said]
        if not lost:
            return
        for name in lost:
            del said[name]


def _only_known_ports(keys: dict[str, Any], said: dict[str, Any]) -> None:
    """netplan refuses a file whose bridge names a device that is not in it."""
    if "interfaces" in keys:
        keys["interfaces"] = [name for name in keys["interfaces"] if name in said]
    parameters = keys.get("parameters", {})
    for word in _OF_PORTS:
        if word in parameters:
            ports = parameters[word]
            parameters[word] = {name: ports[name] for name in sorted(ports) if name in said}
            if not parameters[word]:
                del parameters[word]


def _typed(value: Any) -> Any:
    """Return texts as numbers and booleans where that writes the same letters, without quotes."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, str) and value.isdecimal() and str(int(value)) == value:
        return int(value)
    return value


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            # netplan's parser knows no aliases.
            return True

    return yaml.dump(
        tree, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )


def _check(text: str) -> None:
    """Refuse what netplan would: the project's own template may have made the file."""
    name = f"templates/{TEMPLATE}"
    tree = compose(text, name)
    network = tree.get("network") if isinstance(tree, Mapping) else None
    if not isinstance(network, Mapping):
        raise IntentError(f"{name}: what it makes has no `network:`")
    for section, node in network.entries.items():
        if section not in NETPLAN:
            raise IntentError("no key of netplan's", node.key_place, f"network.{section}")
        if section not in SECTIONS or not isinstance(node, Mapping):
            continue
        table = device_table(section)
        for device, keys in node.entries.items():
            for key, value in keys.entries.items() if isinstance(keys, Mapping) else ():
                if key not in table or table[key].ours:
                    path = path_text(("network", section, device, key))
                    raise IntentError("no key of netplan's", value.key_place, path)
