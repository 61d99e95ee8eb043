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
from fleet.intent.device import Device, read_device
from fleet.intent.offloads import with_offloads
from fleet.intent.other import namespaces_of, read_others
from fleet.intent.rendering import render_data
from fleet.intent.sections import check_network, check_sections, device_entries
from fleet.intent.tree import Mapping, Node, path_text, words
from fleet.render import Renderer
from fleet.state import State

if TYPE_CHECKING:
    from fleet.intent.settings import Settings

Path = tuple[str | int, ...]

#: Results kept for hosts that share their nodes; most nodes of a large fleet are shared.
_REMEMBERED = 2_000


class Assembler:
    """Makes states; what hosts share is validated once."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._devices: dict[Path, tuple[Node, Device]] = {}
        self._sysctls: dict[tuple[str, str], Resource] = {}
        self._settings: dict[int, tuple[Node, Settings]] = {}

    def render(self, data: Mapping, about: dict[str, Any]) -> Mapping:
        """Return a host's data with its sections rendered; ``about`` is ``host`` in templates."""
        check_sections(data)
        return render_data(self.renderer, data, about)

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
            space = "" if name == HOST else name
            resources += _resources(own, space)
            try:
                resources = list(with_offloads(resources, own.values(), space))
            except IntentError as error:
                errors.append(error)
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
        for item in read_others(data, namespace, base, self.renderer):
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
        errors: list[IntentError] = list(check_network(network, base))
        for section, name, node in device_entries(network):
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
        if any(device.kind == "vrf" for device in devices.values()):
            from fleet.intent.vrf_tables import fill_tables

            errors.extend(fill_tables(devices))
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
    settings = convert(Settings, said, node, ("fleet",))
    record = node.get("record") if isinstance(node, Mapping) else None
    if record is not None and not record.file.endswith("defaults.yaml"):
        message = "all hosts have one record; name it in inventory/defaults.yaml"
        raise IntentError(message, record.key_place, "fleet.record")
    return settings


def _dotted(key: str) -> str:
    """Return a sysctl's name with dots; sysctl(8): where a slash comes first the two swap."""
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or (0 <= dot < slash):
        return key
    return key.translate(str.maketrans("/.", "./"))


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
        if device.functions:
            yield Resource(namespace, "sriov", device.name, device.functions)
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
