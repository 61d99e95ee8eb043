"""What is wrong between a host's devices, found before the host is contacted.

Each check is a generator of errors; an error names both places that cannot be together.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from fleet.errors import IntentError
from fleet.host.state import Management
from fleet.intent.device import Device
from fleet.intent.source import nearest

Devices = dict[str, Device]

#: Ports that guests bring; a bridge may name them though nobody defines them.
GUEST_PORTS = ("vnet*", "tap*")
_HOST_BITS = {4: 32, 6: 128}


def check_devices(devices: Devices, management: Management) -> Iterator[IntentError]:
    """Yield all that is wrong between devices that are each right by themselves."""
    yield from _names(devices)
    yield from _addresses(devices)
    yield from _macs(devices)
    yield from _ports(devices)
    yield from _links(devices)
    yield from _peers(devices)
    yield from _routes(devices)
    yield from _management(devices, management)


def _error(
    device: Device, message: str, *steps: str | int, remedy: str = "", near: str = ""
) -> IntentError:
    node, path = device.node_at(*steps)
    place = node.place if steps else node.key_place
    return IntentError(message, place, path, remedy=remedy, nearest=near)


def _of(device: Device, name: str) -> tuple[Any, ...]:
    """Return a list of a device's spec, empty where its kind has none or it is not named."""
    return getattr(device.spec, name, None) or ()


def _at(device: Device, *steps: str | int) -> str:
    place = device.node_at(*steps)[0].place
    return f"{place.file}:{place.line}"


def _names(devices: Devices) -> Iterator[IntentError]:
    for device in devices.values():
        wanted = getattr(device.spec, "set_name", None)
        other = devices.get(wanted) if wanted else None
        if other is not None and other is not device:
            message = f"{wanted} is the name of another device, at {_at(other)}"
            yield _error(device, message, "set-name")


def _addresses(devices: Devices) -> Iterator[IntentError]:
    seen: list[tuple[Device, int, ipaddress.IPv4Interface | ipaddress.IPv6Interface]] = []
    vrfs = {
        name: vrf.name
        for vrf in devices.values()
        if vrf.kind == "vrf"
        for name in (vrf.name, *(vrf.spec.interfaces or ()))
    }
    for device in devices.values():
        for index, item in enumerate(_of(device, "addresses")):
            mine = ipaddress.ip_interface(item.address)
            for other, position, theirs in seen:
                if theirs.version != mine.version:
                    continue
                where = _at(other, "addresses", position)
                if theirs.ip == mine.ip:
                    yield _error(
                        device, f"{mine.ip} is also on {other.name}, at {where}", "addresses", index
                    )
                elif vrfs.get(other.name) != vrfs.get(device.name):
                    continue  # each VRF leads its own networks
                elif other is not device and _overlap(mine, theirs):
                    yield _error(
                        device,
                        f"{mine.network} overlaps {theirs.network} on {other.name}, at {where}",
                        "addresses",
                        index,
                        remedy="a network belongs on one device: bridge the two, or split it",
                    )
            seen.append((device, index, mine))


def _overlap(one: object, other: object) -> bool:
    first, second = one.network, other.network  # type: ignore[attr-defined]
    # Single addresses overlap nothing, and every device has the link-local network.
    networks = (first, second)
    if any(net.prefixlen == _HOST_BITS[net.version] or net.is_link_local for net in networks):
        return False
    return bool(first.overlaps(second))


def _macs(devices: Devices) -> Iterator[IntentError]:
    set_by: dict[str, Device] = {}
    matched: dict[str, Device] = {}
    for device in devices.values():
        match = getattr(device.spec, "match", None)
        wanted = match.macaddress if match else None
        if wanted and (other := matched.setdefault(wanted, device)) is not device:
            message = f"{wanted} already finds {other.name}, at {_at(other, 'match')}"
            yield _error(device, message, "match", "macaddress")
        mac = getattr(device.spec, "macaddress", None)
        # A bridge may well carry the address of its NIC.
        if not mac or device.kind == "bridge":
            continue
        if (other := set_by.setdefault(mac, device)) is not device:
            message = f"{mac} is also the address of {other.name}, at {_at(other, 'macaddress')}"
            yield _error(device, message, "macaddress")


