"""Addresses and prefixes as texts and numbers; ``ipaddress`` would cost a host 8 ms to import."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton


def family(text: str) -> int:
    """Return 4 or 6 for an address or prefix."""
    return 6 if ":" in text else 4


def bits(text: str) -> int:
    """Return how many bits an address of this text's family has."""
    return 128 if ":" in text else 32


def number(address: str) -> int:
    """Return an address as a number; raises OSError where the text is not an address."""
    return int.from_bytes(inet_pton(AF_INET6 if ":" in address else AF_INET, address), "big")


def normal(text: str) -> str:
    """Return an address, with its prefix length if it has one, in the kernel's own spelling."""
    address, slash, length = text.partition("/")
    kind = AF_INET6 if ":" in address else AF_INET
    return inet_ntop(kind, inet_pton(kind, address)) + slash + length


def host(text: str) -> str:
    """Return the address of ``address/length``."""
    return text.partition("/")[0]


def length(text: str) -> int:
    """Return the prefix length of ``address/length``; an address alone has all its bits."""
    tail = text.partition("/")[2]
    return int(tail) if tail else bits(text)


def subnet(text: str) -> tuple[int, int, int]:
    """Return (family, network number, prefix length) of ``address/length``."""
    size = length(text)
    return family(text), number(host(text)) >> (bits(text) - size), size


def inside(address: str, prefix: str) -> bool:
    """Say whether an address lies in the subnet of ``address/length``."""
    if family(address) != family(prefix):
        return False
    shift = bits(prefix) - length(prefix)
    return number(host(address)) >> shift == number(host(prefix)) >> shift


def link_local(address: str) -> bool:
    """Say whether an IPv6 address means something on its own link only (RFC 4291, 2.5.6)."""
    return ":" in address and number(host(address)) >> 118 == 0x3FA
