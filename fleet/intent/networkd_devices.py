"""networkd's .netdev files: the devices that it makes (systemd.netdev(5))."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from fleet.host.transactions.lasting import mac_of
from fleet.intent.device import Device

#: Lines of one file: the section, then its lines; a section may come more than once.
Sections = list[tuple[str, list[str]]]
Values = dict[str, Any]


def said(value: Any) -> str:
    """Return a value as networkd's files have it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return " ".join(said(each) for each in value)
    return str(value)


def lines_of(data: Values, words: dict[str, str]) -> list[str]:
    """Return ``Word=value`` for each of our words that data has."""
    return [f"{words[key]}={said(data[key])}" for key in words if data.get(key) is not None]


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
    parameters = dict(data.get("parameters") or {})
    if parameters.get("vlan_default_pvid") == 0:
        parameters["vlan_default_pvid"] = "none"
    return [("Bridge", lines_of(parameters, _BRIDGE))]


def _veth(data: Values) -> Sections:
    return [("Peer", [f"Name={data['peer']}"])]


def _vxlan(data: Values) -> Sections:
    lines = lines_of(data, _VXLAN)
    remote = data.get("remote")
    if remote:
        group = ipaddress.ip_address(remote).is_multicast
        lines.append(f"{'Group' if group else 'Remote'}={remote}")
    if not data.get("link"):
        lines.append("Independent=yes")
    return [("VXLAN", lines)]


def _bond(data: Values) -> Sections:
    parameters = data.get("parameters") or {}
    lines = lines_of(parameters, _BOND)
    for word, name in _BOND_TIMES.items():
        value = parameters.get(word)
        if value is not None:
            lines.append(f"{name}={said(value)}{'ms' if _is_number(value) else ''}")
    return [("Bond", lines)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or str(value).isdecimal()


_VLAN = {
    "id": "Id",
    "protocol": "Protocol",
    "gvrp": "GVRP",
    "mvrp": "MVRP",
    "loose_binding": "LooseBinding",
    "reorder_hdr": "ReorderHeader",
}


def _vlan(data: Values) -> Sections:
    lines = lines_of(data, _VLAN)
    for word, name in (("egress_qos_map", "EgressQOSMaps"), ("ingress_qos_map", "IngressQOSMaps")):
        pairs = [f"{one}-{other}" for one, other in (data.get(word) or {}).items()]
        if pairs:
            lines.append(f"{name}={' '.join(pairs)}")
    return [("VLAN", lines)]


#: Kind → networkd's, and the sections of its own.
_MADE: dict[str, tuple[str, Callable[[Values], Sections]]] = {
    "bridge": ("bridge", _bridge),
    "veth": ("veth", _veth),
    "tap": ("tap", lambda data: [("Tap", lines_of(data, _TUNTAP))]),
    "tun": ("tun", lambda data: [("Tun", lines_of(data, _TUNTAP))]),
    "macvlan": ("macvlan", lambda data: [("MACVLAN", [f"Mode={data.get('mode') or 'bridge'}"])]),
    "macvtap": ("macvtap", lambda data: [("MACVTAP", [f"Mode={data.get('mode') or 'bridge'}"])]),
    "tunnel": ("vxlan", _vxlan),
    "vlan": ("vlan", _vlan),
    "bond": ("bond", _bond),
    "dummy": ("dummy", lambda data: []),
    "vrf": ("vrf", lambda data: [("VRF", lines_of(data, {"table": "Table"}))]),
}
#: Kind → the word of the lower device's .network that hangs it there.
HUNG = {
    "vlan": "VLAN",
    "macvlan": "MACVLAN",
    "macvtap": "MACVTAP",
    "tunnel": "VXLAN",
}
#: Kind → the word of a member's .network.
JOINED = {"bridge": "Bridge", "bond": "Bond", "vrf": "VRF"}


def netdev(device: Device, devices: dict[str, Device], management: tuple[str, ...]) -> Sections:
    """Return the sections of a device's .netdev, none where networkd has not to make it."""
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
            return mac_of(kernel_name(devices[port]))
    return ""


def kernel_name(device: Device) -> str:
    """Return what the kernel calls a NIC, as far as its intent says."""
    match = device.data.get("match") or {}
    return str(device.data.get("set_name") or match.get("name") or device.name)
