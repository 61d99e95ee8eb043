"""Random intents over all kinds, for a host whose NICs are n0, n1 and n2 (Hypothesis).

What one host cannot be is never drawn: the controller refuses it before contact. What this fleet
or a kernel cannot do is left out here, each with its reason.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fleet.host.registry import DEVICES

Intent = dict[str, Any]
NICS = ("n0", "n1", "n2")
TABLE = 100
_SYSCTLS = {
    "net.ipv4.ip_forward": ("0", "1"),
    "net.ipv4.conf.all.rp_filter": ("0", "1", "2"),
    "net.ipv4.conf.n0.arp_ignore": ("0", "1", "2"),
    "net.ipv4.tcp_rmem": ("4096 131072 6291456", "4096 1048576 67108864"),
}
#: Of the inet and ip families.
_RULES = (
    "chain c { type filter hook input priority 0; policy accept; tcp dport 23 counter drop; }",
    "chain c { type filter hook forward priority 0; policy accept; ct state invalid drop; }",
    "set s { type ipv4_addr; elements = { 198.18.1.1, 198.18.1.2 }; }\n"
    "chain c { type filter hook output priority 0; ip daddr @s limit rate 5/second accept; }",
)
_BRIDGE_RULES = (
    "chain c { type filter hook forward priority 0; policy accept; ether type arp accept; }",
    "set m { type ether_addr; elements = { 02:00:00:00:06:01 }; }\n"
    "chain c { type filter hook prerouting priority 5; policy accept; ether saddr @m drop; }",
)
_POLICIES = (
    {"isolate": True, "allow": [["198.18.1.1", "198.18.2.1"]]},
    {"isolate": True, "allow": [["02:00:00:00:01:01", "02:00:00:00:01:02"]]},
    {"block": [{"protocol": "tcp", "ports": [25, 445]}]},
    {"limits": [{"packets": "100/second", "burst": 20}]},
    {"anti_spoofing": {"tp0": {"macaddress": "02:00:00:00:06:02", "addresses": ["198.18.1.9"]}}},
)
_LIMITS = (
    {"rate": "100mbit"}, {"rate": "2mbit", "burst": "32kb", "latency": "20ms"}, {"rate": "5gbit"},
)  # fmt: skip
_CLASSES = (
    {"classes": [
        {"name": "storage", "rate": "40mbit", "ceil": "90mbit", "priority": 0,
         "match": {"destination": "198.18.40.0/24", "protocol": "tcp", "port": 3260}},
        {"name": "rest", "rate": "50mbit", "priority": 1}], "default": "rest"},
    {"classes": [{"name": "six", "rate": "9mbit", "match": {"source": "2001:2::/48"}}]},
)  # fmt: skip
_FLAGS = (
    "isolated", "learning", "flood", "mcast_flood", "bcast_flood", "hairpin", "guard",
    "root_block", "fastleave", "neigh_suppress", "locked",
)  # fmt: skip


def intents(namespace: str) -> st.SearchStrategy[Intent]:
    """Return intents; ``namespace`` is the name of the one they may make."""
    return _intents(namespace)


@st.composite
def _intents(draw: Any, namespace: str) -> Intent:
    return _Draft(draw, namespace).whole()


class _Draft:
    def __init__(self, draw: Any, namespace: str) -> None:
        self.draw, self.name = draw, namespace
        self.found: Intent = {}
        #: Devices that nothing uses yet as a port or as a lower device.
        self.free: list[str] = []
        #: Each device's own number, from which its networks and addresses are made.
        #: A NIC's are its own, for it keeps what it has when intent lets go of it; those of devices
        #: that are made move from one to another between two intents.
        self.number: dict[str, int] = dict(zip(NICS, (201, 202, 203), strict=True))

    def chance(self, of: int = 2) -> bool:
        return bool(self.draw(st.integers(0, of - 1)) == 0)

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def some_of(self, values: Any, most: int = 3) -> list[Any]:
        values = list(values)
        if not values:
            return []
        return list(self.draw(st.lists(st.sampled_from(values), unique=True, max_size=most)))

    def whole(self) -> Intent:
        inside = self.chance(3)
        self.veths(inside)
        self.tuns()
        for name in NICS:
            if not self.chance(3):
                self.device("ethernet", name)
            self.free.append(name)
        self.bridges()
        self.uppers()
        self.entries()
        for key, values in _SYSCTLS.items():
            if self.chance():
                self.found[f"sysctl/{key}"] = {"value": self.one_of(*values)}
        for name in self.some_of(("inet/one", "ip/two")):
            self.found[f"nftables/{name}"] = {"rules": self.one_of(*_RULES)}
        self.more_tables()
        self.rules()
        self.shaping()
        if inside:
            self.inside()
        return self.found

    # Devices

    def link(self, name: str, mtu: bool = True, mac: bool = True) -> dict[str, Any]:
        number = self.number.setdefault(name, len(self.number) + 1)
        spec: dict[str, Any] = {}
        if mtu and self.chance(3):
            spec["mtu"] = self.one_of(1400, 1450)
        if mac and self.chance(3):
            spec["macaddress"] = f"02:00:00:00:0{self.one_of(1, 2)}:{number:02x}"
        if self.chance(6):
            spec["activation_mode"] = self.one_of("off", "manual")
        return spec

    def addressed(self, name: str, spec: dict[str, Any]) -> None:
        """Give a device addresses, and routes through its neighbours there."""
        number = self.number[name]
        if self.chance():
            return
        hosts = self.some_of((1, 2, 3))
        six = self.some_of((1, 2), 2)
        # fib_check_nh(): a route whose gateway is no longer on the link cannot be added again once
        # the last address took it along. Others' routes on n0 keep the address they go through.
        others = [{"address": "192.0.2.1/24"}] if name == "n0" else []
        spec["addresses"] = [
            *others,
            *({"address": f"198.18.{number}.{host}/24"} for host in hosts),
            *({"address": f"2001:2:0:{number}::{host}/64"} for host in six),
        ]
        if hosts and self.chance(4):
            spec["addresses"][len(others)]["lifetime"] = "0"
        down = spec.get("activation_mode") is not None
        if down or not self.chance():
            # A route needs its device up, which activation-mode may keep from being.
            return
        routes: list[dict[str, Any]] = []
        if hosts:
            for to in self.some_of((f"198.19.{number}.0/24", f"198.19.{number}.128/25")):
                route = {"to": to, "via": f"198.18.{number}.254"}
                if self.chance(3):
                    route |= {"table": TABLE}
                if self.chance(3):
                    route |= {"metric": self.one_of(50, 60)}
                routes.append(route)
            if self.chance(4):
                routes.append({"to": f"198.19.{number}.64/26", "scope": "link"})
        if six and self.chance():
            routes.append({"to": f"2001:2:1:{number}::/64", "via": f"2001:2:0:{number}::fe"})
        spec["routes"] = routes

    def device(self, kind: str, name: str, **spec: Any) -> None:
        mtu = kind not in ("macvlan", "macvtap", "tunnel")
        spec = {**self.link(name, mtu, mac=kind != "tun"), **spec}
        self.addressed(name, spec)
        self.found[f"{kind}/{name}"] = spec

    def veths(self, inside: bool) -> None:
        pairs = [("va", "vb"), ("vc", "vd")]
        for one, other in self.some_of(pairs, 2):
            self.device("veth", one, peer=other)
            self.device("veth", other, peer=one)
            self.free += [one, other]
        if inside:
            self.device("veth", "ve", peer="vf", peer_namespace=self.name)
            self.free.append("ve")

    def tuns(self) -> None:
        for name in self.some_of(("tp0", "tp1"), 2):
            spec: dict[str, Any] = {}
            if self.chance():
                spec["owner"] = self.one_of("0", "12")
            if self.chance(3):
                spec["multi_queue"] = self.chance()
            if self.chance(3):
                spec["vnet_hdr"] = self.chance()
            self.device("tap", name, **spec)
            self.free.append(name)
        if self.chance(3):
            self.device("tun", "tn0", **({"owner": "12"} if self.chance() else {}))

    def take(self, most: int) -> list[str]:
        taken = [name for name in self.some_of(self.free, most) if self.plain(name)]
        self.free = [name for name in self.free if name not in taken]
        return taken

    def plain(self, name: str) -> bool:
        """Say whether a device has no addresses of its own: as a port it would be no host's."""
        specs = [spec for key, spec in self.found.items() if key.rpartition("/")[2] == name]
        return not any(spec.get("addresses") or spec.get("routes") for spec in specs)

    def bridges(self) -> None:
        for name in self.some_of(("br0", "br1"), 2):
            ports = self.take(3)
            for one, other in (("va", "vb"), ("vc", "vd")):
                # Both ends in one bridge are a loop, which floods until STP blocks it; so are two
                # pairs between two bridges.
                if one in ports and (other in ports or other == "vd"):
                    ports.remove(one)
            spec: dict[str, Any] = {"interfaces": ports}
            parameters: dict[str, Any] = {}
            for key, values in {
                "stp": (True, False), "priority": (4096, 61440), "ageing_time": (60, 120),
                "hello_time": (1, 3), "max_age": (10, 12), "forward_delay": (4, 5),
                "multicast_snooping": (True, False), "group_fwd_mask": (8, 16384),
            }.items():  # fmt: skip
                if self.chance(4):
                    parameters[key] = self.one_of(*values)
            if parameters:
                spec["parameters"] = parameters
            flags: dict[str, dict[str, Any]] = {}
            for port in ports:
                own: dict[str, Any] = {flag: self.chance() for flag in self.some_of(_FLAGS)}
                if self.chance(3):
                    own |= {"cost": self.one_of(7, 70), "priority": self.one_of(3, 30)}
                if own:
                    flags[port] = own
            if flags:
                spec["ports"] = flags
            self.device("bridge", name, **spec)
            # br_mdb_add(): a bridge that is down, or does not snoop, takes no groups.
            snoops = parameters.get("multicast_snooping", True)
            up = not self.found[f"bridge/{name}"].get("activation_mode")
            if ports and self.chance(3):
                entries = [{"group": "239.1.1.1", "port": ports[0]}]
                if snoops and up:
                    self.found[f"mdb/{name}"] = {"entries": entries}
            for port in ports:
                if self.chance(4):
                    entry = {"macaddress": f"02:00:00:00:09:{len(self.found):02x}"}
                    self.found[f"fdb/{port}"] = {"entries": [entry]}

    def uppers(self) -> None:
        # net/core/dev.c, netdev_rx_handler_register(): a port of a bridge carries no macvlan.
        lowers = [name for name in self.free if name[0] in "nv" and self.up(name)]
        if lowers and self.chance():
            lower = self.one_of(*lowers)
            self.free.remove(lower)
            both = self.some_of((("macvlan", "mv0"), ("macvtap", "mt0")), 2)
            for kind, name in sorted(both):
                # macvlan_common_newlink(): one in passthru has the NIC for itself.
                alone = () if len(both) > 1 else ("passthru",)
                mode = self.one_of("private", "vepa", "bridge", "source", *alone)
                self.number.setdefault(name, len(self.number) + 1)
                # macvlan_change_mtu(): at most the NIC's, which may still have 1400.
                mtu = {"mtu": self.one_of(1300, 1400)} if self.chance(3) else {}
                self.device(kind, name, link=lower, mode=mode, **mtu)
        if self.chance(3):
            spec: dict[str, Any] = {"mode": "vxlan", "id": self.one_of(5, 6)}
            spec["remote"] = self.one_of("198.18.99.1", "198.18.99.2")
            spec["link"] = "n0"
            if self.chance(3):
                spec["mac_learning"] = False
            if self.chance(3):
                spec["ttl"] = 9
            # vxlan_validate_mtu(): what it stands on may have 1400 itself.
            self.device("tunnel", "vx0", **spec, mtu=self.one_of(1300, 1350))
            if self.chance():
                entry: dict[str, Any] = {"macaddress": "02:00:00:00:09:99", "remote": "198.18.99.3"}
                if self.chance(3):
                    entry["port"] = 4790
                self.found["fdb/vx0"] = {"entries": [entry]}

    def up(self, name: str) -> bool:
        specs = [spec for key, spec in self.found.items() if key.rpartition("/")[2] == name]
        return not any(spec.get("activation_mode") or spec.get("mtu") for spec in specs)

    def entries(self) -> None:
        for key, spec in list(self.found.items()):
            kind, _, name = key.partition("/")
            if not spec.get("addresses") or spec.get("activation_mode") or kind in ("tun",):
                continue
            if self.chance(4):
                address = f"198.18.{self.number[name]}.200"
                mac = f"02:00:00:00:08:{self.number[name]:02x}"
                entry = {"address": address, "macaddress": mac}
                self.found[f"neighbour/{name}"] = {"entries": [entry]}

    def more_tables(self) -> None:
        if self.chance(4):
            self.found["nftables/bridge/three"] = {"rules": self.one_of(*_BRIDGE_RULES)}
        if self.chance(5):
            chain = "type filter hook ingress device n1 priority 0; policy accept;"
            rules = f"chain c {{ {chain} ip saddr 198.18.99.9 drop; }}"
            self.found["nftables/netdev/four"] = {"rules": rules}
        for name in self.some_of(("guests", "more"), 2):
            self.found[f"policy/{name}"] = {"guests": ["tp*"], **self.one_of(*_POLICIES)}

    def shaping(self, most: int = 2) -> None:
        names = [key.rpartition("/")[2] for key in self.found if key.partition("/")[0] in DEVICES]
        for name in self.some_of(sorted({*names, "n2"} if "vf" not in names else names), most):
            spec: dict[str, Any] = {}
            if self.chance():
                spec["ingress"] = self.one_of(*_LIMITS)
            if self.chance() or not spec:
                whole = self.one_of("egress", "classes")
                spec |= (
                    {"egress": self.one_of(*_LIMITS)}
                    if whole == "egress"
                    else self.one_of(*_CLASSES)
                )
            self.found[f"shaping/{name}"] = spec

    def rules(self) -> None:
        for number in self.some_of(range(1, 4)):
            source = f"198.18.{number}.0/24"
            priority = 1000 + number
            words = f"from {source} table {TABLE} priority {priority}"
            self.found[f"rule/{words}"] = {"from_": source, "table": TABLE, "priority": priority}

    def inside(self) -> None:
        """Put something into the namespace: the end of the pair, and what stands on it."""
        own = _Draft(self.draw, self.name)
        own.number = {"vf": 50, "brn": 51, "tpn": 52, "mvn": 53, "vxn": 54}
        own.device("veth", "vf", peer="ve", peer_namespace="host")
        if own.chance(3):
            own.device("tap", "tpn", owner="12")
        if own.plain("vf") and own.chance():
            own.device("bridge", "brn", interfaces=["vf"])
            if own.chance():
                own.found["fdb/vf"] = {"entries": [{"macaddress": "02:00:00:00:09:50"}]}
        elif own.chance() and own.up("vf"):
            own.device("macvlan", "mvn", link="vf", mode="bridge")
        if own.chance(3):
            own.device("tunnel", "vxn", id=7, remote="198.18.99.4", mtu=1300)
        own.entries()
        own.rules()
        own.shaping(1)
        if own.chance():
            own.found["sysctl/net.ipv4.ip_forward"] = {"value": own.one_of("0", "1")}
        if own.chance(3):
            own.found["nftables/inet/one"] = {"rules": own.one_of(*_RULES)}
        self.found[f"namespace/{self.name}"] = {}
        self.found |= {f"{self.name}:{key}": spec for key, spec in own.found.items()}
