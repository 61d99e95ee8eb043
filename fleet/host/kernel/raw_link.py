"""A device's settable attributes as plain data, and the messages that put them back.

What only the kernel writes (states, counters, timers) is left out; attributes of kinds that are
not known here are kept and replayed as they are.
"""

from __future__ import annotations

from fleet.host.kernel.link_attributes import header
from fleet.host.kernel.netlink import (
    attribute_list,
    attributes,
    nest,
    number,
    pack,
    pack_text,
    pack_u32,
    text_of,
)
from fleet.host.kernel.raw import bytes_of, devices_of, packed, plain, reference, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.raw import Indexes, Names, Record

NEWLINK, DELLINK, SETLINK = 16, 17, 19
NEWLINKPROP, DELLINKPROP = 108, 109
#: IFF_UP, DEBUG, NOTRAILERS, NOARP, PROMISC, ALLMULTI, MULTICAST, PORTSEL, AUTOMEDIA, DYNAMIC:
#: net/core/dev.c, __dev_change_flags().
SETTABLE_FLAGS = 0x1 | 0x4 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x2000 | 0x4000 | 0x8000
UP = 0x1
AF_INET6 = 10

#: INFO_DATA that cannot be written, by kind; see link_attributes for the names.
_READ_ONLY = {
    "bridge": (10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 26, 40, 47, 48),
    "macvlan": (3, 4, 6, 8),
    "macvtap": (3, 4, 6, 8),
    "bond": (2, 23),
    "tun": (8, 9),
}
#: include/uapi/linux/if_link.h: IFLA_MACVLAN_MODE and its value.
_MACVLAN_MODE, _PASSTHRU = "1", 8
#: INFO_DATA that holds a device's index.
_INDEXES = {"vxlan": (3,), "bond": (2, 11), "gre": (1,), "gretap": (1,), "sit": (1,), "ipip": (1,)}
#: vxlan says of a flag that it is off by a zero byte, and wants to be told by leaving it out.
_VXLAN_FLAGS = (23, 24, 27, 28)
#: REMCSUM_TX and RX: naming one, even as off, takes a bit of the header (vxlan_nl2conf).
_VXLAN_OFF = (21, 22)
#: IFLA_BOND_PRIMARY; the modes that have one: active-backup, balance-tlb and balance-alb.
_PRIMARY, _WITH_PRIMARY = "11", ("01", "05", "06")
#: enum vlan_flags of Linux 5.2 and later; and IFLA_VLAN_EGRESS_QOS and INGRESS_QOS.
_VLAN_FLAGS, _VLAN_MAPS = 0x1F, ("3", "4")
#: INFO_SLAVE_DATA of a bridge port that cannot be written.
_PORT_READ_ONLY = (*range(13, 25), 26, 35, 36, 38, 41)
PORT_STATE, PORT_COST = 1, 3
_BACKUP_PORT = 34


def link_record(payload: bytes, names: Names) -> Record:
    """Return a device: identity, settable attributes, kind's data and bridge port attributes."""
    _, hardware, index, flags, _ = header.unpack_from(payload)
    found = attributes(payload, 16)
    info = attributes(found.get(18, b""))
    kind = text_of(info.get(1, b""))
    slave = text_of(info.get(4, b""))
    record: Record = {
        "name": text_of(found.get(3, b"")),
        "index": index,
        "type": hardware,
        "kind": kind,
        "flags": flags & SETTABLE_FLAGS,
        "carrier": bool(number(found.get(33, b""))),
        "mac": found.get(1, b"").hex(),
        "mtu": number(found.get(4, b"")),
        "txqlen": number(found.get(13, b"")),
        "group": number(found.get(27, b"")),
        "alias": text_of(found.get(20, b"")),
        "altnames": [text_of(v) for k, v in attribute_list(found.get(52, b"")) if k == 53],
        "queues": [number(found.get(31, b"")), number(found.get(32, b""))],
        "link": None,
        "netnsid": number(found[37]) if 37 in found else None,
        "master": names.get(number(found.get(10, b""))),
        "slave": slave,
        "data": _data(kind, info.get(2, b""), names),
        "port": _port(info.get(5, b""), names) if slave == "bridge" else {},
        "number": _port_number(info.get(5, b"")) if slave == "bridge" else 0,
        "ipv6": _ipv6(found.get(26, b"")),
    }
    lower = number(found.get(5, b""))
    if lower:
        record["link"] = names.get(lower, lower) if record["netnsid"] is None else lower
    return record


def _data(kind: str, payload: bytes, names: Names) -> Record:
    skip, indexes = _READ_ONLY.get(kind, ()), _INDEXES.get(kind, ())
    data: Record = {}
    for flagged, value in attribute_list(payload, 0, 0xFFFF):
        key = flagged & 0x3FFF
        if key in skip:
            continue
        if kind == "vxlan" and key in _VXLAN_FLAGS:
            if any(value) or not value:
                data[str(key)] = ""
            continue
        if kind == "vxlan" and key in _VXLAN_OFF and not any(value):
            continue
        data[str(key)] = reference(value, names) if key in indexes else plain(flagged, value)
    if kind == "bond" and data.get("1") in _WITH_PRIMARY:
        data.setdefault(_PRIMARY, u32(0).hex())  # none is told by saying nothing
    return _vlan(data) if kind == "vlan" else data


