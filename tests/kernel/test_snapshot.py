"""Whatever is done to a namespace by hand, a restore makes iproute2 show what it showed before."""

from __future__ import annotations

import json

import pytest
from pictures import Namespace, await_equal

from fleet.host.reverting.differences import differences
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture

pytestmark = pytest.mark.kernel

SCENE = """
ip link add eth0 numtxqueues 2 numrxqueues 2 type veth peer name far0
ip link add eth1 type veth peer name far1
ip link add eth2 type veth peer name far2
ip link add br0 address 02:00:00:00:00:10 type bridge stp_state 0 forward_delay 400 priority 4096 ageing_time 12300 mcast_snooping 1 mcast_querier 1 group_fwd_mask 8
ip link add br1 type bridge
ip link add eth3 type veth peer name far3
ip link set eth3 master br1
ip link set eth3 up
ip link set far3 up
ip link set eth1 master br0
ip link set eth2 master br0
ip link set eth0 up
ip link set far0 up
ip link set eth1 up
ip link set far1 up
ip link set eth2 up
ip link set far2 up
ip link set br0 up
ip link set br1 up
bridge link set dev eth1 isolated on cost 77 priority 10 learning off hairpin on
bridge link set dev eth2 guard on root_block on flood off mcast_flood off
ip link set eth0 mtu 1400 txqueuelen 333 alias uplink
ip link property add dev eth0 altname uplink-one altname uplink-two
ip link add mv0 link eth0 type macvlan mode bridge
ip link add mt0 link eth0 type macvtap mode vepa
ip link set mv0 up
ip link add vx0 type vxlan id 42 remote 198.18.5.9 local 198.18.5.1 dstport 4789 ttl 7 dev eth0
ip link add vx1 type vxlan id 43 dstport 4790 nolearning
ip tuntap add tap0 mode tap user 1234 multi_queue vnet_hdr
ip tuntap add tun0 mode tun group 99
ip link set tap0 master br0
ip addr add 198.18.5.1/24 brd + dev eth0
ip addr add 198.18.5.2/24 dev eth0 label eth0:two
ip addr add 198.18.5.3/24 dev eth0 noprefixroute metric 50
ip addr add 198.18.6.1 peer 198.18.6.2/32 dev eth0
ip addr add 198.18.7.1/24 dev eth0 valid_lft 3000 preferred_lft 2000
ip addr add fd00:5::1/64 dev eth0 nodad
ip addr add fd00:5::2/64 dev eth0 nodad
ip addr add fd00:5::3/64 dev eth0 nodad preferred_lft 0
ip addr add 198.18.0.1/24 dev br0
ip addr add 198.18.0.2/24 dev br0
ip addr add 198.18.1.1/24 dev br0
ip addr add fd00::1/64 dev br0 nodad
ip addr add 198.18.9.1/24 dev mv0
ip nexthop add id 5 via 198.18.5.253 dev eth0
ip nexthop add id 6 via 198.18.0.253 dev br0
ip nexthop add id 10 group 5/6
ip route add default via 198.18.5.254 metric 100 mtu 1300 advmss 1200 initcwnd 20
ip route add 198.19.0.0/24 via 198.18.0.254 src 198.18.0.2
ip route add 198.19.1.0/24 via 198.18.0.254 table 100
ip route add 198.19.2.0/24 dev br0 src 198.18.5.1 table 200
ip route add default via 198.18.5.253 table 201
ip route add 198.19.3.0/24 nexthop via 198.18.5.254 weight 2 nexthop via 198.18.0.254
ip route add 198.19.4.0/24 via 198.19.0.7 onlink dev br0
ip route add 198.19.5.0/24 nhid 10
ip route add 198.19.6.0/24 nhid 5
ip route add blackhole 198.19.7.0/24
ip route add 198.19.8.0/24 dev eth0 scope link proto bird
ip route add local 198.19.9.0/24 dev lo table local proto boot
ip route add 198.19.10.0/24 via inet6 fd00::9 dev br0
ip -6 route add default via fd00:5::fe metric 50
ip -6 route add fd01::/64 via fd00::fe table 300
ip -6 route add fd02::/64 nexthop via fd00::fe nexthop via fd00:5::fe weight 3
ip -6 route add unreachable fd03::/64
ip rule add from 198.18.0.0/24 lookup 100 priority 1000
ip rule add fwmark 0x7/0xff lookup 200 priority 1000
ip rule add to 198.19.0.0/16 iif br0 lookup 201 priority 1001
ip -6 rule add from fd00::/64 lookup 300 priority 1002
ip neigh add 198.18.5.254 lladdr 02:00:00:00:05:fe dev eth0 nud permanent
ip neigh add fd00:5::fe lladdr 02:00:00:00:05:fe dev eth0 nud permanent
ip neigh add 198.18.0.254 lladdr 02:00:00:00:00:fe dev br0 nud permanent
ip neigh add proxy 198.18.5.77 dev eth0
bridge fdb add 02:00:00:00:11:11 dev eth1 master static
bridge fdb add 02:00:00:00:22:22 dev eth2 master permanent
bridge fdb append 00:00:00:00:00:00 dev vx1 dst 198.18.5.8
bridge mdb add dev br0 port eth1 grp 239.1.1.1 permanent
tc qdisc add dev eth0 root handle 1: tbf rate 10mbit burst 10kb latency 50ms
sysctl -w net.ipv4.conf.eth0.rp_filter=2
sysctl -w net.ipv4.conf.br0.promote_secondaries=0
sysctl -w net.ipv6.conf.br0.accept_ra=0
sysctl -w net.ipv4.neigh.eth0.gc_stale_time=77
"""  # noqa: E501

