"""What routes, rules, addresses and neighbours are in the kernel's messages, in words."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop
from _struct import Struct

from fleet.host.kernel.netlink import attribute_list, attributes, mac_of, number, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Words = dict[str, Any]

GETADDR, GETROUTE, GETNEIGH, GETRULE, GETMDB = 22, 26, 30, 34, 86
FOREVER = 0xFFFFFFFF
#: include/uapi/linux/rtnetlink.h: cached exceptions and expanded prefixes are no configuration.
CLONED = 0x200

route_header = Struct("=BBBBBBBBI")
address_header = Struct("=BBBBi")
neighbour_header = Struct("=BxxxiHBB")
_next_hop = Struct("=HBBi")
_cacheinfo = Struct("=IIII")

TYPES = (
    "unspec", "unicast", "local", "broadcast", "anycast", "multicast",
    "blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve",
)  # fmt: skip
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
ACTIONS = {1: "table", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
#: RTA_METRICS in netplan's words where it has one: initcwnd and initrwnd are what networkd sets.
_METRICS = {
    2: "mtu", 3: "window", 4: "rtt", 5: "rttvar", 6: "ssthresh", 7: "cwnd", 8: "advertised-mss",
    9: "reordering", 10: "hoplimit", 11: "congestion-window", 12: "features", 13: "rto-min",
    14: "advertised-receive-window", 15: "quickack", 17: "fastopen-no-cookie",
}  # fmt: skip
#: include/uapi/linux/if_addr.h
DADFAILED, TENTATIVE, PERMANENT, MANAGE_TEMPORARY, TEMPORARY = 0x08, 0x40, 0x80, 0x100, 0x01
KERNEL_LO, KERNEL_RA, KERNEL_LL = 1, 2, 3


def text(family: int, payload: bytes) -> str:
    """Return an address in the kernel's spelling; hex where it is of no known family."""
    if family in (AF_INET, AF_INET6) and len(payload) == (4 if family == AF_INET else 16):
        return inet_ntop(family, payload)
    return payload.hex()


def prefix(family: int, payload: bytes | None, length: int) -> str:
    """Return ``address/length``; the whole family's prefix where there is no address."""
    if payload is None:
        return f"{'0.0.0.0' if family == AF_INET else '::'}/{length}"
    return f"{text(family, payload)}/{length}"


def read_address(payload: bytes, names: dict[int, str]) -> tuple[str, Words]:
    """Return the device and one address of it in words."""
    family, length, flags, scope, index = address_header.unpack_from(payload)
    found = attributes(payload, 8)
    flags = number(found[8]) if 8 in found else flags
    # IPv4 and peers: IFA_LOCAL is the host's own, IFA_ADDRESS the far end; IPv6 without a peer
    # has IFA_ADDRESS alone.
    far = found.get(1, b"")
    own = found.get(2, far)
    valid = preferred = FOREVER
    if len(found.get(6, b"")) >= 16:
        preferred, valid, _, _ = _cacheinfo.unpack_from(found[6])
    protocol = number(found[11]) if 11 in found else None
    address = text(family, own)
    passing = MANAGE_TEMPORARY | (TEMPORARY if family == AF_INET6 else 0)
    return names.get(index, f"#{index}"), {
        "address": f"{address}/{length}",
        "family": 4 if family == AF_INET else 6,
        "scope": SCOPES.get(scope, scope),
        "label": text_of(found.get(3, b"")),
        "dynamic": valid != FOREVER or bool(flags & passing) or protocol == KERNEL_RA,
        "kernel": protocol in (KERNEL_LO, KERNEL_LL) or own in _LOOPBACK,
        "peer": f"{text(family, far)}/{length}" if far != own else None,
        "broadcast": text(family, found[4]) if 4 in found else None,
        "protocol": protocol,
        "flags": flags,
        "metric": number(found[9]) if 9 in found else None,
        "valid": None if valid == FOREVER else valid,
        "preferred": None if preferred == FOREVER else preferred,
        # IFA_F_SECONDARY of IPv4 and IFA_F_TEMPORARY of IPv6 are the same bit.
        "secondary": family == AF_INET and bool(flags & 0x01),
        "tentative": bool(flags & TENTATIVE),
        "dadfailed": bool(flags & DADFAILED),
    }


def mark_kernel_addresses(addresses: dict[str, list[Words]]) -> None:
    """Tell the kernel's link-local addresses from people's where it does not say so itself.

    Since Linux 5.18 it does (IFA_PROTO), then an address without it is somebody's own.
    """
    everything = [item for items in addresses.values() for item in items]
    if any(item["protocol"] is not None for item in everything):
        return
    for item in everything:
        if item["family"] == 6 and item["scope"] == "link" and item["flags"] & PERMANENT:
            item["kernel"] = True


_LOOPBACK = (b"\x7f\0\0\x01", bytes(15) + b"\x01")


def read_route(payload: bytes, names: dict[int, str]) -> Words | None:
    """Return one route in words; None for a cached one or another family than IP."""
    family, length, source, tos, table, protocol, scope, kind, flags = route_header.unpack_from(
        payload
    )
    if flags & CLONED or family not in (AF_INET, AF_INET6):
        return None
    found = attributes(payload, 12)
    index = number(found.get(4, b""))
    route: Words = {
        "family": 4 if family == AF_INET else 6,
        "to": "default" if length == 0 else prefix(family, found.get(1), length),
        "via": _via(family, found),
        "dev": names.get(index, f"#{index}") if index else None,
        "metric": number(found[6]) if 6 in found else None,
        "table": number(found[15]) if 15 in found else table,
        "type": TYPES[kind] if kind < len(TYPES) else kind,
        "scope": SCOPES.get(scope, scope),
        "protocol": protocol,
        "from": text(family, found[7]) if 7 in found else None,
        "src": prefix(family, found[2], source) if 2 in found else None,
        "tos": tos,
        "flags": flags,
        "nexthops": [],
    }
    if 8 in found:
        _read_metrics(route, found[8])
    if 9 in found:
        route["nexthops"] = _next_hops(family, found[9], names)
    if 20 in found:
        route["pref"] = number(found[20])
    if 30 in found:
        route["nhid"] = number(found[30])
    if 22 in found:
        route["encap"] = {"type": number(found.get(21, b"")), "raw": found[22].hex()}
    if 23 in found:
        route["expires"] = number(found[23])
    return route