def _vlan(data: Record) -> Record:
    """Return a VLAN's data as it is sent: the mask of its flags, and maps of priorities as pairs.

    The kernel says that all flags count, also those it does not have, and takes that from nobody
    (net/8021q/vlan_dev.c, vlan_dev_change_flags); of a map without entries it says nothing.
    """
    if "2" in data:
        data["2"] = data["2"][:8] + u32(_VLAN_FLAGS).hex()
    for key in _VLAN_MAPS:
        value = data.get(key, "")
        nested = bytes.fromhex(value["nested"] if isinstance(value, dict) else value)
        pairs = [[number(item[:4]), number(item[4:8])] for _, item in attribute_list(nested)]
        data[key] = {"pairs": sorted(pairs)}
    return data


def without_pairs(record: Record, have: Record) -> Record:
    """Return a VLAN's record that also takes away the pairs which only ``have`` has."""
    data = dict(record["data"])
    for key in _VLAN_MAPS:
        pairs = dict.fromkeys((first for first, _ in have["data"][key]["pairs"]), 0)
        pairs.update(dict(data[key]["pairs"]))
        data[key] = {"pairs": [list(pair) for pair in sorted(pairs.items())]}
    return {**record, "data": data}


def _sent(value: Any) -> Any:
    if isinstance(value, dict) and "pairs" in value:
        items = (pack(1, u32(first) + u32(second)) for first, second in value["pairs"])
        return {"nested": b"".join(items).hex()}
    return value


def _port(payload: bytes, names: Names) -> Record:
    return {
        str(kind): reference(value, names) if kind == _BACKUP_PORT else value.hex()
        for kind, value in attribute_list(payload)
        if kind not in _PORT_READ_ONLY
    }


def _port_number(payload: bytes) -> int:
    """IFLA_BRPORT_NO: ports are numbered as they join, and STP prefers the lower one."""
    return number(attributes(payload).get(18, b""))


def _ipv6(payload: bytes) -> Record:
    """IFLA_INET6_ADDR_GEN_MODE and IFLA_INET6_TOKEN, which no sysctl shows in full."""
    inner = attributes(attributes(payload).get(AF_INET6, b""))
    return {str(kind): inner[kind].hex() for kind in (8, 7) if kind in inner and any(inner[kind])}


def lower_devices(record: Record) -> set[str]:
    """Return the devices that must exist before this one can be made."""
    needs = devices_of([[0, value] for value in record["data"].values()])
    if isinstance(record["link"], str) and record["kind"] != "veth":
        needs.add(record["link"])
    return needs


def set_message(index: int, *parts: bytes, flags: int = 0, change: int = 0) -> bytes:
    """Return a message that changes attributes of the device of this index."""
    return header.pack(0, 0, index, flags, change) + b"".join(parts)


def passes_through(record: Record) -> bool:
    """Say whether this is a macvlan or macvtap in passthru mode, with what is below it here."""
    if record["kind"] not in ("macvlan", "macvtap") or not isinstance(record["link"], str):
        return False
    mode = record["data"].get(_MACVLAN_MODE)
    return bool(mode) and number(bytes.fromhex(mode)) == _PASSTHRU


def data_part(record: Record, keys: Any, indexes: Indexes) -> bytes:
    """Return IFLA_LINKINFO with the named attributes of the kind's data."""
    data = [[int(key), _sent(record["data"][key])] for key in keys]
    if record["kind"] in ("macvlan", "macvtap") and "5" in keys:
        data.append([3, pack_u32(0, 3)[4:].hex()])  # MACVLAN_MACADDR_SET: the whole list
    inner = [pack_text(1, record["kind"])]
    if data:
        inner.append(nest(2, packed(data, indexes)))
    return nest(18, *inner)


def port_part(record: Record, keys: Any, indexes: Indexes) -> bytes:
    """Return IFLA_LINKINFO with the named attributes of a bridge port."""
    data = [[int(key), record["port"][key]] for key in keys]
    return nest(18, pack_text(4, "bridge"), nest(5, packed(data, indexes)))


def ipv6_part(record: Record) -> bytes:
    """Return IFLA_AF_SPEC with how the device makes its IPv6 addresses."""
    inner = [pack(int(key), bytes.fromhex(value)) for key, value in record["ipv6"].items()]
    return nest(26, nest(AF_INET6, *inner))


def create_message(
    record: Record, peer: Record | None, index: int, indexes: Indexes, home: int = -1
) -> bytes:
    """Return the message that makes a deleted device again, under its old index if it is not 0.

    ``home`` is the descriptor of the namespace a veth's other end goes to, -1 for this one. The
    device is down and has no master; the rest is set when all devices exist.
    """
    parts = [pack_text(3, record["name"]), *_common(record)]
    if isinstance(record["link"], str) and record["kind"] != "veth":
        parts.append(pack(5, bytes_of({"dev": record["link"]}, indexes)))
    if record["kind"] == "veth":
        inner = pack_text(1, "veth")
        if peer is not None:
            other = header.pack(0, 0, peer["index"] if index else 0, 0, 0)
            other += pack_text(3, peer["name"]) + b"".join(_common(peer))
            if home >= 0:
                other += pack_u32(28, home)
            inner += nest(2, nest(1, other))
        parts.append(nest(18, inner))
    else:
        keys = [key for key in record["data"] if not _needless(record, key)]
        parts.append(data_part(record, keys, indexes))
    return set_message(index, *parts)


def _common(record: Record) -> list[bytes]:
    parts = [pack_u32(4, record["mtu"]), pack_u32(13, record["txqlen"])]
    if record["mac"] and any(bytes.fromhex(record["mac"])):
        parts.append(pack(1, bytes.fromhex(record["mac"])))
    for kind, queues in zip((31, 32), record["queues"]):
        if queues > 1:
            parts.append(pack_u32(kind, queues))
    return parts


def _needless(record: Record, key: str) -> bool:
    # Naming a bridge's group address pins it, and the standard's own need not be named.
    return record["kind"] == "bridge" and key == "20" and record["data"][key] == "0180c2000000"
