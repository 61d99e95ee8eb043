"""The files of systemd-networkd, from a host's devices: what it can say of them.

systemd.network(5), systemd.netdev(5), systemd.link(5); the floor is systemd 252, Debian 12's. The
words that networkd lacks are applied at boot by fleet's own units.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from fleet.host.transactions.lasting import HEADER, NETWORKD, PREFIX, mac_of
from fleet.intent.device import Device

#: Lines of one file: the section, then its lines; a section may come more than once.
Sections = list[tuple[str, list[str]]]
Values = dict[str, Any]

_NOWHERE = ("blackhole", "unreachable", "prohibit", "throw")


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
        made = _netdev(device, devices, management)
        if made:
            files[_path(name, "netdev")] = _text(made)
        link = _link_file(device)
        if link:
            files[_path(name, "link")] = _text(link)
        files[_path(name, "network")] = _text(_network(device, devices))
    return files


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


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return " ".join(_said(each) for each in value)
    return str(value)


def _lines(data: Values, words: dict[str, str]) -> list[str]:
    """Return ``Word=value`` for each of our words that data has."""
    return [f"{words[key]}={_said(data[key])}" for key in words if data.get(key) is not None]


# .netdev: what networkd makes.

_BRIDGE = {
    "stp": "STP",
    "priority": "Priority",
    "forward_delay": "ForwardDelaySec",
    "hello_time": "HelloTimeSec",
    "max_age": "MaxAgeSec",
    "ageing_time": "AgeingTimeSec",
    "group_fwd_mask": "GroupForwardMask",
    "multicast_snooping": "MulticastSnooping",
    "vlan_filtering": "VLANFiltering",
    "vlan_protocol": "VLANProtocol",
    "vlan_default_pvid": "DefaultPVID",
}
_VXLAN = {
    "id": "VNI",
    "local": "Local",
    "port": "DestinationPort",
    "ttl": "TTL",
    "type_of_service": "TOS",
    "mac_learning": "MacLearning",
    "ageing": "FDBAgeingSec",
    "limit": "MaximumFDBEntries",
    "arp_proxy": "ReduceARPProxy",
}
_TUNTAP = {"multi_queue": "MultiQueue", "vnet_hdr": "VNetHeader", "owner": "User", "group": "Group"}
_BOND = {
    "mode": "Mode",
    "lacp_rate": "LACPTransmitRate",
    "min_links": "MinLinks",
    "transmit_hash_policy": "TransmitHashPolicy",
    "ad_select": "AdSelect",
    "all_members_active": "AllSlavesActive",
    "arp_validate": "ARPValidate",
    "arp_all_targets": "ARPAllTargets",
    "fail_over_mac_policy": "FailOverMACPolicy",
    "gratuitous_arp": "GratuitousARP",
    "packets_per_member": "PacketsPerSlave",
    "primary_reselect_policy": "PrimaryReselectPolicy",
    "resend_igmp": "ResendIGMP",
    "learn_packet_interval": "LearnPacketIntervalSec",
    "arp_ip_targets": "ARPIPTargets",
}
#: netplan's are milliseconds where they have no unit, networkd's are seconds.
_BOND_TIMES = {
    "mii_monitor_interval": "MIIMonitorSec",
    "arp_interval": "ARPIntervalSec",
    "up_delay": "UpDelaySec",
    "down_delay": "DownDelaySec",
}


def _bridge(data: Values) -> Sections:
    return [("Bridge", _lines(data.get("parameters") or {}, _BRIDGE))]


def _veth(data: Values) -> Sections:
    return [("Peer", [f"Name={data['peer']}"])]


def _vxlan(data: Values) -> Sections:
    lines = _lines(data, _VXLAN)
    remote = data.get("remote")
    if remote:
        group = ipaddress.ip_address(remote).is_multicast
        lines.append(f"{'Group' if group else 'Remote'}={remote}")
    if not data.get("link"):
        lines.append("Independent=yes")
    return [("VXLAN", lines)]


def _bond(data: Values) -> Sections:
    parameters = data.get("parameters") or {}
    lines = _lines(parameters, _BOND)
    for word, said in _BOND_TIMES.items():
        value = parameters.get(word)
        if value is not None:
            lines.append(f"{said}={_said(value)}{'ms' if _is_number(value) else ''}")
    return [("Bond", lines)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or str(value).isdecimal()


def _vlan(data: Values) -> Sections:
    return [("VLAN", _lines(data, {"id": "Id", "protocol": "Protocol"}))]


#: Kind → networkd's, and the sections of its own.
_MADE: dict[str, tuple[str, Callable[[Values], Sections]]] = {
    "bridge": ("bridge", _bridge),
    "veth": ("veth", _veth),
    "tap": ("tap", lambda data: [("Tap", _lines(data, _TUNTAP))]),
    "tun": ("tun", lambda data: [("Tun", _lines(data, _TUNTAP))]),
    "macvlan": ("macvlan", lambda data: [("MACVLAN", [f"Mode={data.get('mode') or 'bridge'}"])]),
    "macvtap": ("macvtap", lambda data: [("MACVTAP", [f"Mode={data.get('mode') or 'bridge'}"])]),
    "tunnel": ("vxlan", _vxlan),
    "vlan": ("vlan", _vlan),
    "bond": ("bond", _bond),
    "dummy": ("dummy", lambda data: []),
    "vrf": ("vrf", lambda data: [("VRF", _lines(data, {"table": "Table"}))]),
}
#: Kind → the word of the lower device's .network that hangs it there.
_HUNG = {
    "vlan": "VLAN",
    "macvlan": "MACVLAN",
    "macvtap": "MACVTAP",
    "tunnel": "VXLAN",
}
#: Kind → the word of a member's .network.
_JOINED = {"bridge": "Bridge", "bond": "Bond", "vrf": "VRF"}


def _netdev(device: Device, devices: dict[str, Device], management: tuple[str, ...]) -> Sections:
    if device.kind not in _MADE:
        return []
    data = device.data
    if device.kind == "veth" and data["peer"] < device.name:
        return []  # one file makes both ends
    kind, sections = _MADE[device.kind]
    mac = data.get("macaddress") or carried_mac(device, devices, management)
    lines = [f"Name={device.name}", f"Kind={kind}"]
    # systemd.netdev(5): taps and tuns take theirs from the .network file alone.
    if mac and device.kind not in ("tap", "tun"):
        lines.append(f"MACAddress={mac}")
    made = sections(data)
    peer = devices.get(str(data.get("peer", "")))
    if device.kind == "veth" and peer is not None and peer.data.get("macaddress"):
        made[0][1].append(f"MACAddress={peer.data['macaddress']}")
    return [("NetDev", lines), *made]


def carried_mac(device: Device, devices: dict[str, Device], management: tuple[str, ...]) -> str:
    """Return the MAC, as the host fills it in, of a bridge that carries management.

    It is its NIC's, as a plan makes it; networkd would take one of its own making.
    """
    own = {each["address"].partition("/")[0] for each in device.data.get("addresses") or ()}
    if device.kind != "bridge" or not own.intersection(management):
        return ""
    for port in device.data.get("interfaces") or ():
        if port in devices and devices[port].kind == "ethernet":
            return mac_of(_kernel_name(devices[port]))
    return ""


def _kernel_name(device: Device) -> str:
    match = device.data.get("match") or {}
    return str(device.data.get("set_name") or match.get("name") or device.name)


# .link: what udev does, before anybody sees the NIC.


def _link_file(device: Device) -> Sections:
    lines = []
    if device.data.get("set_name"):
        lines.append(f"Name={device.data['set_name']}")
    if device.manager.get("wakeonlan") in ("true", "yes", "on"):
        lines.append("WakeOnLan=magic")
    if device.kind != "ethernet" or not lines:
        return []
    return [("Match", _match(device, "OriginalName")), ("Link", lines)]


def _match(device: Device, word: str) -> list[str]:
    match = device.data.get("match") or {}
    if not match:
        return [f"{word}={device.name}"]
    words = {"name": word, "macaddress": "PermanentMACAddress", "driver": "Driver"}
    lines = _lines(match, words)
    if match.get("pci_address"):
        lines.append(f"Path=pci-{match['pci_address']}")
    return lines


# .network: what networkd does to a device, whoever made it.


def _network(device: Device, devices: dict[str, Device]) -> Sections:
    data, left = device.data, device.manager
    sections: Sections = [
        ("Match", _match(device, "Name")),
        ("Link", _link_lines(device)),
        ("Network", [*_own_lines(device), *_ties(device, devices)]),
    ]
    for address in data.get("addresses") or ():
        sections.append(("Address", _address(address)))
    for route in data.get("routes") or ():
        sections.append(("Route", _route(route)))
    for rule in device.rules:
        sections.append(("RoutingPolicyRule", _rule(rule.data)))
    from fleet.intent.networkd_left import left_sections

    sections += left_sections(left)
    port = _port(device, devices)
    if port:
        sections.append(("Bridge", port))
    return sections


def _link_lines(device: Device) -> list[str]:
    lines = _lines(device.data, {"mtu": "MTUBytes"})
    if device.data.get("macaddress") and device.kind in ("ethernet", "tap", "tun"):
        lines.append(f"MACAddress={device.data['macaddress']}")
    policy = {"manual": "manual", "off": "always-down"}.get(
        str(device.data.get("activation_mode") or "")
    )
    if policy:
        lines.append(f"ActivationPolicy={policy}")
    optional = device.manager.get("optional") in ("true", "yes", "on")
    if optional or device.kind != "ethernet" or policy:
        lines.append("RequiredForOnline=no")
    return lines


def _own_lines(device: Device) -> list[str]:
    from fleet.intent.networkd_left import network_lines

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


def _ties(device: Device, devices: dict[str, Device]) -> list[str]:
    """Return what joins a device to those above it."""
    joined, hung = [], []
    for name in sorted(devices):
        other = devices[name]
        if device.name in (other.data.get("interfaces") or ()) and other.kind in _JOINED:
            joined.append(f"{_JOINED[other.kind]}={name}")
        if other.data.get("link") == device.name and other.kind in _HUNG:
            hung.append(f"{_HUNG[other.kind]}={name}")
    return [*joined, *hung]


def _address(entry: Values) -> list[str]:
    return _lines(entry, {"address": "Address", "label": "Label", "lifetime": "PreferredLifetime"})


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
    return [f"Destination={to}", *_lines(entry, _ROUTE)]


_RULE = {
    "from_": "From",
    "to": "To",
    "table": "Table",
    "priority": "Priority",
    "mark": "FirewallMark",
    "type_of_service": "TypeOfService",
}


def _rule(data: Values) -> list[str]:
    lines = _lines(data, _RULE)
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
        flags.update(_own_flags(device.port_flags))
    return _lines(flags, _PORT)


def _own_flags(flags: Iterable[tuple[str, str]] | Values) -> Values:
    """Return netplan's flags of a device, whose values are texts."""
    return {
        name.replace("-", "_"): str(value) in ("true", "yes", "on", "True")
        for name, value in dict(flags).items()
    }
