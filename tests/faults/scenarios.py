"""Scenarios: how a host is before, and what a plan makes of it. All are managed from off-link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .world import NEW, OWN, ROUTER, SECOND, World

#: What belongs to others on every host, and is none of any plan's business.
FOREIGN = """
link add foreign0 type veth peer name foreign1
link set foreign0 address 02:00:00:00:00:f0 up
link set foreign1 address 02:00:00:00:00:f1 up
address add 198.18.200.1/24 dev foreign0
route add 198.18.201.0/24 via 198.18.200.9 dev foreign0 table 99 metric 7
rule add from 198.18.200.0/24 lookup 99 priority 30100
neigh add 198.18.200.9 lladdr 02:00:00:00:00:f9 dev foreign0 nud permanent
"""
FOREIGN_TABLE = (
    "table inet foreign { chain one { type filter hook input priority 5; tcp dport 1 drop; }; }"
)


@dataclass(frozen=True)
class Scenario:
    """``before``: lines of ip(8); ``state``: what is asked for; ``changes``: how many, about."""

    name: str
    state: dict[str, Any]
    changes: int
    before: str = ""
    script: str = ""
    #: The address at which operators get in once it is committed.
    after: str = OWN
    #: Ports of guests that must stay in this bridge, and how many pings between them may be lost.
    bridge: str = ""
    ports: tuple[str, ...] = ()
    pings: bool = False
    #: Seconds from arming to the revert: as few as a plan of that many changes can do with.
    deadline: float = 1.6
    prepare: Callable[[World], None] | None = None
    #: The plan cannot succeed: all that counts is that it is taken back.
    fails: bool = False
    #: Names for a hand change: a device the plan names, and one that merely depends on such.
    touched: str = "eth0"
    beside: str = "foreign0"
    #: Whether the plan changes ``touched`` at all.
    named: bool = True
    #: What intent names of it exclusively, so that the plan shows what it takes from others.
    exclusive: tuple[str, ...] = ()
    #: What the operator allows.
    allow: tuple[str, ...] = ()
    #: The plan must not be carried out at all.
    refused: bool = False
    #: After a commit each of these words is in what its command prints.
    expects: tuple[tuple[str, str], ...] = ()
    #: A state that was committed before, so that the plan has something to take away.
    committed: dict[str, Any] | None = None
    #: The controller is on the host's own link, behind no router.
    on_link: bool = False
    #: The host has Open vSwitch, whose processes may be killed.
    switch: bool = False

    def begin(self, world: World) -> None:
        """Make a world what it is before the plan."""
        world.batch(FOREIGN + self.before)
        (world.root / "etc/sysctl.d/50-foreign.conf").write_text("net.ipv4.tcp_syncookies = 1\n")
        world.sh(f"nft '{FOREIGN_TABLE}'; {self.script}")
        if self.switch:
            world.start_switch()
        if self.on_link:
            world.controller = world.router
        if self.prepare:
            self.prepare(world)
        world.wait_for_carriers()
        if self.committed is not None:
            world.commit(self.committed, OWN)
            world.wait_for_carriers()
        if self.name == "namespace-held":
            world.hold_namespace("vm")

    def unmet(self, world: World) -> list[str]:
        """Return what should be so after a commit, and is not."""
        return [
            f"{word!r} is not in {command!r}"
            for command, word in self.expects
            if word not in world.sh(command, check=False)
        ]


def _state(*resources: tuple[str, dict[str, Any]], addresses: tuple[str, ...] = (OWN,)) -> Any:
    listed = []
    for key, spec in resources:
        kind, _, name = key.partition("/")
        listed.append({"namespace": "", "kind": kind, "name": name, "spec": spec})
    return {
        "host": "kvm1",
        "resources": listed,
        "probes": {"gateway": False},
        "management": {"addresses": list(addresses)},
    }


def _plain(*addresses: str) -> list[dict[str, str]]:
    return [{"address": address} for address in addresses]


def _taps(world: World) -> None:
    """A bridge with the ports of twenty guests, each held by a process that has it open."""
    world.batch("link add br1 address 02:00:00:00:02:ff type bridge\nlink set br1 up")
    world.hold_taps(TAPS)
    lines = (
        f"link set {tap} address 02:00:00:00:05:{number:02x} master br1 up"
        for number, tap in enumerate(TAPS)
    )
    world.batch("\n".join(lines))


def _guests(world: World) -> None:
    """Two guests that ping, eighteen that are silent: veths whose other ends are elsewhere."""
    lines = ["link add br1 address 02:00:00:00:02:ff type bridge", "link set br1 up"]
    for number in range(20):
        end = world.controller if number == 1 else world.router
        lines += [
            f"link add port{number} address 02:00:00:00:02:{number:02x} type veth "
            f"peer name guest{number} netns {end}",
            f"link set port{number} master br1 up",
        ]
    world.batch("\n".join(lines))
    for number, space in ((0, world.router), (1, world.controller)):
        world.batch(
            f"link set guest{number} address 02:00:00:00:03:{number:02x} up\n"
            f"address add 198.18.9.{number + 1}/24 dev guest{number}",
            space,
        )
    ends = "\n".join(f"link set guest{number} up" for number in range(2, 20))
    world.batch(ends, world.router)


def _switch(world: World) -> None:
    """A bridge of somebody's, one that is adopted, and flows by hand in both."""
    lines = []
    for number in range(3):
        lines += [
            f"link add sw{number} address 02:00:00:00:06:{number:02x} type veth "
            f"peer name wire{number} netns {world.router}",
            f"link set sw{number} up",
        ]
    world.batch("\n".join(lines))
    world.batch("\n".join(f"link set wire{number} up" for number in range(3)), world.router)
    world.sh("""
        ovs-vsctl --timeout=5 \
          -- add-br ovs0 -- set bridge ovs0 datapath_type=netdev fail_mode=secure \
             other_config:hwaddr=02:00:00:00:06:f0 external_ids:by=hand \
          -- add-port ovs0 sw0 tag=7 -- set interface sw0 ofport_request=1 \
          -- add-br foreign2 -- set bridge foreign2 datapath_type=netdev \
             other_config:hwaddr=02:00:00:00:06:f2 -- add-port foreign2 sw2
        ip link set ovs0 up; ip link set foreign2 up
        ovs-ofctl add-flow ovs0 cookie=0x99,priority=7,tcp,actions=drop
        ovs-ofctl add-flow foreign2 cookie=0x98,priority=7,udp,actions=drop
    """)


