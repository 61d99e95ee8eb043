"""From a host's merged data to its state: rendering, specs, and the checks between them."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fleet.errors import IntentError
from fleet.host import registry
from fleet.host.change import Resource
from fleet.host.kernel.observation import HOST
from fleet.host.spec import encode
from fleet.host.state import Management
from fleet.intent.checks import check_devices, check_pairs
from fleet.intent.convert import convert, joined
from fleet.intent.device import Device, check_renderer, read_device
from fleet.intent.netplan import LATER, NETWORK, REFUSED, verdict_text
from fleet.intent.netplan import SECTIONS as SECTIONS_OF_DEVICES
from fleet.intent.other import HOLDERS, KINDS, TOP, namespaces_of, read_others
from fleet.intent.source import nearest
from fleet.intent.tree import (
    TEMPLATES,
    Mapping,
    Node,
    Scalar,
    Sequence,
    path_text,
    plain,
    words,
)
from fleet.render import Renderer, RenderError
from fleet.state import State

if TYPE_CHECKING:
    from fleet.intent.settings import Settings

Path = tuple[str | int, ...]

#: Keys of ``data`` that are fleet's; the others are the operator's own variables.
SECTIONS = tuple(dict.fromkeys(("network", "sysctl", "fleet", *HOLDERS, *TOP)))
#: Results kept for hosts that share their nodes; most nodes of a large fleet are shared.
_REMEMBERED = 2_000
#: Sections that later kinds will have.
RESERVED = tuple(name for name in ("libvirt", "hugepages", "dpdk") if name not in SECTIONS)
#: Sections that people may look for here.
UNDER_NETWORK = ("namespaces", *(entry.section for entry in KINDS if entry.under == "network"))


class Assembler:
    """Makes states; what hosts share is validated once."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._devices: dict[Path, tuple[Node, Device]] = {}
        self._sysctls: dict[tuple[str, str], Resource] = {}
        self._settings: dict[int, tuple[Node, Settings]] = {}

    def render(self, data: Mapping, about: dict[str, Any]) -> Mapping:
        """Return a host's data with its sections rendered; ``about`` is ``host`` in templates."""
        _check_sections(data)
        sections = [data.entries[key] for key in SECTIONS if key in data.entries]
        tables = _names_templates(data.get("network"))
        if not tables and not any(node.flags & TEMPLATES for node in sections):
            return data
        variables = {key: plain(node) for key, node in data.entries.items() if key not in SECTIONS}
        variables["host"] = about
        entries = {
            key: self._rendered(node, variables, (key,)) if key in SECTIONS else node
            for key, node in data.entries.items()
        }
        network = entries.get("network")
        if tables and isinstance(network, Mapping):
            entries["network"] = self._tables(network, variables, ("network",))
        return Mapping(entries, data.file, data.at, data.key_at)

    def _tables(self, network: Mapping, variables: dict[str, Any], base: Path) -> Mapping:
        """Return a network whose nftables tables have their template's text as rules."""
        entries = dict(network.entries)
        tables = network.get("nftables")
        if isinstance(tables, Mapping):
            own = {
                name: self._table(node, variables, (*base, "nftables", name))
                for name, node in tables.entries.items()
            }
            entries["nftables"] = Mapping(own, tables.file, tables.at, tables.key_at)
        spaces = network.get("namespaces")
        if isinstance(spaces, Mapping):
            inner: dict[str, Node] = {
                name: self._tables(node, variables, (*base, "namespaces", name))
                if isinstance(node, Mapping)
                else node
                for name, node in spaces.entries.items()
            }
            entries["namespaces"] = Mapping(inner, spaces.file, spaces.at, spaces.key_at)
        return Mapping(entries, network.file, network.at, network.key_at)

    def _table(self, node: Node, variables: dict[str, Any], path: Path) -> Node:
        name = node.get("template") if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or not isinstance(name, Scalar):
            return node
        where = path_text((*path, "template"))
        if "rules" in node.entries:
            raise IntentError("rules and a template: name one of them", name.key_place, where)
        try:
            text = self.renderer.file(name.text, variables)
        except RenderError as error:
            raise IntentError(f"{name.text}: {error.message}", name.place, where) from error
        entries: dict[str, Node] = {k: v for k, v in node.entries.items() if k != "template"}
        entries["rules"] = Scalar(text, True, name.file, name.at, name.key_at)
        return Mapping(entries, node.file, node.at, node.key_at)

    def _rendered(self, node: Node, variables: dict[str, Any], path: Path) -> Node:
        if not node.flags & TEMPLATES:
            return node
        if isinstance(node, Mapping):
            entries = {
                key: self._rendered(value, variables, (*path, key))
                for key, value in node.entries.items()
            }
            return Mapping(entries, node.file, node.at, node.key_at)
        if isinstance(node, Sequence):
            items = [
                self._rendered(item, variables, (*path, index))
                for index, item in enumerate(node.items)
            ]
            return Sequence(items, node.file, node.at, node.key_at)
        assert isinstance(node, Scalar)
        try:
            text = self.renderer.text(node.text, variables)
        except RenderError as error:
            near = nearest(error.undefined, variables) if error.undefined else ""
            raise IntentError(error.message, node.place, path_text(path), nearest=near) from error
        # As if written so, but never null: that would leave out what a layer below says.
        rendered = Scalar(text, True, node.file, node.at, node.key_at)
        rendered.plain = not rendered.null
        return rendered

    def settings(self, data: Mapping) -> Settings:
        """Return the settings of rendered data."""
        node = data.get("fleet")
        if node is None:
            from fleet.intent.settings import Settings

            return Settings()
        if id(node) not in self._settings:
            if len(self._settings) >= _REMEMBERED:
                self._settings.clear()
            self._settings[id(node)] = node, read_settings(node)
        return self._settings[id(node)][1]

    def state(self, name: str, hostname: str, data: Mapping) -> State:
        """Return the state of a host from its rendered data; raises IntentError with all errors."""
        errors: list[IntentError] = []
        settings: Settings | None = None
        try:
            settings = self.settings(data)
        except IntentError as error:
            errors.append(error)
        devices, found = self.devices(data)
        errors += found
        resources = list(self._others(data, "", ("network",), errors))
        spaces = {HOST: devices}
        for name, inner in self._namespaces(data, errors):
            base = ("network", "namespaces", name)
            resources.append(Resource("", "namespace", name, {}))
            spaces[name], found = self.devices(inner, base)
            errors += found
            resources += self._others(inner, name, base, errors)
        if settings is None or errors:
            raise joined(errors)
        management = _management(hostname, settings, devices)
        errors = list(check_pairs(spaces))
        for name, own in spaces.items():
            errors += check_devices(own, management if name == HOST else Management())
            resources += _resources(own, "" if name == HOST else name)
        if errors:
            raise joined(errors)
        return State(
            host=name,
            resources=_ordered(resources),
            management=management,
            ignore=settings.ignore,
            probes={"gateway": settings.probes.gateway, "targets": list(settings.probes.targets)},
            manager=_manager(devices),
            files=self._files(settings, devices, management),
        )

    def _files(
        self, settings: Settings, devices: dict[str, Device], management: Management
    ) -> dict[str, str]:
        """Return the files of the host's own network manager, text by path."""
        if settings.manager == "none":
            return {}
        if settings.manager == "networkd":
            from fleet.intent.networkd import networkd_files

            return networkd_files(devices, management.addresses)
        from fleet.intent.manager import NETPLAN_FILE, netplan_file

        return {NETPLAN_FILE: netplan_file(devices, self.renderer, management.addresses)}

    def _namespaces(
        self, data: Mapping, errors: list[IntentError]
    ) -> Iterator[tuple[str, Mapping]]:
        """Yield each namespace as data of its own: its network, and its parameters."""
        network = data.get("network")
        for item in namespaces_of(network) if isinstance(network, Mapping) else ():
            if isinstance(item, IntentError):
                errors.append(item)
                continue
            name, node = item
            inner: dict[str, Node] = {k: v for k, v in node.entries.items() if k != "sysctl"}
            own: dict[str, Node] = {"network": Mapping(inner, node.file, node.at, node.key_at)}
            if "sysctl" in node.entries:
                own["sysctl"] = node.entries["sysctl"]
            yield name, Mapping(own, node.file, node.at, node.key_at)

    def _others(
        self, data: Mapping, namespace: str, base: Path, errors: list[IntentError]
    ) -> Iterator[Resource]:
        """Yield the resources that are no devices, and add what is wrong with them to errors."""
        for item in read_others(data, namespace, base):
            if isinstance(item, IntentError):
                errors.append(item)
            else:
                yield item
        try:
            for resource in self._sysctl(data.get("sysctl")):
                yield dataclasses.replace(resource, namespace=namespace)
        except IntentError as error:
            errors.append(error)

    def devices(
        self, data: Mapping, base: Path = ("network",)
    ) -> tuple[dict[str, Device], list[IntentError]]:
        """Return the devices of rendered data by name, and what is wrong with the others."""
        network = data.get("network")
        if network is None:
            return {}, []
        if not isinstance(network, Mapping):
            return {}, [IntentError("a mapping is expected", network.place, "network")]
        devices: dict[str, Device] = {}
        errors: list[IntentError] = list(_check_network(network, base))
        for section, name, node in _entries(network):
            try:
                device = self._device(section, name, node, base)
            except IntentError as error:
                errors.append(error)
                continue
            if device.manager and base != ("network",):
                errors.append(
                    IntentError(
                        f"the host's manager does not reach into a namespace: "
                        f"{', '.join(sorted(device.manager))}",
                        node.key_place,
                        path_text(device.path),
                    )
                )
            other = devices.setdefault(name, device)
            if other is not device:
                place = other.node.key_place
                errors.append(
                    IntentError(
                        f"{name} is already under {other.section}, at {place.file}:{place.line}",
                        node.key_place,
                        path_text((*base, section, name)),
                    )
                )
        return devices, errors

    def _device(self, section: str, name: str, node: Node, base: Path) -> Device:
        """Return a device, remembered where its node is one that many hosts share."""
        key = (*base, section, name, id(node))
        if key not in self._devices:
            device = read_device(section, name, node, base)
            if len(self._devices) >= _REMEMBERED:
                self._devices.clear()
            # The node is kept with it, for an id is unique only as long as its object lives.
            self._devices[key] = node, device
        return self._devices[key][1]

    def _sysctl(self, node: Node | None) -> list[Resource]:
        if node is None:
            return []
        if not isinstance(node, Mapping):
            raise IntentError("a mapping is expected", node.place, "sysctl")
        errors: list[IntentError] = []
        found: dict[str, Resource] = {}
        for key, value in node.entries.items():
            try:
                resource = self._one_sysctl(key, value)
            except IntentError as error:
                errors.append(error)
                continue
            if resource.name in found:
                message = f"{resource.name} is here twice, spelt with dots and with slashes"
                errors.append(IntentError(message, value.key_place, f"sysctl.{key}"))
            found[resource.name] = resource
        if errors:
            raise joined(errors)
        return list(found.values())

    def _one_sysctl(self, key: str, node: Node) -> Resource:
        from fleet.host.fields import SysctlName
        from fleet.host.kinds.sysctl import SPEC
        from fleet.intent.convert import adapter

        value = words(node)
        texts: list[str] = []
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                message = "a text or a list of texts is expected"
                raise IntentError(message, node.place, f"sysctl.{key}")
            texts.append(text)
        # sysctl(8) prints the parts of a value apart by tabs; written they are by any space.
        text = " ".join(part for part in re.split("[ \t]+", " ".join(texts)) if part)
        if (key, text) not in self._sysctls:
            if len(self._sysctls) >= _REMEMBERED:
                self._sysctls.clear()
            try:
                name = adapter(SysctlName).validate_python(_dotted(key))
            except ValueError:
                raise IntentError(
                    f"{key!r} is not a sysctl such as net.ipv4.ip_forward", node.key_place, "sysctl"
                ) from None
            spec = convert(SPEC, {"value": text}, node, ("sysctl", key))
            self._sysctls[key, text] = Resource("", "sysctl", name, encode(spec))
        return self._sysctls[key, text]


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


