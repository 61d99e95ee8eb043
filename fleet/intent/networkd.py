"""The files of systemd-networkd, from a host's devices: what it can say of them.

systemd.network(5), systemd.netdev(5), systemd.link(5); the floor is systemd 252, Debian 12's. The
words that networkd lacks are applied at boot by fleet's own units.
"""

from __future__ import annotations

from fleet.host.links.bridge_vlans import words_for_networkd
from fleet.host.transactions.lasting import HEADER, NETWORKD, PREFIX
from fleet.intent.device import Device
from fleet.intent.networkd_devices import HUNG, JOINED, Sections, Values, lines_of, netdev
from fleet.intent.networkd_left import is_true, left_sections, network_lines


def networkd_files(devices: dict[str, Device], management: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the text of each file by its path under /etc; the same devices give the same texts.

    ``management`` are the addresses by which the host is managed.
    """
    files: dict[str, str] = {}
    for name in sorted(devices):
        device = devices[name]
        if device.base != ("network",):
            continue
        if not _has(device, devices):
            continue
        made = netdev(device, devices, management)
        if made:
            files[_path(name, "netdev")] = _text(made)
        link = _link_file(device)
        if link:
            files[_path(name, "link")] = _text(link)
        if _says_something(device, devices):
            files[_path(name, "network")] = _text(_network(device, devices))
    return files


def _says_something(device: Device, devices: dict[str, Device]) -> bool:
    """Whether intent has a word for a device's file: networkd reads one file for a device, and an
    empty one of fleet's would hide the site's own, addresses and all, from the next boot."""
    own = {key for key in device.data if key not in ("match", "set_name")}
    tied = _masters(device, devices) or _hung(device, devices) or _port(device, devices)
    return bool(device.kind != "ethernet" or own or device.manager or device.rules or tied)


def _path(name: str, suffix: str) -> str:
    return f"{NETWORKD}{PREFIX}{name}.{suffix}"


def _text(sections: Sections) -> str:
    parts = ["\n".join([f"[{section}]", *lines]) for section, lines in sections if lines]
    return HEADER + "\n\n".join(parts) + "\n"


def _has(device: Device, devices: dict[str, Device]) -> bool:
    """Whether networkd can have the device: it knows of no other namespace than its own."""
    data = device.data
    peer = devices.get(str(data.get("peer", "")))
    if device.kind == "veth":
        return not data.get("peer_namespace") and peer is not None and peer.kind == "veth"
    lower = data.get("link")
    return not lower or (lower in devices and _has(devices[lower], devices))


# .link: what udev does, before anybody sees the NIC.


def _link_file(device: Device) -> Sections:
    lines = []
    if device.data.get("set_name"):
        lines.append(f"Name={device.data['set_name']}")
    if is_true(device.manager.get("wakeonlan")):
        lines.append("WakeOnLan=magic")
    if device.kind != "ethernet" or not lines:
        return []
    return [("Match", _match(device, "OriginalName")), ("Link", lines)]


def _match(device: Device, word: str) -> list[str]:
    match = device.data.get("match") or {}
    if not match:
        return [f"{word}={device.name}"]
    words = {"name": word, "macaddress": "PermanentMACAddress", "driver": "Driver"}
    lines = lines_of(match, words)
    if match.get("pci_address"):
        lines.append(f"Path=pci-{match['pci_address']}")
    return lines


# .network: what networkd does to a device, whoever made it.


def _network(device: Device, devices: dict[str, Device]) -> Sections:
    data, left = device.data, device.manager
    # networkd would take a port out of a bridge that intent does not name, OVS's for one.
    ties = [*(_masters(device, devices) or ["KeepMaster=yes"]), *_hung(device, devices)]
    sections: Sections = [
        ("Match", _match(device, "Name")),
        ("Link", _link_lines(device)),
        ("Network", [*_own_lines(device), *ties]),
    ]
    for address in data.get("addresses") or ():
        sections.append(("Address", _address(address)))
    for route in data.get("routes") or ():
        sections.append(("Route", _route(route)))
    for rule in device.rules:
        sections.append(("RoutingPolicyRule", _rule(rule.data)))
    sections += left_sections(left)
    port = _port(device, devices)
    if port:
        sections.append(("Bridge", port))
    for line in _vlans(device, devices):
        # A section takes one VLAN or one range (systemd.network(5)).
        sections.append(("BridgeVLAN", [line]))
    return sections


def _link_lines(device: Device) -> list[str]:
    lines = lines_of(device.data, {"mtu": "MTUBytes"})
    if device.data.get("macaddress") and device.kind in ("ethernet", "tap", "tun"):
        lines.append(f"MACAddress={device.data['macaddress']}")
    policy = {"manual": "manual", "off": "always-down"}.get(
        str(device.data.get("activation_mode") or "")
    )
    if policy:
        lines.append(f"ActivationPolicy={policy}")
    optional = is_true(device.manager.get("optional"))
    if optional or device.kind != "ethernet" or policy:
        lines.append("RequiredForOnline=no")
    return lines


def _own_lines(device: Device) -> list[str]:
    lines = network_lines(device.manager)
    leased = any(line.startswith("DHCP=") for line in lines)
    if not leased:
        # Addresses and routes are there whether or not a cable is, as a plan applies them.
        lines.append("ConfigureWithoutCarrier=yes")
    named = device.data.get("addresses") is not None and device.data.get("routes") is not None
    if not named and not leased and not any(line.startswith("KeepConf") for line in lines):
        # What intent does not name is left as it is.
        lines.append("KeepConfiguration=static")
    return lines


def _masters(device: Device, devices: dict[str, Device]) -> list[str]:
    """Return what joins a device to the one that it is a port of."""
    return [
        f"{JOINED[devices[name].kind]}={name}"
        for name in sorted(devices)
        if devices[name].kind in JOINED
        and device.name in (devices[name].data.get("interfaces") or ())
    ]


def _hung(device: Device, devices: dict[str, Device]) -> list[str]:
    """Return what joins a device to those that stand on it."""
    return [
        f"{HUNG[devices[name].kind]}={name}"
        for name in sorted(devices)
        if devices[name].kind in HUNG and devices[name].data.get("link") == device.name
    ]


def _address(entry: Values) -> list[str]:
    return lines_of(
        entry, {"address": "Address", "label": "Label", "lifetime": "PreferredLifetime"}
    )


_ROUTE = {
    "via": "Gateway",
    "from_": "PreferredSource",
    "metric": "Metric",
    "on_link": "GatewayOnLink",
    "type": "Type",
    "scope": "Scope",
    "table": "Table",
    "mtu": "MTUBytes",
    "congestion_window": "InitialCongestionWindow",
    "advertised_receive_window": "InitialAdvertisedReceiveWindow",
    "advertised_mss": "TCPAdvertisedMaximumSegmentSize",
}


def _route(entry: Values) -> list[str]:
    to = str(entry["to"])
    if to == "default":
        texts = [str(entry[key]) for key in ("via", "from_") if entry.get(key)]
        to = "::/0" if any(":" in text for text in texts) else "0.0.0.0/0"
    return [f"Destination={to}", *lines_of(entry, _ROUTE)]


_RULE = {
    "from_": "From",
    "to": "To",
    "table": "Table",
    "priority": "Priority",
    "mark": "FirewallMark",
    "type_of_service": "TypeOfService",
}


def _rule(data: Values) -> list[str]:
    lines = lines_of(data, _RULE)
    if "from_" not in data and "to" not in data:
        lines.append(f"Family={data.get('family') or 'ipv4'}")
    return lines


#: bridge(8)'s words that networkd has; it sends ``guard`` and ``root_block`` the wrong way round
#: (UseBPDU=, AllowPortToBeRoot=), so fleet's unit sets those at boot, and what it lacks.
_PORT = {
    "isolated": "Isolated",
    "learning": "Learning",
    "flood": "UnicastFlood",
    "mcast_flood": "MulticastFlood",
    "hairpin": "HairPin",
    "fastleave": "FastLeave",
    "neigh_suppress": "NeighborSuppression",
    "cost": "Cost",
    "priority": "Priority",
}


def _vlans(device: Device, devices: dict[str, Device]) -> list[str]:
    """Return the VLANs of a bridge, or of the bridge's port that a device is."""
    if device.kind == "bridge":
        return words_for_networkd(device.data)
    for other in devices.values():
        if other.kind == "bridge" and device.name in (other.data.get("interfaces") or ()):
            return words_for_networkd((other.data.get("ports") or {}).get(device.name) or {})
    return []


def _port(device: Device, devices: dict[str, Device]) -> list[str]:
    """Return the flags of the bridge's port that a device is."""
    flags: Values = {}
    for other in devices.values():
        if other.kind != "bridge" or device.name not in (other.data.get("interfaces") or ()):
            continue
        parameters = other.data.get("parameters") or {}
        for word, flag in (("path_cost", "cost"), ("port_priority", "priority")):
            if device.name in (parameters.get(word) or {}):
                flags[flag] = parameters[word][device.name]
        flags.update((other.data.get("ports") or {}).get(device.name) or {})
        own = device.port_flags.items()
        flags.update({name.replace("-", "_"): is_true(value) for name, value in own})
    return lines_of(flags, _PORT)