ALL = [
    "br0",
    "br1",
    "eth0",
    "eth1",
    "eth2",
    "eth3",
    "tap0",
    "tun0",
    "vx0",
    "vx1",
    "mv0",
    "mt0",
    "br9",
    "v9",
    "w9",
    "lan0",
]

BREAKS = {
    "nothing": "",
    "the primary address goes": "ip addr del 198.18.0.1/24 dev br0",
    "the primary address goes and secondaries are promoted": """
        sysctl -w net.ipv4.conf.eth0.promote_secondaries=1
        ip addr del 198.18.5.1/24 dev eth0""",
    "the first IPv6 address goes": "ip addr del fd00:5::1/64 dev eth0",
    "all addresses go": "ip addr flush dev eth0 scope global\nip addr flush dev br0 scope global",
    "addresses change their order": """
        ip addr del 198.18.0.1/24 dev br0
        ip addr add 198.18.0.2/24 dev br0
        ip addr add 198.18.0.1/24 dev br0""",
    "addresses are added": """
        ip addr add 198.18.44.1/24 dev eth0
        ip addr add fd44::1/64 dev br0
        ip addr add 198.18.45.1/24 dev lo""",
    "an address gets a lifetime": """
        ip addr change fd00:5::1/64 dev eth0 valid_lft 100 preferred_lft 50""",
    "an address changes its label": """
        ip addr del 198.18.5.2/24 dev eth0
        ip addr add 198.18.5.2/24 dev eth0""",
    "links go down": "ip link set eth0 down\nip link set br0 down",
    "links go down and up": """
        ip link set eth0 down
        ip link set br0 down
        ip link set eth0 up
        ip link set br0 up""",
    "a port leaves its bridge": "ip link set eth1 nomaster",
    "a port leaves and comes back": "ip link set eth1 nomaster\nip link set eth1 master br0",
    "a port changes its bridge": "ip link set eth2 nomaster\nip link set eth2 master br1",
    "port flags change": """
        bridge link set dev eth1 isolated off cost 9 priority 3 learning on hairpin off
        bridge link set dev eth2 guard off root_block off flood on mcast_flood on
        bridge link set dev eth2 neigh_suppress on""",
    "a bridge is deleted": "ip link del br0",
    "a bridge is deleted and made again": """
        ip link del br0
        ip link add br0 type bridge
        ip link set eth2 master br0
        ip link set br0 up""",
    "bridge parameters change": """
        ip link set br0 type bridge stp_state 1 forward_delay 2000 priority 8192 ageing_time 500
        ip link set br0 type bridge mcast_querier 0 group_fwd_mask 0 hello_time 300 max_age 900""",
    "STP is off and delays are what only that allows": """
        ip link set br0 type bridge stp_state 0 forward_delay 0""",
    "a bridge's MAC changes": "ip link set br0 address 02:00:00:00:00:99",
    "MTU, MAC and queue length change": """
        ip link set eth0 mtu 1280
        ip link set eth0 mtu 9000
        ip link set eth0 address 02:aa:00:00:00:01
        ip link set eth0 txqueuelen 1000
        ip link set eth0 alias nothing
        ip link set eth1 mtu 1300""",
    "names change": """
        ip link property del dev eth0 altname uplink-one
        ip link property add dev eth0 altname uplink-three
        ip link set eth1 down
        ip link set eth1 name lan0
        ip link set lan0 up""",
    "names are swapped": """
        ip link set eth1 down
        ip link set eth2 down
        ip link set eth1 name lan0
        ip link set eth2 name eth1
        ip link set lan0 name eth2
        ip link set eth1 up
        ip link set eth2 up""",
    "a veth pair is deleted": "ip link del eth1",
    "the NIC below everything is deleted": "ip link del eth0",
    "taps are deleted": "ip link del tap0\nip link del tun0",
    "a tap is another's": """
        ip link del tap0
        ip tuntap add tap0 mode tap user 1
        ip link set tap0 up""",
    "vxlans are deleted": "ip link del vx0\nip link del vx1",
    "devices are made": """
        ip link add br9 type bridge
        ip link add v9 type veth peer name w9
        ip link set v9 master br9
        ip addr add 198.18.99.1/24 dev br9
        ip link set br9 up
        ip link set v9 up
        ip route add 198.19.99.0/24 dev br9""",
    "the NIC moves into a new bridge with its address": """
        ip link add br9 address 02:00:00:00:00:09 type bridge
        ip link set br9 up
        ip addr flush dev eth0 scope global
        ip link del mv0
        ip link del mt0
        ip link set eth0 master br9
        ip addr add 198.18.5.1/24 dev br9
        ip route add default via 198.18.5.254 dev br9""",
    "routes go": """
        ip route flush table 100
        ip route flush table 200
        ip route del 198.19.3.0/24
        ip route del blackhole 198.19.7.0/24
        ip -6 route flush table 300
        ip -6 route del unreachable fd03::/64
        ip -6 route del default
        ip route del default
        ip route del 198.18.1.0/24 dev br0
        ip route del 198.19.10.0/24""",
    "routes come": """
        ip route add 198.19.70.0/24 via 198.18.0.7
        ip route add blackhole 198.19.71.0/24
        ip -6 route add fd77::/64 dev br0
        ip route add default via 198.18.0.77 metric 5
        ip route replace default via 198.18.0.77 metric 100""",
    "nexthop objects go and come": """
        ip nexthop del id 5
        ip nexthop add id 77 via 198.18.0.7 dev br0
        ip route add 198.19.77.0/24 nhid 77""",
    "rules go, come and change places": """
        ip rule del priority 1000
        ip rule add from 198.18.0.0/24 lookup 100 priority 1000
        ip rule del priority 1001
        ip rule add from 198.18.77.0/24 lookup main priority 77
        ip -6 rule del priority 1002""",
    "neighbours and forwarding entries go and come": """
        ip neigh del 198.18.5.254 dev eth0
        ip neigh del proxy 198.18.5.77 dev eth0
        ip neigh add 198.18.5.88 lladdr 02:00:00:00:05:88 dev eth0 nud permanent
        ip neigh change fd00:5::fe lladdr 02:00:00:00:05:ff dev eth0 nud permanent
        bridge fdb del 02:00:00:00:11:11 dev eth1 master
        bridge fdb add 02:00:00:00:33:33 dev eth2 master static
        bridge fdb del 00:00:00:00:00:00 dev vx1 dst 198.18.5.8
        bridge mdb del dev br0 port eth1 grp 239.1.1.1 permanent
        bridge mdb add dev br0 port eth2 grp 239.2.2.2 permanent""",
    "queueing changes": """
        tc qdisc del dev eth0 root
        tc qdisc add dev eth1 clsact""",
    "parameters change": """
        sysctl -w net.ipv4.conf.eth0.rp_filter=0
        sysctl -w net.ipv6.conf.br0.accept_ra=2
        sysctl -w net.ipv4.neigh.eth0.gc_stale_time=11
        sysctl -w net.ipv4.ip_forward=1""",
    "IPv6 is turned off": "sysctl -w net.ipv6.conf.eth0.disable_ipv6=1",
    "everything at once": """
        ip link del br0
        ip link del eth0
        ip rule flush
        ip link set eth1 down
        ip link set eth2 down
        ip link add br9 type bridge
        ip link set eth1 master br9
        ip route flush table local
        ip route flush table main
        ip -6 route flush table main""",
}


