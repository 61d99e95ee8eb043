"""What an RTM_NEWLINK message says, in the words of ip-link(8) and bridge(8).

Attributes of a kind that have no word here are kept under ``attribute-N``, in hex.
"""

from __future__ import annotations

import sys
from _socket import AF_INET, AF_INET6, inet_ntop
from _struct import Struct

from fleet.host.kernel.netlink import attribute_list, attributes, mac_of, number, pack, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.kernel.netlink import Netlink

    Words = dict[str, Any]
    Table = dict[int, tuple[str, Callable[[bytes], Any]]]

GETLINK = 18
UP, RUNNING = 0x1, 0x40
#: include/uapi/linux/rtnetlink.h, RTEXT_FILTER_SKIP_STATS: a third of a dump is counters.
_SKIP_STATS = 1 << 3

(
    ADDRESS, NAME, MTU, LINK, MASTER, TXQLEN, OPERSTATE, LINKINFO, ALIAS, GROUP,
    CARRIER, LINK_NETNSID, MIN_MTU, MAX_MTU, PROP_LIST, ALT_NAME, PERM_ADDRESS, PARENT, PARENT_BUS,
) = (1, 3, 4, 5, 10, 13, 16, 18, 20, 27, 33, 37, 50, 51, 52, 53, 54, 56, 57)  # fmt: skip
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
VETH, LOOPBACK = "veth", 772

#: ifinfomsg: family, type, index, flags, change mask.
header = Struct("=BxHiII")

_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def _flag(payload: bytes) -> bool:
    return bool(number(payload))


def _seconds(payload: bytes) -> float:
    return number(payload) / 100  # clock_t: USER_HZ is 100 wherever Linux runs KVM


def _network16(payload: bytes) -> int:
    return int.from_bytes(payload, "big")


def _vlan_protocol(payload: bytes) -> str:
    value = _network16(payload)
    return {0x8100: "802.1Q", 0x88A8: "802.1ad"}.get(value, f"{value:#06x}")


def _ip(payload: bytes) -> str:
    if len(payload) == 4:
        return inet_ntop(AF_INET, payload)
    return inet_ntop(AF_INET6, payload) if len(payload) == 16 else payload.hex()


