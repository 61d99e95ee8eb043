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
    #: Seconds from arming to the revert: as few as a plan of that many changes can do with.
    deadline: float = 1.6
    prepare: Callable[[World], None] | None = None
    #: The plan cannot succeed: all that counts is that it is taken back.
    fails: bool = False
    #: Names for a hand change: a device the plan names, and one that merely depends on such.
    touched: str = "eth0"
    beside: str = "foreign0"

    def begin(self, world: World) -> None:
        """Make a world what it is before the plan."""
        world.batch(FOREIGN + self.before)
        (world.root / "etc/sysctl.d/50-foreign.conf").write_text("net.ipv4.tcp_syncookies = 1\n")
        world.sh(f"nft '{FOREIGN_TABLE}'; {self.script}")
        if self.prepare:
            self.prepare(world)
        world.wait_for_carriers()


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


PORTS = tuple(f"port{number}" for number in range(20))
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
_add(
    Scenario(
        "address",
        changes=3,
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
        "default-route", changes=2,
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
        "guests", changes=23, deadline=3.0, bridge="br1", ports=PORTS, prepare=_guests,
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
        state=_state(("ethernet/eth0", {"addresses": _plain(f"{OWN}/24")})),
    )
)
_add(
    Scenario(
        "nft-new", changes=1,
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
        "nft-all", changes=1,
        state=_state(
            ("nftables/inet/site", {"rules": (
                "chain input {\n type filter hook input priority 0; policy accept;\n"
                " ip saddr 198.18.100.0/24 drop\n}\n"
            )}),
        ),
    )
)  # fmt: skip