def _ports(devices: Devices) -> Iterator[IntentError]:
    masters: dict[str, Device] = {}
    for bridge in devices.values():
        if bridge.kind not in ("bridge", "bond", "vrf"):
            continue
        for index, name in enumerate(bridge.spec.interfaces or ()):
            yield from _port(bridge, index, name, devices, masters)
        if bridge.kind == "bridge":
            yield from _port_settings(bridge)


def _port(
    bridge: Device, index: int, name: str, devices: Devices, masters: Devices
) -> Iterator[IntentError]:
    steps = ("interfaces", index)
    other = masters.setdefault(name, bridge)
    if other is not bridge:
        where = _at(other, "interfaces")
        yield _error(bridge, f"{name} is already a port of {other.name}, at {where}", *steps)
    elif name in bridge.spec.interfaces[:index]:
        yield _error(bridge, f"{name} is listed twice", *steps)
    port = devices.get(name)
    if port is None:
        if not any(fnmatchcase(name, pattern) for pattern in GUEST_PORTS):
            yield _error(
                bridge,
                f"there is no device {name}",
                *steps,
                near=nearest(name, devices),
                remedy=f"define it, for a NIC as `ethernets: {{{name}: {{}}}}`",
            )
        return
    if bridge.kind == "vrf":
        if port.kind == "vrf":
            yield _error(bridge, f"{name} is a VRF, and none can be in another", *steps)
        return
    if port.kind in ("bridge", "vrf") or (bridge.kind == port.kind == "bond"):
        yield _error(
            bridge,
            f"{name} is a {port.kind}, and a {port.kind} cannot be a port of a {bridge.kind}",
            *steps,
            remedy="join two bridges with a pair of virtual-ethernets" * (port.kind == "bridge"),
        )
    mtu = getattr(port.spec, "mtu", None)
    if mtu and bridge.spec.mtu and mtu < bridge.spec.mtu:
        yield _error(
            port,
            f"{mtu} is less than the {bridge.spec.mtu} of its bridge {bridge.name}, "
            f"at {_at(bridge, 'mtu')}",
            "mtu",
            remedy="a frame that the bridge takes must fit through all its ports",
        )


def _port_settings(bridge: Device) -> Iterator[IntentError]:
    spec = bridge.spec
    if spec.interfaces is None:
        return
    parameters = spec.parameters
    named: list[tuple[tuple[str, ...], dict[str, object] | None]] = [(("ports",), spec.ports)]
    if parameters is not None:
        named.append((("parameters", "path-cost"), parameters.path_cost))
        named.append((("parameters", "port-priority"), parameters.port_priority))
    for steps, settings in named:
        for name in settings or ():
            guest = any(fnmatchcase(name, pattern) for pattern in GUEST_PORTS)
            if name not in spec.interfaces and not guest:
                near = nearest(name, spec.interfaces)
                yield _error(bridge, f"{name} is no port of {bridge.name}", *steps, name, near=near)


def _links(devices: Devices) -> Iterator[IntentError]:
    for device in devices.values():
        if device.kind != "vlan":
            continue
        name = device.spec.link
        if name not in devices:
            yield _error(
                device,
                f"there is no device {name}",
                "link",
                near=nearest(name, devices),
                remedy=f"define it, for a NIC as `ethernets: {{{name}: {{}}}}`",
            )


def _peers(devices: Devices) -> Iterator[IntentError]:
    for device in devices.values():
        if device.kind != "veth" or getattr(device.spec, "peer_namespace", None):
            continue
        if device.spec.peer_namespace is not None:
            continue  # check_pairs
        name, peer = device.spec.peer, devices.get(device.spec.peer)
        if name == device.name:
            yield _error(device, "a veth cannot be its own peer", "peer")
        elif peer is None or peer.kind != "veth":
            yield _error(
                device,
                f"there is no virtual-ethernet {name}",
                "peer",
                near=nearest(name, [each.name for each in devices.values() if each.kind == "veth"]),
                remedy=f"define it: `{name}: {{peer: {device.name}}}`",
            )
        elif peer.spec.peer != device.name:
            message = f"the peer of {name} is {peer.spec.peer}, at {_at(peer, 'peer')}"
            yield _error(device, message, "peer")