PORTS = tuple(f"port{number}" for number in range(20))
TAPS = tuple(f"tap{number}" for number in range(20))
_ROUTE = [{"to": "default", "via": ROUTER}]
_LEFT = tuple(f"net.ipv4.conf.many{n:02d}.log_martians" for n in range(16))
_RIGHT = tuple(f"net.ipv6.conf.many{n:02d}.hop_limit" for n in range(13))
_MANY = "\n".join(
    f"link add many{n:02d} type veth peer name many{n + 1:02d}" for n in range(0, 16, 2)
)

SCENARIOS: dict[str, Scenario] = {}


def _add(scenario: Scenario) -> None:
    SCENARIOS[scenario.name] = scenario


_add(
    Scenario(
        "bridge", changes=7, touched="eth0",
        state=_state(
            ("ethernet/eth0", {}),
            ("sysctl/net.ipv4.ip_forward", {"value": "1"}),
            ("bridge/br0", {
                "interfaces": ["eth0"], "addresses": _plain(f"{OWN}/24"),
                "parameters": {"stp": False},
            }),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "bridge-strict", changes=6, touched="eth0",
        script="sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1",
        state=_state(
            ("ethernet/eth0", {}),
            ("bridge/br0", {
                "interfaces": ["eth0"], "addresses": _plain(f"{OWN}/24"),
                "parameters": {"stp": False}, "routes": _ROUTE,
            }),
        ),
    )
)  # fmt: skip
_ON_BRIDGE = _state(
    ("ethernet/eth0", {}),
    ("bridge/br0", {
        "interfaces": ["eth0"], "addresses": _plain(f"{OWN}/24"), "parameters": {"stp": False},
    }),
)  # fmt: skip
_add(
    Scenario(
        "bridge-loose", changes=6, state=_ON_BRIDGE,
        script="sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2",
    )
)  # fmt: skip
_add(Scenario("bridge-on-link", changes=6, state=_ON_BRIDGE, on_link=True))
_add(
    Scenario(
        "bridge-others", changes=10, state=_ON_BRIDGE,
        before=f"""
            address add 2001:db8:6::5/64 dev eth0 nodad
            route add 198.18.60.0/24 via {ROUTER} dev eth0 table 100 metric 5
            route add 198.18.61.0/24 dev eth0 table 100
            route add 198.18.62.0/24 via 198.18.61.9 dev eth0 onlink table 101
            rule add from 198.18.60.0/24 lookup 100 priority 30100
            neigh add 198.18.0.77 lladdr 02:00:00:00:07:07 dev eth0 nud permanent
            neigh add 198.18.61.9 lladdr 02:00:00:00:07:09 dev eth0 nud permanent
            neigh add 2001:db8:6::9 lladdr 02:00:00:00:07:0b dev eth0 nud permanent
        """,
        expects=(
            ("ip route show table 100", f"198.18.60.0/24 via {ROUTER} dev br0"),
            ("ip route show table 100", "198.18.61.0/24 dev br0"),
            ("ip route show table 101", "198.18.62.0/24 via 198.18.61.9 dev eth0"),
            ("ip neigh show nud permanent", "198.18.0.77 dev br0"),
            ("ip neigh show nud permanent", "198.18.61.9 dev eth0"),
            ("ip -6 neigh show nud permanent", "2001:db8:6::9 dev eth0"),
            ("ip -6 address show dev eth0", "2001:db8:6::5"),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "taps", changes=23, deadline=3.0, bridge="br1", ports=TAPS, prepare=_taps,
        touched="br1", beside="tap7",
        state=_state(
            ("bridge/br1", {
                "interfaces": list(TAPS), "mtu": 1400, "parameters": {"ageing_time": 200},
                "ports": {tap: {"isolated": True, "cost": 50 + n} for n, tap in enumerate(TAPS)},
            }),
        ),
    )
)  # fmt: skip
_WITHOUT = _state(("sysctl/net.ipv4.ip_forward", {"value": "1"}))
_SPACE = [
    {"namespace": "", "kind": "namespace", "name": "vm", "spec": {}},
    {"namespace": "", "kind": "veth", "name": "v1", "spec": {
        "peer": "e0", "peer_namespace": "vm", "addresses": _plain("198.18.2.1/24"),
        "macaddress": "02:00:00:00:04:01"}},
    {"namespace": "vm", "kind": "veth", "name": "e0", "spec": {
        "peer": "v1", "peer_namespace": "host", "addresses": _plain("198.18.2.2/24"),
        "macaddress": "02:00:00:00:04:02"}},
    {"namespace": "vm", "kind": "sysctl", "name": "net.ipv4.ip_forward", "spec": {"value": "1"}},
    {"namespace": "vm", "kind": "nftables", "name": "inet/own", "spec": {"rules": (
        "chain input { type filter hook input priority 0; tcp dport 2222 drop; }\n"
    )}},
]  # fmt: skip
_WITH = {**_WITHOUT, "resources": [*_WITHOUT["resources"], *_SPACE]}
_add(
    Scenario(
        "namespace", changes=2, state=_WITHOUT, committed=_WITH, touched="v1", named=False,
        expects=(("ls -A /run/netns; echo none", "none"),),
    )
)  # fmt: skip
_add(
    Scenario(
        "namespace-held", changes=2, state=_WITHOUT, committed=_WITH, refused=True,
        touched="v1", named=False,
    )
)  # fmt: skip
_add(
    Scenario(
        "address",
        changes=3,
        exclusive=("address", "route"),
        after=NEW,
        state=_state(
            ("ethernet/eth0", {"addresses": _plain(f"{NEW}/24"), "routes": _ROUTE}),
            ("sysctl/net.ipv4.conf.all.rp_filter", {"value": "2"}),
            addresses=(NEW,),
        ),
    )
)
_add(
    Scenario(
        "default-route", changes=2, exclusive=("address", "route"),
        state=_state(
            ("ethernet/eth0", {
                "addresses": _plain(f"{OWN}/24"), "routes": [{"to": "default", "via": SECOND}],
            }),
            ("sysctl/net.ipv4.ip_forward", {"value": "1"}),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "mtu",
        changes=2,
        state=_state(
            ("ethernet/eth0", {"mtu": 1280}),
            ("sysctl/net.ipv4.tcp_mtu_probing", {"value": "1"}),
        ),
    )
)
_add(
    Scenario(
        "address-off",
        changes=3,
        exclusive=("address",),
        allow=("foreign",),
        touched="eth1",
        before="""
            address add 198.18.5.5/24 dev eth1
            address add 2001:db8:5::5/64 dev eth1 nodad
            address add 198.18.5.6/24 dev eth1
            route add 198.18.50.0/24 via 198.18.5.1 dev eth1 table 77
            route add 198.18.51.0/24 via 198.18.5.1 dev eth1 src 198.18.5.6
            route add 2001:db8:50::/48 via 2001:db8:5::1 dev eth1 table 77
            rule add from 198.18.5.0/24 lookup 77 priority 30200
            neigh add 198.18.5.1 lladdr 02:00:00:00:01:02 dev eth1 nud permanent
            neigh add 2001:db8:5::1 lladdr 02:00:00:00:01:02 dev eth1 nud permanent
        """,
        state=_state(
            ("ethernet/eth1", {"addresses": [], "mtu": 1400}),
            ("rule/one", {"from_": "198.18.6.0/24", "table": 77, "priority": 30300}),
        ),
    )
)
_add(
    Scenario(
        "guests", changes=23, deadline=3.0, bridge="br1", ports=PORTS, prepare=_guests, pings=True,
        touched="br1", beside="port7",
        state=_state(
            ("bridge/br1", {
                "interfaces": list(PORTS), "mtu": 1400,
                "parameters": {"priority": 4096, "ageing_time": 200},
                "ports": {port: {"isolated": False, "cost": 50 + n, "learning": True}
                          for n, port in enumerate(PORTS)},
            }),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "seventeenth-fails",
        changes=17,
        deadline=3.0,
        fails=True,
        named=False,
        before=_MANY,
        beside="many00",
        state=_state(
            *((f"sysctl/{key}", {"value": "1"}) for key in _LEFT),
            ("sysctl/net.ipv4.tcp_congestion_control", {"value": "no-such-thing"}),
            *((f"sysctl/{key}", {"value": "33"}) for key in _RIGHT),
        ),
    )
)
_add(
    Scenario(
        "no-op",
        changes=0,
        named=False,
        exclusive=("address",),
        state=_state(("ethernet/eth0", {"addresses": _plain(f"{OWN}/24")})),
    )
)
_add(
    Scenario(
        "nft-new", changes=1, named=False,
        state=_state(
            ("nftables/inet/site", {"rules": (
                "chain input {\n type filter hook input priority 0; policy accept;\n"
                " ct state established accept\n"
                " ip saddr 198.18.100.0/24 tcp dport 22 drop\n}\n"
            )}),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "nft-all", changes=1, named=False,
        state=_state(
            ("nftables/inet/site", {"rules": (
                "chain input {\n type filter hook input priority 0; policy accept;\n"
                " ip saddr 198.18.100.0/24 drop\n}\n"
            )}),
        ),
    )
)  # fmt: skip
_add(
    Scenario(
        "switch", changes=3, deadline=3.0, prepare=_switch, switch=True,
        touched="eth1", named=False,
        state=_state(
            ("openvswitch/ovs0", {
                "interfaces": ["sw0", "sw1"],
                "openvswitch": {
                    "datapath_type": "netdev", "fail_mode": "standalone",
                    "other_config": {"hwaddr": "02:00:00:00:06:f0"},
                    "ports": {"sw0": {"tag": 9}, "sw1": {"trunks": [5, 6]}},
                },
            }),
            ("flows/ovs0", {"flows": "priority=9,udp,in_port=sw1,actions=drop\n"}),
            ("sysctl/net.ipv4.ip_forward", {"value": "1"}),
        ),
    )
)  # fmt: skip