def read_settings(node: Node) -> Settings:
    """Return the settings that ``fleet:`` says; raises IntentError."""
    from fleet.intent.settings import Settings

    said = words(node)
    management = said.get("management") if isinstance(said, dict) else None
    if isinstance(management, dict) and isinstance(management.get("address"), str):
        management["address"] = [management["address"]]
    for key in ("gates", "ignore"):
        if isinstance(said, dict) and isinstance(said.get(key), str):
            said[key] = [said[key]]
    return convert(Settings, said, node, ("fleet",))


def _dotted(key: str) -> str:
    """Return a sysctl's name with dots; sysctl(8): where a slash comes first the two swap."""
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or (0 <= dot < slash):
        return key
    return key.translate(str.maketrans("/.", "./"))


def _check_sections(data: Mapping) -> None:
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


def _check_network(network: Mapping, base: Path) -> Iterator[IntentError]:
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


def _entries(network: Mapping) -> Iterator[tuple[str, str, Node]]:
    for section in SECTIONS_OF_DEVICES:
        node = network.get(section)
        if isinstance(node, Mapping):
            for name, inner in node.entries.items():
                if name != "renderer" or isinstance(inner, Mapping):
                    yield section, name, inner


def _management(hostname: str, settings: Settings, devices: dict[str, Device]) -> Management:
    addresses = settings.management.address or ()
    if not addresses:
        try:
            addresses = (str(ipaddress.ip_address(hostname.strip("[]"))),)
        except ValueError:
            addresses = ()
    device = settings.management.interface
    for candidate in devices.values():
        for item in getattr(candidate.spec, "addresses", None) or ():
            if device is None and item.address.partition("/")[0] in addresses:
                device = candidate.name
    return Management(tuple(addresses), device)