def check_pairs(spaces: dict[str, Devices]) -> Iterator[IntentError]:
    """Yield what is wrong with pairs whose ends are in two namespaces, ``host`` the host's own."""
    for here, devices in spaces.items():
        for device in devices.values():
            there = getattr(device.spec, "peer_namespace", None)
            if there is None:
                continue
            if there == here:
                message = f"{there} is where this end is: leave peer-namespace out"
                yield _error(device, message, "peer-namespace")
                continue
            if there not in spaces:
                near = nearest(there, spaces)
                remedy = "the host's own is called host" if here != "host" else ""
                message = f"there is no namespace {there}"
                yield _error(device, message, "peer-namespace", near=near, remedy=remedy)
                continue
            peer = spaces[there].get(device.spec.peer)
            if peer is None or peer.kind != "veth":
                back = f"{device.spec.peer}: {{peer: {device.name}, peer-namespace: {here}}}"
                message = f"there is no virtual-ethernet {device.spec.peer} in {there}"
                yield _error(device, message, "peer", remedy=f"define it there: `{back}`")
            elif (peer.spec.peer_namespace, peer.spec.peer) != (here, device.name):
                message = (
                    f"the peer of {peer.name} in {there} is {peer.spec.peer}"
                    f" of {peer.spec.peer_namespace or there}, at {_at(peer, 'peer')}"
                )
                yield _error(device, message, "peer")


def _routes(devices: Devices) -> Iterator[IntentError]:
    seen: dict[tuple[object, ...], tuple[Device, int]] = {}
    for device in devices.values():
        links = _on_link(device)
        for index, route in enumerate(_of(device, "routes")):
            reachable = route.on_link or links is None or not route.via
            if not reachable and not _within(route.via, links or []):
                yield _error(
                    device,
                    f"{route.via} is on no network of {device.name}",
                    "routes",
                    index,
                    "via",
                    remedy="give the device an address beside the gateway, or say `on-link: true`",
                )
            six = ":" in (route.to if route.to != "default" else route.via or route.from_ or "")
            # IPv6 makes one multipath route of several gateways; IPv4 takes the first alone.
            own = (device.name, route.via) if six else ()
            key = (six, route.to, route.table, route.metric, *own)
            other, position = seen.setdefault(key, (device, index))
            if (other, position) != (device, index):
                where = _at(other, "routes", position)
                yield _error(
                    device,
                    f"a second route to {route.to}, first at {where}",
                    "routes",
                    index,
                    remedy="give one of them another metric or table",
                )


def _on_link(device: Device) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network] | None:
    """Return the networks a gateway may be on, None where others give the device addresses."""
    networks = _networks(device)
    for route in _of(device, "routes"):
        if networks is not None and not route.via and route.to != "default":
            networks.append(ipaddress.ip_network(route.to))
    return networks


def _networks(device: Device) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network] | None:
    """Return the networks of a device's own addresses, None where it may get others."""
    if getattr(device.spec, "addresses", None) is None or any(
        key.startswith("dhcp") for key in device.manager
    ):
        return None
    return [ipaddress.ip_interface(item.address).network for item in device.spec.addresses]


def _within(via: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    address = ipaddress.ip_address(via)
    return address.is_link_local or any(address in network for network in networks)


def _management(devices: Devices, management: Management) -> Iterator[IntentError]:
    """Refuse to take away the address that operators come in by."""
    holders = {
        item.address.partition("/")[0]: device
        for device in devices.values()
        for item in _of(device, "addresses")
    }
    remedy = "keep it, or declare the new one: `fleet: {management: {address: …}}`"
    for text in management.addresses:
        address = ipaddress.ip_address(text)
        holder = holders.get(text)
        if holder is not None:
            continue
        for device in devices.values():
            networks = _networks(device)
            if networks is None:
                continue
            if device.name == management.device or any(address in network for network in networks):
                yield _error(
                    device,
                    f"the management address {text} is not among the addresses of {device.name}",
                    "addresses",
                    remedy=remedy,
                )
