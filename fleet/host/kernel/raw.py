"""The kernel's own messages as plain data, with names in the place of indexes.

A record keeps a message's header and attributes in hex, so that what this program knows nothing
about goes back as it came. Indexes do not survive a device's deletion: wherever one stands in a
message, the record has ``{"dev": name}``. All records are JSON.
"""

from __future__ import annotations

import sys
from _struct import Struct

from fleet.host.kernel.netlink import NESTED, attribute_list, number, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Record = dict[str, Any]
    Value = Any
    Names = dict[int, str]
    Indexes = dict[str, int]

_hop = Struct("=HBBi")
_RTA_OIF, _RTA_MULTIPATH, _NH_ID = 4, 9, 30
#: What a route through a nexthop object shows of that object, and must not be sent with it.
_OF_NEXTHOP = (4, 5, 9, 18, 21, 22)
#: RTNH_F_DEAD, LINKDOWN, OFFLOAD, TRAP, UNRESOLVED and the like come and go; ONLINK is written.
ONLINK = 4


class Unknown(Exception):
    """A record names a device that is not there now."""


def u32(value: int) -> bytes:
    """Return a 32-bit number in the machine's order."""
    return (value & 0xFFFFFFFF).to_bytes(4, sys.byteorder)


def reference(payload: bytes, names: Names) -> Value:
    """Return an index as ``{"dev": name}``; 0 and unknown ones stay as they are."""
    index = number(payload)
    return {"dev": names[index]} if index in names else payload.hex()


def attributes_of(
    payload: bytes, offset: int, names: Names, indexes: Iterable[int] = (), skip: Iterable[int] = ()
) -> list[list[Value]]:
    """Return attributes as [type, value]; those in ``indexes`` hold a device's index."""
    found = []
    for flagged, value in attribute_list(payload, offset, 0xFFFF):
        kind = flagged & 0x3FFF
        if kind in indexes:
            found.append([kind, reference(value, names)])
        elif kind not in skip:
            found.append([kind, plain(flagged, value)])
    return found


def plain(flagged: int, payload: bytes) -> Value:
    """Return a payload in hex; one marked NLA_F_NESTED as ``{"nested": hex}``."""
    return {"nested": payload.hex()} if flagged & NESTED else payload.hex()


def bytes_of(value: Value, indexes: Indexes) -> bytes:
    """Return the payload of one recorded attribute; raises Unknown for a device that is gone."""
    if isinstance(value, dict) and "nested" in value:
        return bytes.fromhex(value["nested"])
    if isinstance(value, dict):
        name = value["dev"]
        if name not in indexes:
            raise Unknown(name)
        return u32(indexes[name])
    return bytes.fromhex(value)


def packed(recorded: Iterable[list[Value]], indexes: Indexes) -> bytes:
    """Return recorded attributes as they are sent."""
    out = b""
    for kind, value in recorded:
        if isinstance(value, list):
            out += pack(kind, _pack_hops(value, indexes))
        else:
            flags = NESTED if isinstance(value, dict) and "nested" in value else 0
            out += pack(kind | flags, bytes_of(value, indexes))
    return out


def devices_of(recorded: Iterable[list[Value]]) -> set[str]:
    """Return the names of the devices that recorded attributes refer to."""
    found: set[str] = set()
    for _, value in recorded:
        if isinstance(value, dict) and "dev" in value:
            found.add(value["dev"])
        elif isinstance(value, list):
            for hop in value:
                found |= devices_of([[0, hop["dev"]], *hop["attributes"]])
    return found


# Routes: rtnetlink(7), struct rtmsg.


def route_record(payload: bytes, names: Names) -> Record:
    """Return a route; its table, protocol, type and scope stand apart to be looked at."""
    head = bytearray(payload[:12])
    flags = number(bytes(head[8:12])) & ONLINK
    head[8:12] = u32(flags)
    record: Record = {
        "header": bytes(head).hex(),
        "family": head[0],
        "table": head[4],
        "protocol": head[5],
        "type": head[7],
        "attributes": [],
    }
    for flagged, value in attribute_list(payload, 12, 0xFFFF):
        kind = flagged & 0x3FFF
        if kind == 15:
            record["table"] = number(value)
        if kind == 12 and len(value) >= 12:  # RTA_CACHEINFO: ages, and how long it still lives
            expires = int.from_bytes(value[8:12], sys.byteorder, signed=True)
            if expires > 0:
                record["expires"] = expires / 100
        elif kind == _RTA_MULTIPATH:
            record["attributes"].append([kind, _hops(value, names)])
        elif kind == _RTA_OIF:
            record["attributes"].append([kind, reference(value, names)])
        elif kind not in (23, 24):
            record["attributes"].append([kind, plain(flagged, value)])
    record["devices"] = sorted(devices_of(record["attributes"]))
    return record