#: Where duplicate detection is on; elsewhere it only costs the test two seconds.
DETECTING = ("links go down and up", "all addresses go", "everything at once")


@pytest.fixture
def scene(namespace: Namespace, how: str) -> Namespace:
    """Give a namespace with something of everything, once duplicate detection is over."""
    if how not in DETECTING:
        namespace.do("sysctl -w net.ipv6.conf.default.accept_dad=0")
    namespace.do(SCENE)
    await_equal(lambda: namespace.read("ip", "-j", "-6", "addr", "show", "tentative"), [])
    await_equal(
        lambda: [
            n["ifname"] for n in namespace.read("ip", "-j", "addr") if _waits_for_link_local(n)
        ],
        [],
    )
    return namespace


def _waits_for_link_local(link: dict) -> bool:
    own = [item for item in link["addr_info"] if item["local"].startswith("fe80")]
    return "LOWER_UP" in link["flags"] and link["ifname"] != "lo" and not own


SCOPE = {
    "devices": ALL,
    "sysctls": ["net.ipv4.ip_forward"],
    "files": [],
    "rules": True,
    "namespaces": {},
}


@pytest.mark.parametrize("how", BREAKS)
def test_restores(scene: Namespace, how: str) -> None:
    """After any change made by hand, links, addresses, routes, rules and the rest are as before."""
    before = scene.picture()
    snapshot = json.loads(json.dumps(capture(scene.system, {**SCOPE, "devices": [*ALL, "lo"]})))
    scene.do(BREAKS[how])
    remaining = restore(scene.system, snapshot)
    assert [{**item, "what": item["what"]} for item in remaining] == []
    await_equal(scene.picture, before)
    assert differences(snapshot, capture(scene.system, snapshot["scope"], snapshot)) == []
