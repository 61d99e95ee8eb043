"""VRFs in a real kernel, judged by ip(8), and by pings that a VRF keeps apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from capabilities import has, needs
from namespaces import Space, connect, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def nic(name: str, peer: str, *addresses: str, **more: Any) -> dict[str, Any]:
    return {
        f"veth/{name}": {"peer": peer, "addresses": [{"address": a} for a in addresses], **more},
        f"veth/{peer}": {"peer": name},
    }


@pytest.mark.skipif(has("vrf"), reason="the kernel has VRFs")
def test_a_kernel_without_any_is_told(host: Space) -> None:
    """Where the kernel has no VRFs the plan says so by name, and has no change of one."""
    plan = host.plan({"vrf/red": {"table": 10}})
    (problem,) = plan.problems
    assert "has no vrf" in problem.actual
    assert "take the VRF out of the intent" in problem.remedy
    assert plan.changes == ()


@needs("vrf")
def test_made_changed_taken_away_and_back(host: Space) -> None:
    """Each attribute is there; another table makes it again, members and all; all goes back."""
    host.roll(nic("e0", "e1", "198.18.1.1/24", "fd00:18::1/64"))
    host.ip("link add other type vrf table 99")  # the kernel's own rule comes with the first VRF
    every = {
        "table": 10,
        "interfaces": ["e0"],
        "addresses": [{"address": "198.18.3.1/32"}],
        "routes": [{"to": "default", "type": "unreachable", "metric": 4278198272, "table": 10}],
    }
    route = {"to": "198.18.9.0/24", "via": "198.18.1.2", "table": 10}
    with_route = nic("e0", "e1", "198.18.1.1/24", "fd00:18::1/64", routes=[route])
    host.goes_back({**with_route, "vrf/red": every})
    host.roll({**with_route, "vrf/red": every})
    link = host.link("red")
    assert link["linkinfo"] == {"info_kind": "vrf", "info_data": {"table": 10}}
    assert "UP" in link["flags"]
    assert host.link("e0")["master"] == "red"
    assert host.addresses("e0") == ["198.18.1.1/24", "fd00:18::1/64"]
    assert host.addresses("red") == ["198.18.3.1/32"]
    table = host.ip("-4 route show table 10")
    assert "unreachable default proto static metric 4278198272" in table
    assert "198.18.9.0/24 via 198.18.1.2 dev e0" in table
    assert "198.18.1.0/24" not in host.ip("-4 route show table main")

    moved = {"table": 11, "interfaces": ["e0"]}
    route["table"] = 11
    host.goes_back({**with_route, "vrf/red": moved})
    host.roll({**with_route, "vrf/red": moved})
    assert host.link("red")["linkinfo"]["info_data"] == {"table": 11}
    assert "198.18.9.0/24 via 198.18.1.2 dev e0" in host.ip("-4 route show table 11")
    assert host.ip("-4 route show table 10", check=False).strip() == ""

    left = nic("e0", "e1", "198.18.1.1/24", "fd00:18::1/64", routes=[])
    host.goes_back(left)
    host.roll(left)
    assert not host.has("red")
    assert host.has("other")
    assert host.addresses("e0") == ["198.18.1.1/24", "fd00:18::1/64"]
    assert "198.18.1.0/24 dev e0" in host.ip("-4 route show table main")


@needs("vrf")
def test_what_somebody_gave_a_member_stays(host: Space) -> None:
    """A device that joins and leaves keeps the addresses, routes and neighbours of others."""
    host.ip("link add e0 type veth peer name e1")
    host.ip("link set e0 up")
    host.ip("link set e1 up")
    host.ip("address add 198.18.1.1/24 dev e0")
    host.ip("address add fd00:18::1/64 dev e0 nodad")
    host.ip("route add 198.18.9.0/24 via 198.18.1.2 table 7")
    host.ip("-6 route add fd00:19::/64 via fd00:18::2 table 7")
    host.ip("neighbour add 198.18.1.2 lladdr 02:00:00:00:00:02 dev e0 nud permanent")
    for resources in ({"vrf/red": {"table": 10, "interfaces": ["e0"]}}, {}):
        host.roll(resources)
        assert host.addresses("e0") == ["198.18.1.1/24", "fd00:18::1/64"]
        assert "198.18.9.0/24 via 198.18.1.2 dev e0" in host.ip("route show table 7")
        assert "fd00:19::/64 via fd00:18::2 dev e0" in host.ip("-6 route show table 7")
        assert "198.18.1.2 dev e0" in host.ip("neighbour show nud permanent")


@needs("vrf")
def test_two_vrfs_with_the_same_addresses(host: Space) -> None:
    """A bridge and a NIC in one subnet, each in a VRF: each is reached from its own VRF alone."""
    with space() as red, space() as blue:
        for other, name, end in ((red, "r0", "198.18.1.2"), (blue, "b0", "198.18.1.3")):
            connect(host, name, other, "eth0")
            other.ip(f"address add {end}/24 dev eth0")
        host.roll(
            {
                "ethernet/r0": {},
                "bridge/br0": {"interfaces": ["r0"], "addresses": [{"address": "198.18.1.1/24"}]},
                "ethernet/b0": {"addresses": [{"address": "198.18.1.4/24"}]},
                "vrf/red": {"table": 10, "interfaces": ["br0"]},
                "vrf/blue": {"table": 20, "interfaces": ["b0"]},
            }
        )
        reached = {
            (vrf, end): "1 received"
            in host.run("ping", "-n", "-c1", "-W1", "-I", vrf, end, check=False)
            for vrf in ("red", "blue")
            for end in ("198.18.1.2", "198.18.1.3")
        }
    assert reached == {
        ("red", "198.18.1.2"): True,
        ("red", "198.18.1.3"): False,
        ("blue", "198.18.1.2"): False,
        ("blue", "198.18.1.3"): True,
    }