def _hops(payload: bytes, names: Names) -> list[Record]:
    hops, offset = [], 0
    while offset + 8 <= len(payload):
        length, flags, weight, index = _hop.unpack_from(payload, offset)
        if length < 8 or offset + length > len(payload):
            break
        hops.append(
            {
                "flags": flags & ONLINK,
                "weight": weight,
                "dev": reference(u32(index), names),
                "attributes": attributes_of(payload[offset + 8 : offset + length], 0, names),
            }
        )
        offset += (length + 3) & ~3
    return hops


def _pack_hops(hops: list[Record], indexes: Indexes) -> bytes:
    out = b""
    for hop in hops:
        inner = packed(hop["attributes"], indexes)
        index = number(bytes_of(hop["dev"], indexes))
        out += _hop.pack(8 + len(inner), hop["flags"], hop["weight"], index) + inner
    return out


def route_message(record: Record, indexes: Indexes, elapsed: float = 0) -> bytes:
    """Return the message that adds or removes a route; ``elapsed`` seconds are off its life."""
    recorded = record["attributes"]
    if any(kind == _NH_ID for kind, _ in recorded):
        recorded = [item for item in recorded if item[0] not in _OF_NEXTHOP]
    message = bytes.fromhex(record["header"]) + packed(recorded, indexes)
    if "expires" in record:
        message += pack(23, u32(max(1, int(record["expires"] - elapsed))))
    return message


# Nexthop objects: struct nhmsg {family, scope, protocol, resvd, flags}.


def nexthop_record(payload: bytes, names: Names) -> Record:
    """Return a nexthop object with its id."""
    head = bytearray(payload[:8])
    head[4:8] = u32(number(bytes(head[4:8])) & ONLINK)
    recorded = attributes_of(payload, 8, names, (5,))
    return {
        "header": bytes(head).hex(),
        "id": next((number(bytes.fromhex(value)) for kind, value in recorded if kind == 1), 0),
        "attributes": recorded,
        "devices": sorted(devices_of(recorded)),
        # struct nexthop_grp {u32 id; u8 weight, weight_high; u16}
        "members": [
            number(bytes.fromhex(value)[at : at + 4])
            for kind, value in recorded
            if kind == 2
            for at in range(0, len(value) // 2, 8)
        ],
    }


def nexthop_message(record: Record, indexes: Indexes) -> bytes:
    """Return the message that creates a nexthop object."""
    recorded = record["attributes"]
    if record["members"]:
        # A group carries its family in the dump only, and a plain group's type is implied.
        recorded = [item for item in recorded if item[0] in (1, 2, 3, 11, 12)]
        return bytes(8) + packed(recorded, indexes)
    # The scope is the kernel's finding; who sends one is refused (nexthop.c, rtm_to_nh_config).
    head = bytearray(bytes.fromhex(record["header"]))
    head[1] = 0
    return bytes(head) + packed(recorded, indexes)


# Policy rules: struct fib_rule_hdr; devices are named, never numbered.


def rule_record(payload: bytes) -> Record:
    """Return a policy rule."""
    head = bytearray(payload[:12])
    flags = number(bytes(head[8:12])) & (0x2 | 0x10000)  # FIB_RULE_INVERT, FIB_RULE_FIND_SADDR
    head[8:12] = u32(flags)
    recorded = attributes_of(payload, 12, {}, skip=(18,))
    return {
        "header": bytes(head).hex(),
        "family": head[0],
        "priority": next((number(bytes.fromhex(v)) for kind, v in recorded if kind == 6), 0),
        "attributes": recorded,
    }


def rule_message(record: Record) -> bytes:
    """Return the message that adds or removes a policy rule."""
    return bytes.fromhex(record["header"]) + packed(record["attributes"], {})


# Neighbours and forwarding entries: struct ndmsg {family, pad, index, state, flags, type}.

_neighbour = Struct("=BxxxiHBB")


def neighbour_record(payload: bytes, names: Names) -> Record:
    """Return a neighbour, a proxy or a forwarding entry; its device stands apart."""
    family, index, state, flags, kind = _neighbour.unpack_from(payload)
    recorded = attributes_of(payload, 12, names, (8, 9), skip=(3, 4, 10, 15 if family == 7 else 0))
    texts: dict[int, Value] = {item[0]: item[1] for item in recorded}
    return {
        "family": family,
        "dev": names.get(index, ""),
        "state": state,
        "flags": flags,
        "type": kind,
        "attributes": recorded,
        "mac": texts.get(2, ""),
        "bridge": texts[9]["dev"] if isinstance(texts.get(9), dict) else "",
    }


def neighbour_message(record: Record, indexes: Indexes) -> bytes:
    """Return the message that adds or removes a neighbour or forwarding entry."""
    if record["dev"] not in indexes:
        raise Unknown(record["dev"])
    flags = record["flags"]
    recorded = record["attributes"]
    if record["family"] == 7:
        if record["bridge"]:
            # NTF_MASTER: the bridge's table, not the device's own, which for a bridge is the same
            flags |= 0x02 if record["bridge"] == record["dev"] else 0x04
        recorded = [item for item in recorded if item[0] != 9]
    head = _neighbour.pack(
        record["family"], indexes[record["dev"]], record["state"], flags, record["type"]
    )
    return head + packed(recorded, indexes)
