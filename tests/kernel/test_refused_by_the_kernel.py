"""What the kernel would refuse while a plan is carried out, the plan says before anything changes.

Each case is an intent on a host, what plan finds wrong with it, and a command that shows the kernel
to refuse just that.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, space

PAIR: dict[str, Any] = {"veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"}}
BRIDGE: dict[str, Any] = {**PAIR, "bridge/br0": {"interfaces": ["e0"]}}
VX = {"id": 5, "remote": "198.18.9.9"}
GROUP = {"entries": [{"group": "239.1.1.1", "port": "e0"}]}
ENTRY = {"entries": [{"macaddress": "02:00:00:00:09:01"}]}
ADDRESS = "198.18.1.1/24"


def e0(**more: Any) -> dict[str, Any]:
    return {**PAIR, "veth/e0": {"peer": "e1", "addresses": [{"address": ADDRESS}], **more}}


def routed(**route: Any) -> dict[str, Any]:
    return e0(routes=[route])


def bridge(**more: Any) -> dict[str, Any]:
    return {**PAIR, "bridge/br0": {"interfaces": ["e0"], **more}}


#: What the host has, what intent adds or changes, where plan objects, and a command that fails.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "a macvlan's MTU above its NIC's": (
        PAIR, {"macvlan/m0": {"link": "e0", "mtu": 9000}},
        "macvlan/m0 mtu", "ip link add m0 link e0 mtu 9000 type macvlan",
    ),
    "a macvtap's MTU above its NIC's": (
        PAIR, {"macvtap/m0": {"link": "e0", "mtu": 9000}},
        "macvtap/m0 mtu", "ip link add m0 link e0 mtu 9000 type macvtap",
    ),
    "a macvlan on a port": (
        BRIDGE, {"macvlan/m0": {"link": "e0"}},
        "macvlan/m0 link", "ip link add m0 link e0 type macvlan",
    ),
    "a macvlan beside one in passthru mode": (
        {**PAIR, "macvlan/m1": {"link": "e0", "mode": "passthru"}}, {"macvlan/m0": {"link": "e0"}},
        "macvlan/m0 mode", "ip link add m0 link e0 type macvlan",
    ),
    "a tunnel's MTU above what its link carries": (
        PAIR, {"tunnel/vx0": {**VX, "link": "e0", "mtu": 1500}},
        "tunnel/vx0 mtu",
        "sh -c 'ip link add vx0 type vxlan id 5 dev e0 remote 198.18.9.9 dstport 4789 &&"
        " ip link set vx0 mtu 1500'",
    ),
    "two tunnels of one number": (
        {"tunnel/vx1": VX}, {"tunnel/vx0": VX},
        "tunnel/vx0 id", "ip link add vx0 type vxlan id 5 remote 198.18.9.9 dstport 4789",
    ),
    "a tun as a port": (
        {"tun/tn0": {}}, {"bridge/br0": {"interfaces": ["tn0"]}},
        "bridge/br0 interfaces[0]",
        "sh -c 'ip link add br0 type bridge && ip link set tn0 master br0'",
    ),
    "a group of a bridge that is down": (
        bridge(activation_mode="off"), {"mdb/br0": GROUP},
        "mdb/br0 entries", "bridge mdb add dev br0 port e0 grp 239.1.1.1 permanent",
    ),
    "a group of a bridge that does not snoop": (
        bridge(parameters={"multicast_snooping": False}), {"mdb/br0": GROUP},
        "mdb/br0 entries", "bridge mdb add dev br0 port e0 grp 239.1.1.1 permanent",
    ),
    "a group at what is no port": (
        {**PAIR, "bridge/br0": {}}, {"mdb/br0": GROUP},
        "mdb/br0 entries[0].port", "bridge mdb add dev br0 port e0 grp 239.1.1.1 permanent",
    ),
    "a forwarding entry of what is no port": (
        PAIR, {"fdb/e0": ENTRY},
        "fdb/e0 entries[0].macaddress", "bridge fdb add 02:00:00:00:09:01 dev e0 master static",
    ),
    "a forwarding entry of two ports": (
        {**PAIR, "bridge/br0": {"interfaces": ["e0", "e1"], "parameters": {"stp": True}},
         "fdb/e0": ENTRY},
        {"fdb/e1": ENTRY},
        "fdb/e1 entries[0].macaddress", "bridge fdb add 02:00:00:00:09:01 dev e1 master static",
    ),
    "a peer of the other family": (
        {"tunnel/vx0": VX},
        {"fdb/vx0": {"entries": [{"macaddress": "02:00:00:00:09:01", "remote": "2001:2::9"}]}},
        "fdb/vx0 entries[0].remote", "bridge fdb append 02:00:00:00:09:01 dev vx0 dst 2001:2::9",
    ),
    "a neighbour on a tun": (
        {"tun/tn0": {}},
        {"neighbour/tn0": {"entries": [
            {"address": "198.18.1.9", "macaddress": "02:00:00:00:09:01"}]}},
        "neighbour/tn0 entries",
        "sh -c 'ip neigh add 198.18.1.9 lladdr 02:00:00:00:09:01 dev tn0 nud permanent &&"
        " ip neigh show dev tn0 | grep -q 02:00:00:00:09:01'",
    ),
    "IPv6 on a small MTU": (
        e0(mtu=1200), e0(mtu=1200, addresses=[{"address": "2001:2::1/64"}]),
        "veth/e0 mtu", "ip addr add 2001:2::1/64 dev e0",
    ),
    "IPv6 where it is turned off": (
        {**PAIR, "sysctl/net.ipv6.conf.e0.disable_ipv6": {"value": "1"}},
        e0(addresses=[{"address": "2001:2::1/64"}]),
        "veth/e0 addresses[0]", "ip addr add 2001:2::1/64 dev e0",
    ),
    "a gateway that is not on the link": (
        e0(), routed(to="198.18.50.0/24", via="198.18.99.1"),
        "veth/e0 routes[0].via", "ip route add 198.18.50.0/24 via 198.18.99.1 dev e0",
    ),
    "a gateway that is the broadcast address": (
        e0(), routed(to="198.18.50.0/24", via="198.18.1.255"),
        "veth/e0 routes[0].via", "ip route add 198.18.50.0/24 via 198.18.1.255 dev e0",
    ),
    "a route from an address that nobody has": (
        e0(), routed(to="198.18.50.0/24", via="198.18.1.9", from_="198.18.1.77"),
        "veth/e0 routes[0].from",
        "ip route add 198.18.50.0/24 via 198.18.1.9 dev e0 src 198.18.1.77",
    ),
    "a route out of a device that is down": (
        e0(activation_mode="off"),
        {"veth/e0": {**routed(to="198.18.50.0/24", via="198.18.1.9")["veth/e0"],
                     "activation_mode": "off"}},
        "veth/e0 routes[0]", "ip route add 198.18.50.0/24 via 198.18.1.9 dev e0",
    ),
    "a second route to a device's own network": (
        e0(), routed(to="198.18.1.0/24", via="198.18.1.9"),
        "veth/e0 routes[0].to", "ip route add 198.18.1.0/24 via 198.18.1.9 dev e0",
    ),
}  # fmt: skip


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_a_plan_says_what_the_kernel_refuses(host: Space, name: str) -> None:
    """The plan has one problem, with a remedy, where the kernel would have refused a step."""
    base, more, where, command = CASES[name]
    host.roll(base)
    plan = host.plan({**base, **more})
    found = [f"{problem.resource} {problem.what}".strip() for problem in plan.problems]
    assert found == [where], plan.problems
    assert all((plan.problems[0].remedy, plan.problems[0].expected, plan.problems[0].actual))
    done = subprocess.run(
        ["ip", "netns", "exec", host.name, *shlex.split(command)], capture_output=True, text=True
    )
    assert done.returncode != 0, f"the kernel takes it: {command}"
