"""Hosts that exist: as intent they plan to nothing, and are left as they were when let go."""

from __future__ import annotations

import json
from typing import Any

from hypervisor import Hypervisor, applied, confirm, hypervisor
from namespaces import until

from fleet.adopt import adopted, text_of
from fleet.intent.assemble import Assembler
from fleet.intent.yaml import compose
from fleet.render import Renderer

ASSEMBLER = Assembler(Renderer([]))

#: Made by hand, as somebody's running hypervisor is; what is not an operator's is made too.
HOST = """
ip link add br0 address 02:00:00:00:01:00 type bridge priority 4096 forward_delay 400 stp_state 1
ip link add br1 type bridge mcast_snooping 0
ip link add v0 address 02:00:00:00:00:11 type veth peer name v1
ip link set v0 master br0 mtu 1400
bridge link set dev v0 isolated on cost 33
ip link set br0 up
ip link set v0 up
ip link set v1 up
ip addr add 198.18.3.1/24 dev br0
ip addr add 198.18.3.2/24 dev br0 label br0:two
ip addr add 2001:2:0:3::1/64 dev br0
ip addr add 198.18.4.1/32 dev lo
ip route add 198.18.9.0/24 via 198.18.3.9 metric 50
ip route add 198.18.11.0/24 via 198.18.11.1 dev br0 onlink
ip route add 2001:2:0:9::/64 via 2001:2:0:3::9
ip route add blackhole 198.18.10.0/24
ip route add default via 198.18.0.1 table 100
ip rule add from 198.18.3.0/24 table 100 priority 1000
ip rule add fwmark 7 table 100 priority 1001
ip -6 rule add to 2001:2:0:9::/64 table 100 priority 1002
ip tuntap add tap7 mode tap user 5 multi_queue
ip tuntap add tun7 mode tun
ip link add mv0 link br0 type macvlan mode private
ip link add mt0 link v1 type macvtap mode vepa
ip link add vx0 type vxlan id 5 dstport 4789 remote 198.18.3.4 dev br0 nolearning
ip link add docker0 type bridge
ip addr add 198.18.200.1/24 dev docker0
ip link add virbr0 type bridge
nft add table inet mine
nft add chain inet mine c { type filter hook input priority 0; policy accept; }
nft add rule inet mine c tcp dport 23 counter drop
nft add table ip nat
ip neigh add 198.18.3.7 lladdr 02:00:00:00:00:77 dev br0 nud permanent
bridge fdb add 02:00:00:00:00:78 dev v0 master static
ip netns add one
ip -n one link set lo up
ip link add n0 type veth peer name eth0 netns one
ip link set n0 master br0
ip link set n0 up
ip -n one link set eth0 up
ip -n one addr add 198.18.3.51/24 dev eth0
ip -n one route add default via 198.18.3.1
ip netns exec one sysctl -qw net.ipv4.ip_forward=1
"""


def make(host: Hypervisor) -> None:
    for line in HOST.strip().splitlines():
        host.sh(*line.split())
    with open(host.root / "etc/sysctl.d/10-own.conf", "w", encoding="utf-8") as file:
        file.write("# Own.\nnet.ipv4.conf.all.rp_filter = 2\n")
    host.sh("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2")


def as_intent(host: Hypervisor) -> dict[str, Any]:
    helper = host.helper(bare=True)
    found = adopted("h1", helper.call("observe", lean=True)["spaces"], "198.18.0.5", ASSEMBLER)
    helper.close()
    assert found.notes == []
    return found.intent


def state_of(intent: dict[str, Any]) -> dict[str, Any]:
    tree: Any = compose(text_of(intent), "test")
    return {**ASSEMBLER.state("h1", "198.18.0.5", tree).wire(), "probes": {"gateway": False}}


def test_as_intent_is_lean_and_plans_to_nothing() -> None:
    """All an operator made is there, nothing else is, and there is nothing left to change."""
    with hypervisor() as host:
        make(host)
        intent = as_intent(host)
        helper = host.helper(bare=True)
        audit = helper.call("audit", state=state_of(intent))["plan"]
        helper.close()
        assert [(c["kind"], c["name"], c["what"]) for c in audit["changes"]] == []
        assert audit["problems"] == []
        assert audit["unmanaged"] == ["bridge/docker0", "bridge/virbr0"]
    network = intent["network"]
    assert network["bridges"]["br0"] == {
        "macaddress": "02:00:00:00:01:00",
        "addresses": [
            "198.18.3.1/24", {"address": "198.18.3.2/24", "label": "br0:two"}, "2001:2:0:3::1/64",
        ],
        "interfaces": ["n0", "v0"],
        "parameters": {"stp": True, "priority": 4096, "forward-delay": 4},
        "ports": {"v0": {"isolated": True, "cost": 33}},
        "routes": [
            {"to": "198.18.9.0/24", "via": "198.18.3.9", "metric": 50},
            {"to": "198.18.11.0/24", "via": "198.18.11.1", "on-link": True},
            {"to": "2001:2:0:9::/64", "via": "2001:2:0:3::9"},
            {"to": "198.18.10.0/24", "type": "blackhole"},
        ],
        "routing-policy": [{"from": "198.18.3.0/24", "priority": 1000, "table": 100}],
    }  # fmt: skip
    assert network["bridges"]["br1"] == {
        "activation-mode": "off", "parameters": {"multicast-snooping": False},
    }  # fmt: skip
    assert "docker0" not in network["bridges"]
    assert network["ethernets"] == {"lo": {"addresses": ["198.18.4.1/32"]}}
    assert network["virtual-ethernets"]["v1"] == {"peer": "v0"}
    assert network["taps"] == {"tap7": {"activation-mode": "off", "owner": 5, "multi-queue": True}}
    assert list(network["nftables"]) == ["inet/mine"]
    assert network["fdb"] == {"v0": [{"macaddress": "02:00:00:00:00:78"}]}
    one = network["namespaces"]["one"]
    assert one["sysctl"] == {"net.ipv4.ip_forward": "1"}
    assert one["virtual-ethernets"]["eth0"]["routes"] == [{"to": "default", "via": "198.18.3.1"}]
    assert intent["sysctl"] == {"net.ipv4.conf.all.rp_filter": "2"}


def ports(host: Hypervisor) -> list[dict[str, Any]]:
    return list(json.loads(host.sh("bridge", "-j", "link", "show")))


def test_adopted_and_let_go() -> None:
    """Once it is committed and then taken out of the intent again, everything is as it was."""
    with hypervisor() as host:
        make(host)
        state = state_of(as_intent(host))
        # Twice the forward delay after it is up, STP is through with a port.
        until(lambda: not {"listening", "learning"} & {port["state"] for port in ports(host)})
        before = [host.kernel(), host.sh("nft", "list", "ruleset")]
        more = {"kind": "sysctl", "name": "net.ipv4.ip_forward", "spec": {"value": "1"}}
        for number, resources in enumerate(([*state["resources"], more], [more], []), 1):
            name = f"tx{number}"
            planned = {**state, "resources": resources}
            helper, digest = applied(host, name=name, state=planned)
            helper.close()
            confirming = host.confirming()
            assert confirm(confirming, digest, name)["state"] == "COMMITTED"
            confirming.close()
        host.sh("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert [host.kernel(), host.sh("nft", "list", "ruleset")] == before
