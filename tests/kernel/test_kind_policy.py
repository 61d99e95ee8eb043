"""Policies between guests in a real kernel, judged by nft(8) and by real, bounded traffic."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, connect, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


class Guests:
    """Three guests in namespaces on one bridge of the host."""

    def __init__(self, host: Space, *spaces: Space) -> None:
        self.host, self.spaces = host, spaces
        host.ip("link add br0 up type bridge")
        for number, guest in enumerate(spaces, 1):
            connect(host, f"vnet{number}", guest, "eth0")
            host.ip(f"link set vnet{number} master br0")
            guest.ip(f"link set eth0 address 52:54:00:00:00:0{number}")
            guest.ip(f"addr add 198.18.0.{number}/24 dev eth0")

    def reaches(self, one: int, other: int) -> bool:
        return self.spaces[one - 1].pings(f"198.18.0.{other}", 0.4)


@pytest.fixture
def guests(host: Space) -> Iterator[Guests]:
    with space() as one, space() as two, space() as three:
        yield Guests(host, one, two, three)


def test_isolation_and_pairs(guests: Guests) -> None:
    """Isolated guests do not reach each other, save the pairs that are allowed."""
    host = guests.host
    assert guests.reaches(1, 2)
    host.roll({"policy/all": {"isolate": True, "allow": [["198.18.0.1", "198.18.0.2"]]}})
    assert guests.reaches(1, 2)
    assert guests.reaches(2, 1)
    assert not guests.reaches(1, 3)
    plan = host.roll({})
    assert [c.key for c in plan.changes] == ["policy/all"]
    assert guests.reaches(1, 2)


def forget(guests: Guests) -> None:
    """Take every neighbour that a guest has learned from it."""
    for guest in guests.spaces:
        guest.ip("neigh flush all")


SIX = "2001:2:0:9::"


@pytest.mark.parametrize(
    "pair",
    [
        ["52:54:00:00:00:01", "52:54:00:00:00:02"],
        ["198.18.0.1", "198.18.0.2"],
        [f"{SIX}1", f"{SIX}2"],
    ],
    ids=["mac", "ipv4", "ipv6"],
)
def test_a_pair_finds_each_other(guests: Guests, pair: list[str]) -> None:
    """Who may talk may also ask where the other is, by ARP and by neighbour discovery."""
    for number, guest in enumerate(guests.spaces, 1):
        guest.ip(f"addr add {SIX}{number}/64 dev eth0 nodad")
    addresses = ["198.18.0.", SIX] if pair[0].startswith("52") else [pair[0][:-1]]
    host = guests.host
    policy = {"policy/all": {"isolate": True, "allow": [pair]}}
    host.roll(policy)
    for start in addresses:
        for one, other in ((1, 2), (2, 1)):
            forget(guests)
            assert guests.spaces[one - 1].pings(f"{start}{other}", 2)
        for one, other in ((1, 3), (3, 1), (2, 3), (3, 2)):
            forget(guests)
            assert not guests.spaces[one - 1].pings(f"{start}{other}", 0.3)
    assert not host.plan(policy).changes


def test_a_pair_is_asked_for_at_its_port_alone(guests: Guests) -> None:
    """A third guest that has been heard is not told what a pair asks by broadcast."""
    host = guests.host
    macs = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    host.roll({"policy/all": {"isolate": True, "allow": [macs]}})
    guests.reaches(3, 1)
    with guests.spaces[2].system.enter():
        third = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    with third:
        third.bind(("eth0", 0x0806))
        third.settimeout(0.2)
        for one, other in ((1, 2), (2, 1)):
            forget(guests)
            assert guests.reaches(one, other)
        with pytest.raises(TimeoutError):
            third.recv(100)


def test_blocked_ports(guests: Guests) -> None:
    """Nobody reaches a blocked port of a guest, or one of a range; others stay open."""
    ports = ["2222", "2230-2239", "2235-2240"]
    guests.host.roll({"policy/ports": {"block": [{"protocol": "tcp", "ports": ports}]}})
    for port, answered in ((2222, False), (2223, True), (2230, False), (2240, False), (2241, True)):
        with guests.spaces[1].system.enter():
            listener = socket.create_server(("198.18.0.2", port))
        with guests.spaces[0].system.enter():
            caller = socket.socket()
        with listener, caller:
            caller.settimeout(0.5)
            assert (caller.connect_ex(("198.18.0.2", port)) == 0) is answered


def test_anti_spoofing(guests: Guests) -> None:
    """A guest that sends as somebody else is not heard, by address or by MAC."""
    identity = {"macaddress": "52:54:00:00:00:01", "addresses": ["198.18.0.1"]}
    guests.host.roll({"policy/own": {"anti_spoofing": {"vnet1": identity}}})
    assert guests.reaches(1, 2)
    one = guests.spaces[0]
    one.ip("addr add 198.18.0.77/24 dev eth0")
    source = ("ping", "-nc", "1", "-W", "0.4", "-I", "198.18.0.77", "198.18.0.2")
    assert " 0 received" in one.run(*source, check=False)
    one.ip("link set eth0 address 52:54:00:00:00:99")
    assert not guests.reaches(1, 2)


def test_anti_spoofing_below_tags(guests: Guests) -> None:
    """A VLAN tag hides no address: with one tag the address is checked, with two nothing passes."""
    identity = {"macaddress": "52:54:00:00:00:01", "addresses": ["198.18.0.1"]}
    guests.host.roll({"policy/own": {"anti_spoofing": {"vnet1": identity}}})
    for tags, source, arrives in (
        (0, "198.18.0.1", True), (0, "198.18.0.77", False),
        (1, "198.18.0.1", True), (1, "198.18.0.77", False), (2, "198.18.0.1", False),
    ):  # fmt: skip
        assert carried(guests, tags, source) is arrives, (tags, source)


def carried(guests: Guests, tags: int, source: str) -> bool:
    """Say whether a frame of guest 1 with so many VLAN tags and this sender gets to guest 2."""
    marker = f"{tags} tags from {source}".encode()
    ends = socket.inet_aton(source) + socket.inet_aton("198.18.0.2")
    parts = b"\x45\0" + (20 + len(marker)).to_bytes(2, "big") + bytes(4) + b"\x40\xfd", ends
    total = sum(struct.unpack("!9H", b"".join(parts)))  # RFC 1071; br_netfilter looks at it
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = checksum.to_bytes(2, "big").join(parts) + marker
    head = bytes.fromhex("ffffffffffff 525400000001") + bytes.fromhex("8100 0005") * tags
    one, two = (guests.spaces[number].system for number in (0, 1))
    with two.enter():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        listener.bind(("eth0", 3))
    with one.enter():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
    with listener, sender:
        listener.settimeout(0.3)
        sender.send(head + b"\x08\0" + packet)
        try:
            while marker not in listener.recv(2000):
                pass
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ({"packets": "20/second", "burst": 10}, 100),
        ({"bytes": "20 kbytes/second", "burst": 10000}, 1000),
    ],
)
def test_rate_limits(guests: Guests, limit: dict[str, Any], size: int) -> None:
    """What a guest sends beyond its rate is dropped; another guest is not touched."""
    guests.host.roll({"policy/rate": {"limits": [limit]}})
    assert guests.reaches(1, 2)
    with guests.spaces[1].system.enter():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with guests.spaces[0].system.enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listener, sender:
        listener.bind(("198.18.0.2", 5000))
        listener.settimeout(0.3)
        for _ in range(200):
            sender.sendto(bytes(size), ("198.18.0.2", 5000))
        heard = 0
        try:
            while True:
                listener.recv(2000)
                heard += 1
        except TimeoutError:
            pass
    assert 1 <= heard <= 30
    assert guests.reaches(3, 2)


def test_who_else_rejects(host: Space) -> None:
    """Where another table's forward hook may reject an allowed pair, the plan says so."""
    host.run("nft", "add table bridge other")
    chain = "{ type filter hook forward priority 10; policy drop; }"
    host.run("nft", f"add chain bridge other f {chain}")
    pair = {"isolate": True, "allow": [["198.18.0.1", "198.18.0.2"]]}
    plan = host.plan({"policy/all": pair})
    assert "table bridge other" in plan.changes[0].reason
    assert "may still reject" in plan.changes[0].reason


def test_revert_and_second_plan(guests: Guests) -> None:
    """A revert takes a new policy away and gives a changed or deleted one back."""
    guests.host.goes_back({"policy/all": {"isolate": True}})
    guests.host.roll({"policy/all": {"isolate": True}})
    guests.host.goes_back({"policy/all": {"isolate": True, "limits": [{"packets": "20/second"}]}})
    guests.host.goes_back({})
    assert not guests.reaches(1, 2)
