"""Packets as u32 looks at them: words of a match, and masked values at fixed offsets; pure."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Words = dict[str, Any]
    #: A word of a packet: mask, value, offset from the network header.
    Key = tuple[int, int, int]

IPV4, IPV6, ALL = 0x0800, 0x86DD, 0x0003
PROTOCOLS = {
    "tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "gre": 47, "esp": 50, "ah": 51,
}  # fmt: skip

#: struct tc_u32_sel and tc_u32_key: include/uapi/linux/pkt_cls.h
_sel = Struct("=BBBxHHhhI")
_key = Struct(">II")
_offset = Struct("=ii")


def selector(keys: Iterable[Key]) -> bytes:
    """Return a struct tc_u32_sel that ends the search where all keys fit."""
    body = [_key.pack(mask, value) + _offset.pack(offset, 0) for mask, value, offset in keys]
    return _sel.pack(1, 0, len(body), 0, 0, 0, 0, 0) + b"".join(body)


def families(match: Words) -> list[int]:
    """Return the EtherTypes that a match can be of."""
    found = {IPV4, IPV6}
    for word in ("source", "destination"):
        if match.get(word):
            found &= {IPV6 if ":" in match[word] else IPV4}
    found -= {{"icmp": IPV6, "icmpv6": IPV4}.get(match.get("protocol") or "", 0)}
    return sorted(found)


def selectors(match: Words | None) -> list[tuple[int, list[Key]]]:
    """Return the EtherTypes and keys of a match; none where there is no match."""
    return [(protocol, _keys(match, protocol)) for protocol in families(match)] if match else []


def _keys(match: Words, protocol: int) -> list[Key]:
    six = protocol == IPV6
    keys: list[Key] = []
    for word, at in (("source", 8 if six else 12), ("destination", 24 if six else 16)):
        if match.get(word):
            keys += _network(match[word], at)
    if match.get("protocol"):
        shift = 8 if six else 16
        keys.append((0xFF << shift, PROTOCOLS[match["protocol"]] << shift, 4 if six else 8))
    start = 40 if six else 20
    if match.get("source_port"):
        keys.append((0xFFFF0000, match["source_port"] << 16, start))
    if match.get("port"):
        keys.append((0x0000FFFF, match["port"], start))
    return keys


def _network(text: str, at: int) -> list[Key]:
    address, _, length = text.partition("/")
    family, bits = (AF_INET6, 128) if ":" in text else (AF_INET, 32)
    left = int(length or bits)
    value, keys = inet_pton(family, address), []
    for offset in range(0, bits // 8, 4):
        mask = 0xFFFFFFFF ^ (0xFFFFFFFF >> max(0, min(left, 32)))
        left -= 32
        if mask or not offset:
            keys.append(
                (mask, int.from_bytes(value[offset : offset + 4], "big") & mask, at + offset)
            )
    return keys


def match_words(protocol: int, keys: Iterable[Key]) -> Words | None:
    """Return a match as intent writes it, None where it has no words for it."""
    words: Words = {}
    by_offset: dict[str, list[Key]] = {}
    six = protocol == IPV6
    if protocol not in (IPV4, IPV6):
        return None
    source, destination, end = (8, 24, 40) if six else (12, 16, 20)
    for mask, value, offset in keys:
        if (mask, offset) == ((0xFF00, 4) if six else (0xFF0000, 8)):
            known = {v: k for k, v in PROTOCOLS.items()}
            words["protocol"] = known.get(value >> (8 if six else 16))
        elif (mask, offset) == (0xFFFF0000, end):
            words["source-port"] = value >> 16
        elif (mask, offset) == (0x0000FFFF, end):
            words["port"] = value
        elif source <= offset < end and offset % 4 == 0:
            where = "source" if offset < destination else "destination"
            by_offset.setdefault(where, []).append((mask, value, offset))
        else:
            return None
    for where, parts in by_offset.items():
        start = source if where == "source" else destination
        bits = 0
        body = bytearray(16 if six else 4)
        for mask, value, offset in parts:
            bits |= mask << ((12 if six else 0) - (offset - start)) * 8
            body[offset - start : offset - start + 4] = value.to_bytes(4, "big")
        length = bin(bits).count("1")
        total = 128 if six else 32
        if bits != ((1 << length) - 1) << (total - length):
            return None
        words[where] = f"{inet_ntop(AF_INET6 if six else AF_INET, bytes(body))}/{length}"
    if not words:
        words["source"] = "::/0" if six else "0.0.0.0/0"
    return None if None in words.values() else words


def keys_of(payload: bytes) -> list[Key] | None:
    """Return a selector's keys, None where it looks at more than fixed offsets."""
    flags, shift, count, *rest = _sel.unpack_from(payload)
    if flags != 1 or shift or any(rest):
        return None
    found: list[Key] = []
    for at in range(16, 16 + 16 * count, 16):
        offset, variable = _offset.unpack_from(payload, at + 8)
        if variable:
            return None
        mask, value = _key.unpack_from(payload, at)
        found.append((mask, value, offset))
    return found