def _resources(devices: dict[str, Device], namespace: str = "") -> Iterator[Resource]:
    rules: dict[str, Resource] = {}
    extra = _port_flags(devices)
    for device in devices.values():
        data = device.data if device.name not in extra else encode(extra[device.name])
        yield Resource(namespace, device.kind, device.name, data)
        for rule in device.rules:
            rules[rule.name] = Resource(namespace, "rule", rule.name, rule.data)
    yield from rules.values()


def _port_flags(devices: dict[str, Device]) -> dict[str, Any]:
    """Return the specs of the bridges whose ports carry netplan's flags on the device."""
    specs: dict[str, Any] = {}
    for device in devices.values():
        if not device.port_flags:
            continue
        from fleet.host.kinds.bridge import BridgePort

        flags = convert(BridgePort, device.port_flags, device.node, device.path)
        bridge = next(
            (
                d
                for d in devices.values()
                if d.kind == "bridge" and device.name in (d.spec.interfaces or ())
            ),
            None,
        )
        if bridge is None:
            raise IntentError(
                f"{', '.join(device.port_flags)} is for ports, and no bridge lists {device.name}",
                device.node.key_place,
                path_text(device.path),
            )
        spec = specs.get(bridge.name, bridge.spec)
        own = (spec.ports or {}).get(device.name, BridgePort())
        ports = {**(spec.ports or {}), device.name: dataclasses.replace(own, **encode(flags))}
        specs[bridge.name] = dataclasses.replace(spec, ports=ports)
    return specs


def _ordered(resources: list[Resource]) -> tuple[Resource, ...]:
    place = {entry.kind: number for number, entry in enumerate(registry.KINDS)}
    return tuple(sorted(resources, key=lambda r: (r.namespace, place[r.kind], r.name)))


def _manager(devices: dict[str, Device]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for device in devices.values():
        if device.manager:
            tree.setdefault(device.section, {})[device.name] = device.manager
    return tree