def _list_of(reader: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda payload: [reader(item) for _, item in attribute_list(payload)]


def _qos(payload: bytes) -> list[list[int]]:
    return [[number(item[:4]), number(item[4:8])] for _, item in attribute_list(payload)]


def _port_range(payload: bytes) -> list[int]:
    return [_network16(payload[:2]), _network16(payload[2:4])]


def _bridge_id(payload: bytes) -> str:
    return f"{payload[:2].hex()}.{mac_of(payload[2:8])}"


def _word(*words: str) -> Callable[[bytes], Any]:
    def read(payload: bytes) -> Any:
        value = number(payload)
        return words[value] if value < len(words) else value

    return read


def _macvlan_mode(payload: bytes) -> Any:
    value = number(payload)
    words = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
    return words.get(value, value)


BRIDGE: Table = {
    1: ("forward_delay", _seconds), 2: ("hello_time", _seconds), 3: ("max_age", _seconds),
    4: ("ageing_time", _seconds), 5: ("stp", _flag), 6: ("priority", number),
    7: ("vlan_filtering", _flag), 8: ("vlan_protocol", _vlan_protocol),
    9: ("group_fwd_mask", number), 10: ("root_id", _bridge_id), 11: ("bridge_id", _bridge_id),
    12: ("root_port", number), 13: ("root_path_cost", number), 20: ("group_address", mac_of),
    22: ("mcast_router", number), 23: ("multicast_snooping", _flag),
    24: ("mcast_query_use_ifaddr", _flag), 25: ("mcast_querier", _flag),
    26: ("mcast_hash_elasticity", number), 27: ("mcast_hash_max", number),
    28: ("mcast_last_member_count", number), 29: ("mcast_startup_query_count", number),
    30: ("mcast_last_member_interval", _seconds), 31: ("mcast_membership_interval", _seconds),
    32: ("mcast_querier_interval", _seconds), 33: ("mcast_query_interval", _seconds),
    34: ("mcast_query_response_interval", _seconds), 35: ("mcast_startup_query_interval", _seconds),
    36: ("nf_call_iptables", _flag), 37: ("nf_call_ip6tables", _flag),
    38: ("nf_call_arptables", _flag), 39: ("vlan_default_pvid", number),
    41: ("vlan_stats_enabled", _flag), 42: ("mcast_stats_enabled", _flag),
    43: ("mcast_igmp_version", number), 44: ("mcast_mld_version", number),
    45: ("vlan_stats_per_port", _flag), 46: ("boolean_options", bytes.hex),
    48: ("fdb_n_learned", number), 49: ("fdb_max_learned", number),
}  # fmt: skip
#: Timers, padding and what comes and goes by itself.
_BRIDGE_PASSING = (14, 15, 16, 17, 18, 19, 21, 40, 47)

PORT: Table = {
    1: ("state", _word(*_PORT_STATES)), 2: ("priority", number), 3: ("cost", number),
    4: ("hairpin", _flag), 5: ("guard", _flag), 6: ("root_block", _flag), 7: ("fastleave", _flag),
    8: ("learning", _flag), 9: ("flood", _flag), 10: ("proxy_arp", _flag),
    11: ("learning_sync", _flag), 12: ("proxy_arp_wifi", _flag), 25: ("mcast_router", number),
    27: ("mcast_flood", _flag), 28: ("mcast_to_unicast", _flag), 29: ("vlan_tunnel", _flag),
    30: ("bcast_flood", _flag), 31: ("group_fwd_mask", number), 32: ("neigh_suppress", _flag),
    33: ("isolated", _flag), 34: ("backup_port", number), 37: ("mcast_eht_hosts_limit", number),
    39: ("locked", _flag), 40: ("mab", _flag), 42: ("mcast_max_groups", number),
    43: ("neigh_vlan_suppress", _flag), 44: ("backup_nhid", number),
}  # fmt: skip
#: Identities, timers and counters of STP and multicast.
_PORT_PASSING = (*range(13, 25), 26, 35, 36, 38, 41)

VLAN: Table = {
    1: ("id", number), 2: ("flags", lambda payload: number(payload[:4])),
    3: ("egress_qos", _qos), 4: ("ingress_qos", _qos), 5: ("protocol", _vlan_protocol),
}  # fmt: skip
MACVLAN: Table = {
    1: ("mode", _macvlan_mode), 2: ("flags", number), 5: ("macaddr_data", _list_of(mac_of)),
    6: ("macaddr_count", number), 7: ("bc_queue_len", number), 9: ("bc_cutoff", number),
}  # fmt: skip
VXLAN: Table = {
    1: ("id", number), 2: ("group", _ip), 3: ("link", number), 4: ("local", _ip),
    5: ("ttl", number), 6: ("tos", number), 7: ("learning", _flag), 8: ("ageing", number),
    9: ("limit", number), 10: ("port_range", _port_range), 11: ("proxy", _flag), 12: ("rsc", _flag),
    13: ("l2miss", _flag), 14: ("l3miss", _flag), 15: ("port", _network16), 16: ("group", _ip),
    17: ("local", _ip), 18: ("udp_csum", _flag), 19: ("udp_zero_csum6_tx", _flag),
    20: ("udp_zero_csum6_rx", _flag), 21: ("remcsum_tx", _flag), 22: ("remcsum_rx", _flag),
    25: ("external", _flag), 26: ("label", _network16), 28: ("ttl_inherit", _flag),
    29: ("df", number), 30: ("vnifilter", _flag), 31: ("localbypass", _flag),
}  # fmt: skip
TUN: Table = {
    1: ("user", number), 2: ("group", number), 3: ("type", _word("", "tun", "tap")),
    4: ("pi", _flag), 5: ("vnet_hdr", _flag), 6: ("persist", _flag), 7: ("multi_queue", _flag),
    8: ("numqueues", number), 9: ("numdisabled", number),
}  # fmt: skip
BOND: Table = {
    1: ("mode", _word("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad",
                      "balance-tlb", "balance-alb")),
    2: ("active_slave", number), 3: ("miimon", number), 4: ("updelay", number),
    5: ("downdelay", number), 6: ("use_carrier", number), 7: ("arp_interval", number),
    8: ("arp_ip_target", _list_of(_ip)), 9: ("arp_validate", number),
    10: ("arp_all_targets", number), 11: ("primary", number), 12: ("primary_reselect", number),
    13: ("fail_over_mac", number),
    14: ("xmit_hash_policy", _word("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4",
                                   "vlan+srcmac")),
    15: ("resend_igmp", number), 16: ("num_peer_notif", number), 17: ("all_slaves_active", number),
    18: ("min_links", number), 19: ("lp_interval", number), 20: ("packets_per_slave", number),
    21: ("ad_lacp_rate", _word("slow", "fast")), 22: ("ad_select", number),
    24: ("ad_actor_sys_prio", number), 25: ("ad_user_port_key", number),
    26: ("ad_actor_system", mac_of), 27: ("tlb_dynamic_lb", _flag),
    28: ("peer_notif_delay", number), 29: ("ad_lacp_active", number), 30: ("missed_max", number),
    31: ("ns_ip6_target", _list_of(_ip)), 32: ("coupled_control", _flag),
}  # fmt: skip

_KINDS: dict[str, tuple[Table, tuple[int, ...]]] = {
    "bridge": (BRIDGE, _BRIDGE_PASSING), "vlan": (VLAN, ()), "macvlan": (MACVLAN, (3, 4, 8)),
    "macvtap": (MACVLAN, (3, 4, 8)), "vxlan": (VXLAN, ()), "tun": (TUN, ()), "bond": (BOND, (23,)),
    "vrf": ({1: ("table", number)}, ()),
}  # fmt: skip


def dump_links(netlink: Netlink) -> list[bytes]:
    """Return the payload of one RTM_NEWLINK message per device, without counters."""
    mask = pack(29, _SKIP_STATS.to_bytes(4, sys.byteorder))
    return [payload for _, payload in netlink.dump(GETLINK, bytes(16), mask)]


def read_words(payload: bytes, table: Table, passing: tuple[int, ...] = ()) -> Words:
    """Return nested attributes in words; an empty attribute is left out."""
    words: Words = {}
    for kind, value in attributes(payload).items():
        found = table.get(kind)
        if found is None:
            if kind not in passing:
                words[f"attribute-{kind}"] = value.hex()
        elif value:
            words[found[0]] = found[1](value)
    return words


def read_link(payload: bytes) -> Words:
    """Return one device in words; ``master`` and ``link`` are still indexes, 0 for none."""
    _, hardware, index, flags, _ = header.unpack_from(payload)
    found = attributes(payload, 16)
    get = found.get
    kind, data, port = "", {}, None
    if LINKINFO in found:
        info = attributes(found[LINKINFO])
        kind = text_of(info.get(INFO_KIND, b""))
        table, passing = _KINDS.get(kind, ({}, ()))
        if info.get(INFO_DATA):
            data = read_words(info[INFO_DATA], table, passing)
        if info.get(INFO_SLAVE_KIND, b"").startswith(b"bridge"):
            port = read_words(info.get(INFO_SLAVE_DATA, b""), PORT, _PORT_PASSING)
    link: Words = {
        "name": text_of(get(NAME, b"")),
        "index": index,
        "kind": kind,
        "type": hardware,
        "mtu": number(get(MTU, b"")),
        "mac": mac_of(get(ADDRESS, b"")),
        "up": bool(flags & UP),
        "running": bool(flags & RUNNING),
        "carrier": bool(number(get(CARRIER, b""))),
        "operstate": _word(*_OPERSTATES)(get(OPERSTATE, b"\0")),
        "master": number(get(MASTER, b"")),
        "link": number(get(LINK, b"")),
        "altnames": [],
        "flags": flags,
        "txqlen": number(get(TXQLEN, b"")),
        "group": number(get(GROUP, b"")),
        "alias": text_of(get(ALIAS, b"")),
        "data": data,
        "port": port,
        "min_mtu": number(get(MIN_MTU, b"")),
        "max_mtu": number(get(MAX_MTU, b"")),
        "link_netnsid": number(found[LINK_NETNSID]) if LINK_NETNSID in found else None,
        "perm_mac": mac_of(get(PERM_ADDRESS, b"")),
        "parent": text_of(get(PARENT, b"")),
        "parent_bus": text_of(get(PARENT_BUS, b"")),
    }
    if PROP_LIST in found:
        properties = attribute_list(found[PROP_LIST])
        link["altnames"] = [text_of(value) for kind, value in properties if kind == ALT_NAME]
    link["permanent"] = bool(link["perm_mac"]) and link["perm_mac"] == link["mac"]
    return link


def name_indexes(links: dict[str, Words]) -> dict[int, str]:
    """Put names for the indexes of masters and lower devices; return the names by index.

    A lower device in another namespace stays a number. In other namespaces the same index is
    another device, which ``link_netnsid`` tells.
    """
    names = {link["index"]: name for name, link in links.items()}
    for link in links.values():
        link["master"] = names.get(link["master"]) if link["master"] else None
        lower = link["link"]
        if not lower:
            link["link"] = None
        elif link["link_netnsid"] is None:
            link["link"] = names.get(lower, lower)
        data = link["data"]
        for word in ("link", "primary", "active_slave"):
            if isinstance(data.get(word), int) and data[word]:
                data[word] = names.get(data[word], data[word])
        if link["port"] and link["port"].get("backup_port"):
            link["port"]["backup_port"] = names.get(link["port"]["backup_port"])
    return names