def _via(family: int, found: dict[int, bytes]) -> str | None:
    if 5 in found:
        return text(family, found[5])
    if 18 in found:  # RTA_VIA: a gateway of the other family, IPv4 through IPv6 (RFC 5549)
        return text(number(found[18][:2]), found[18][2:])
    return None


def _read_metrics(route: Words, payload: bytes) -> None:
    for kind, value in attributes(payload).items():
        if kind == 1:
            route["locked"] = number(value)
        elif kind == 16:
            route["congctl"] = text_of(value)
        else:
            route[_METRICS.get(kind, f"metric-{kind}")] = number(value)


def _next_hops(family: int, payload: bytes, names: dict[int, str]) -> list[Words]:
    hops, offset = [], 0
    while offset + 8 <= len(payload):
        length, flags, hops_minus_one, index = _next_hop.unpack_from(payload, offset)
        if length < 8 or offset + length > len(payload):
            break
        found = attributes(payload[offset + 8 : offset + length])
        hop: Words = {
            "via": _via(family, found),
            "dev": names.get(index, f"#{index}") if index else None,
            "weight": hops_minus_one + 1,
            "flags": flags,
        }
        if 22 in found:
            hop["encap"] = {"type": number(found.get(21, b"")), "raw": found[22].hex()}
        hops.append(hop)
        offset += (length + 3) & ~3
    return hops


def read_rule(payload: bytes) -> Words | None:
    """Return one policy rule in words; None for another family than IP."""
    family, to, source, tos, table, _, _, action, flags = route_header.unpack_from(payload)
    if family not in (AF_INET, AF_INET6):
        return None
    found = attributes(payload, 12)
    rule: Words = {
        "family": 4 if family == AF_INET else 6,
        "priority": number(found.get(6, b"")),
        "from": prefix(family, found[2], source) if 2 in found else None,
        "to": prefix(family, found[1], to) if 1 in found else None,
        "tos": tos,
        "table": number(found[15]) if 15 in found else table,
        "action": ACTIONS.get(action, action),
        "mark": number(found[10]) if 10 in found else None,
        "mask": number(found[16]) if 16 in found else None,
        "iif": text_of(found[3]) if 3 in found else None,
        "oif": text_of(found[17]) if 17 in found else None,
        "protocol": number(found[21]) if 21 in found else None,
        "invert": bool(flags & 0x2),
        "flags": flags,
    }
    if 4 in found:
        rule["goto"] = number(found[4])
    if number(found.get(19, b"")):
        rule["l3mdev"] = True
    for kind, word in ((13, "suppress_ifgroup"), (14, "suppress_prefixlength")):
        if number(found.get(kind, b""), FOREVER) != FOREVER:
            rule[word] = number(found[kind])
    for kind, word in ((20, "uid_range"), (22, "ip_proto"), (23, "sport"), (24, "dport")):
        if kind in found:
            rule[word] = found[kind].hex()
    return rule


def _destination(payload: bytes) -> str:
    """Return an address by its length: a bridge's entry says nothing of the family of a peer."""
    return text({4: AF_INET, 16: AF_INET6}.get(len(payload), 0), payload)


def read_neighbour(payload: bytes, names: dict[int, str]) -> Words:
    """Return one neighbour or forwarding entry in words."""
    family, index, state, flags, kind = neighbour_header.unpack_from(payload)
    found = attributes(payload, 12)
    master = number(found.get(9, b""))
    return {
        "family": {AF_INET: 4, AF_INET6: 6}.get(family, family),
        "dev": names.get(index, f"#{index}"),
        "address": _destination(found[1]) if 1 in found else None,
        "mac": mac_of(found.get(2, b"")),
        "state": state,
        "flags": flags,
        "extended_flags": number(found.get(15, b"")),
        "type": kind,
        "vlan": number(found[5]) if 5 in found else None,
        "vni": number(found[7]) if 7 in found else None,
        "port": int.from_bytes(found[6], "big") if 6 in found else None,
        "via": names.get(number(found.get(8, b""))),
        "master": names.get(master) if master else None,
        "protocol": number(found[12]) if 12 in found else None,
    }


def read_groups(payload: bytes, names: dict[int, str]) -> list[Words]:
    """Return the groups of one RTM_GETMDB message: bridge, dev, group, vlan and permanent.

    struct br_port_msg, MDBA_MDB, MDBA_MDB_ENTRY, struct br_mdb_entry (if_bridge.h).
    """
    bridge = names.get(number(payload[4:8]), "")
    found: list[Words] = []
    for _, table in attribute_list(attributes(payload, 8).get(1, b"")):
        for _, entry in attribute_list(table):
            port, state, vlan = number(entry[:4]), entry[4], number(entry[6:8])
            protocol = entry[24:26]
            if protocol == b"\x08\x00":
                group = inet_ntop(AF_INET, entry[8:12])
            elif protocol == b"\x86\xdd":
                group = inet_ntop(AF_INET6, entry[8:24])
            else:
                group = entry[8:14].hex(":")
            words = {"bridge": bridge, "dev": names.get(port, ""), "group": group}
            found.append({**words, "vlan": vlan, "permanent": state == 1})
    return found
