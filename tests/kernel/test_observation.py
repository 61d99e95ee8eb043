"""What observation says of a namespace, judged by iproute2."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import Namespace, await_equal

import fleet
from fleet.host.kernel.observation import Observation, management_path

pytestmark = pytest.mark.kernel

REPOSITORY = str(Path(fleet.__file__).parents[1])
FORBIDDEN = (
    "typing", "dataclasses", "json", "re", "socket", "subprocess", "collections", "enum",
    "functools", "logging", "asyncio", "ctypes", "hashlib", "tempfile", "pathlib", "pyroute2",
)  # fmt: skip


def pair(name: str, peer: str) -> str:
    return f"ip link add {name} type veth peer name {peer}\n"


def test_links(namespace: Namespace) -> None:
    """Every device is there with the name, index, MTU, MAC, state, names and queue length of ip."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link set eth0 mtu 1400 txqueuelen 77 alias words
        ip link property add dev eth0 altname first-name altname second-name
        ip link set eth0 up
        ip link set far0 up group 7
        ip link add br0 type bridge
        ip link set eth0 master br0"""
    )
    found = Observation(namespace.system).links
    oracle = {link["ifname"]: link for link in namespace.read("ip", "-j", "-d", "link")}
    assert found.keys() == oracle.keys()
    for name, link in found.items():
        other = oracle[name]
        assert link["index"] == other["ifindex"]
        assert link["mtu"] == other["mtu"]
        assert link["mac"] == other["address"]
        assert link["up"] == ("UP" in other["flags"])
        assert link["running"] == ("NO-CARRIER" not in other["flags"] and link["up"])
        assert link["altnames"] == other.get("altnames", [])
        assert link["kind"] == other.get("linkinfo", {}).get("info_kind", "")
        assert link["master"] == other.get("master")
        assert link["link"] == other.get("link")
        assert link["txqlen"] == other.get("txqlen", 0)
        assert (link["min_mtu"], link["max_mtu"]) == (other["min_mtu"], other["max_mtu"])
        assert link["operstate"] == other["operstate"].lower()
        assert link["group"] == (0 if other["group"] == "default" else int(other["group"]))


def test_bridges_and_ports(namespace: Namespace) -> None:
    """Bridge parameters and port flags are as ip and bridge show them."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link add br0 type bridge stp_state 1 forward_delay 400 hello_time 300 max_age 900
        ip link set br0 type bridge ageing_time 12345 priority 4096 mcast_snooping 0
        ip link set br0 type bridge group_fwd_mask 8
        ip link set eth0 master br0
        bridge link set dev eth0 isolated on cost 77 priority 10 learning off hairpin on guard on
        bridge link set dev eth0 root_block on flood off mcast_flood off bcast_flood off
        bridge link set dev eth0 neigh_suppress on locked on"""
    )
    links = Observation(namespace.system).links
    data, other = links["br0"]["data"], namespace.read("ip", "-j", "-d", "link", "show", "br0")[0]
    other = other["linkinfo"]["info_data"]
    assert data["stp"] is True
    for word in ("forward_delay", "hello_time", "max_age", "ageing_time"):
        assert data[word] == other[word] / 100
    assert data["priority"] == other["priority"] == 4096
    assert data["multicast_snooping"] is False
    assert data["group_fwd_mask"] == 8
    assert data["vlan_filtering"] is False
    port = next(p for p in namespace.read("bridge", "-j", "-d", "link") if p["ifname"] == "eth0")
    for word, value in links["eth0"]["port"].items():
        if word in port:
            assert value == port[word], word
    assert links["eth0"]["port"]["isolated"] is True
    assert links["br0"]["port"] is None


def test_kinds(namespace: Namespace) -> None:
    """Attributes of macvlan, macvtap, vxlan, tun, tap and ifb are read; none is unknown."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link add mv0 link eth0 type macvlan mode vepa
        ip link add mt0 link eth0 type macvtap mode private
        ip link add ms0 link eth0 type macvlan mode source
        ip link set ms0 type macvlan macaddr add 02:00:00:00:00:07
        ip link add vx0 type vxlan id 42 remote 198.18.5.9 local 198.18.5.1 dstport 4789 dev eth0
        ip link add vx6 type vxlan id 43 remote fd00::9 local fd00::1 dstport 4790 ttl 7
        ip tuntap add tap0 mode tap user 1234 group 5 multi_queue vnet_hdr
        ip tuntap add tun0 mode tun pi
        ip link add ifb7 type ifb"""
    )
    links = Observation(namespace.system).links
    assert (links["mv0"]["data"]["mode"], links["mt0"]["data"]["mode"]) == ("vepa", "private")
    assert links["mv0"]["link"] == links["mt0"]["link"] == links["vx0"]["data"]["link"] == "eth0"
    assert links["ms0"]["data"]["macaddr_data"] == ["02:00:00:00:00:07"]
    vxlan = links["vx0"]["data"]
    assert (vxlan["id"], vxlan["group"], vxlan["local"]) == (42, "198.18.5.9", "198.18.5.1")
    assert (vxlan["port"], vxlan["learning"]) == (4789, True)
    assert (links["vx6"]["data"]["group"], links["vx6"]["data"]["ttl"]) == ("fd00::9", 7)
    tap = links["tap0"]["data"]
    assert (tap["type"], tap["user"], tap["group"], tap["persist"]) == ("tap", 1234, 5, True)
    assert (tap["multi_queue"], tap["vnet_hdr"], tap["pi"]) == (True, True, False)
    assert (links["tun0"]["data"]["type"], links["tun0"]["data"]["pi"]) == ("tun", True)
    assert links["ifb7"]["kind"] == "ifb"


def test_peers_in_other_namespaces(make_namespace: Callable[[], Namespace]) -> None:
    """A veth's peer in another namespace is a number with that namespace's id, never a name."""
    here, there = make_namespace(), make_namespace()
    here.do(pair("decoy0", "decoy1") + f"ip link add a0 type veth peer name a1 netns {there.name}")
    link = Observation(here.system).links["a0"]
    assert isinstance(link["link"], int)
    assert link["link_netnsid"] is not None
    assert Observation(here.system).links["decoy0"]["link"] == "decoy1"
    assert "a1" in Observation(here.system).at(there.name).links


def test_addresses(namespace: Namespace) -> None:
    """Addresses are as ip shows them, in its order; leases and the kernel's own are told apart."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link set eth0 up
        ip link set far0 up
        ip addr add 198.18.5.1/24 brd + dev eth0
        ip addr add 198.18.5.2/24 dev eth0 label eth0:two
        ip addr add 198.18.6.1 peer 198.18.6.2/32 dev eth0
        ip addr add 198.18.7.1/24 dev eth0 valid_lft 600 preferred_lft 300
        ip addr add 198.18.8.1/24 dev eth0 scope link metric 7
        ip addr add fd00::1/64 dev eth0 nodad
        ip addr add fe80::77/64 dev eth0 nodad
        ip addr add fd00::2/64 dev eth0 preferred_lft 0 nodad"""
    )
    await_equal(lambda: namespace.read("ip", "-j", "-6", "addr", "show", "tentative"), [])
    found = Observation(namespace.system).addresses["eth0"]
    oracle = namespace.read("ip", "-j", "-d", "addr", "show", "eth0")[0]["addr_info"]
    assert [a["address"] for a in found] == [f"{o['local']}/{o['prefixlen']}" for o in oracle]
    for address, other in zip(found, oracle, strict=True):
        assert address["family"] == {"inet": 4, "inet6": 6}[other["family"]]
        assert address["scope"] == other["scope"]
        assert address["label"] == other.get("label", "")
        assert address["secondary"] == other.get("secondary", False)
        assert address["broadcast"] == other.get("broadcast")
        assert address["dynamic"] == other.get("dynamic", False)
    by_text = {address["address"]: address for address in found}
    assert by_text["198.18.6.1/32"]["peer"] == "198.18.6.2/32"
    assert by_text["198.18.7.1/24"]["preferred"] <= 300
    assert by_text["198.18.8.1/24"]["metric"] == 7
    kernels = [text for text, address in by_text.items() if address["kernel"]]
    assert len(kernels) == 1
    assert kernels[0].startswith("fe80::")
    assert kernels != ["fe80::77/64"]


def test_a_duplicate_address(namespace: Namespace) -> None:
    """An address that another host on the link has is told by dadfailed."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link set eth0 up
        ip link set far0 up
        ip addr add fd00::1/64 dev far0 nodad
        ip addr add fd00::1/64 dev eth0"""
    )

    def failed() -> list[bool]:
        items = Observation(namespace.system).addresses["eth0"]
        return [item["dadfailed"] for item in items if item["address"] == "fd00::1/64"]

    await_equal(failed, [True])


def test_routes(namespace: Namespace) -> None:
    """Routes of all tables and both families are as ip shows them."""
    namespace.do(
        pair("eth0", "far0")
        + pair("eth1", "far1")
        + """
        ip link set eth0 up
        ip link set far0 up
        ip link set eth1 up
        ip link set far1 up
        ip addr add 198.18.5.1/24 dev eth0
        ip addr add 198.18.6.1/24 dev eth1
        ip addr add fd00::1/64 dev eth0 nodad
        ip route add default via 198.18.5.254 metric 99 mtu 1300 advmss 1200 initcwnd 20 initrwnd 9
        ip route add 198.19.1.0/24 via 198.18.5.254 table 1000 src 198.18.5.1
        ip route add 198.19.2.0/24 nexthop via 198.18.5.254 weight 3 nexthop via 198.18.6.254
        ip route add 198.19.3.0/24 via 198.19.9.9 dev eth0 onlink
        ip route add 198.19.4.0/24 via inet6 fd00::9 dev eth0
        ip route add 198.19.5.1 dev eth1 scope link proto bird
        ip route add blackhole 198.19.6.0/24
        ip nexthop add id 5 via 198.18.5.253 dev eth0
        ip route add 198.19.7.0/24 nhid 5
        ip -6 route add default via fd00::fe
        ip -6 route add fd02::/64 nexthop via fd00::fe nexthop via fd00::fd weight 2
        ip -6 route add unreachable fd03::/64"""
    )
    routes = Observation(namespace.system).routes
    oracle = [
        route
        for family in "46"
        for route in namespace.read(
            "ip", "-j", "-N", "-d", f"-{family}", "route", "show", "table", "all"
        )
    ]
    assert len(routes) == len(oracle)
    by_to = {(r["family"], r["to"]): r for r in routes if r["table"] == 254}
    first = by_to[4, "default"]
    assert (first["via"], first["dev"], first["metric"]) == ("198.18.5.254", "eth0", 99)
    words = ("mtu", "advertised-mss", "congestion-window", "advertised-receive-window")
    assert [first[word] for word in words] == [1300, 1200, 20, 9]
    several = by_to[4, "198.19.2.0/24"]["nexthops"]
    assert [(h["via"], h["dev"], h["weight"]) for h in several] == [
        ("198.18.5.254", "eth0", 3),
        ("198.18.6.254", "eth1", 1),
    ]
    assert by_to[4, "198.19.3.0/24"]["flags"] & 4
    assert by_to[4, "198.19.4.0/24"]["via"] == "fd00::9"
    assert (by_to[4, "198.19.5.1/32"]["protocol"], by_to[4, "198.19.5.1/32"]["scope"]) == (
        12,
        "link",
    )
    assert by_to[4, "198.19.6.0/24"]["type"] == "blackhole"
    assert by_to[4, "198.19.7.0/24"]["nhid"] == 5
    assert by_to[6, "default"]["via"] == "fd00::fe"
    assert by_to[6, "default"]["metric"] == 1024
    assert len(by_to[6, "fd02::/64"]["nexthops"]) == 2
    assert by_to[6, "fd03::/64"]["type"] == "unreachable"
    (other,) = [r for r in routes if r["table"] == 1000]
    assert (other["to"], other["from"]) == ("198.19.1.0/24", "198.18.5.1")


def test_rules(namespace: Namespace) -> None:
    """Rules of both families are as ip shows them, in its order."""
    namespace.do("""
        ip rule add from 198.18.0.0/24 to 198.19.0.0/16 lookup 1000 priority 500
        ip rule add fwmark 0x7/0xff iif lo oif lo tos 0x10 lookup 200 priority 501
        ip rule add not from 198.18.9.0/24 unreachable priority 502
        ip rule add lookup main suppress_prefixlength 0 priority 503
        ip -6 rule add from fd00::/64 lookup 300 priority 504""")
    rules = Observation(namespace.system).rules
    oracle = [rule for f in "46" for rule in namespace.read("ip", "-j", "-N", f"-{f}", "rule")]
    assert [rule["priority"] for rule in rules] == [rule["priority"] for rule in oracle]
    found = {(rule["family"], rule["priority"]): rule for rule in rules}
    assert found[4, 500]["from"] == "198.18.0.0/24"
    assert (found[4, 500]["to"], found[4, 500]["table"]) == ("198.19.0.0/16", 1000)
    marked = found[4, 501]
    assert (marked["mark"], marked["mask"], marked["tos"]) == (7, 255, 16)
    assert (marked["iif"], marked["oif"]) == ("lo", "lo")
    assert (found[4, 502]["invert"], found[4, 502]["action"]) == (True, "unreachable")
    assert found[4, 503]["suppress_prefixlength"] == 0
    assert "suppress_prefixlength" not in found[4, 500]
    assert found[6, 504]["from"] == "fd00::/64"


def test_neighbours_and_forwarding(namespace: Namespace) -> None:
    """Permanent neighbours, proxies and forwarding entries are read, passing ones are not."""
    namespace.do(
        pair("eth0", "far0")
        + """
        ip link add br0 type bridge
        ip link set far0 master br0
        ip link set eth0 up
        ip neigh add 198.18.5.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent
        ip neigh add 198.18.5.8 lladdr 02:00:00:00:00:08 dev eth0 nud reachable
        ip neigh add proxy 198.18.5.9 dev eth0
        bridge fdb add 02:00:00:00:11:11 dev far0 master static"""
    )
    observation = Observation(namespace.system)
    assert [(n["address"], n["mac"]) for n in observation.neighbours if n["family"] == 4] == [
        ("198.18.5.7", "02:00:00:00:00:07"),
        ("198.18.5.9", ""),
    ]
    (entry,) = [e for e in observation.fdb if e["mac"] == "02:00:00:00:11:11"]
    assert (entry["dev"], entry["master"]) == ("far0", "br0")


def test_is_one_reading(namespace: Namespace) -> None:
    """What was read once is not read again, so that all of a plan stands on one moment."""
    observation = Observation(namespace.system)
    assert set(observation.links) == {"lo"}
    namespace.do(pair("eth0", "far0"))
    assert set(observation.links) == {"lo"}
    assert set(Observation(namespace.system).links) == {"lo", "eth0", "far0"}


def test_management_path(namespace: Namespace) -> None:
    """The way of an address: its device, what that stands on or in, and the gateway's device."""
    namespace.do(
        pair("eth0", "far0")
        + pair("eth1", "far1")
        + """
        ip link add br0 type bridge
        ip link set eth0 master br0
        ip tuntap add tap0 mode tap
        ip link set tap0 master br0
        ip link add mv0 link eth1 type macvlan
        ip link set br0 up
        ip link set eth0 up
        ip link set far0 up
        ip link set eth1 up
        ip link set far1 up
        ip link set mv0 up
        ip addr add 198.18.5.1/24 dev mv0
        ip addr add 198.18.6.1/24 dev br0
        ip route add default via 198.18.6.254"""
    )
    observation = Observation(namespace.system)
    assert management_path(observation, ["198.18.5.1"]) == ["br0", "eth0", "eth1", "mv0"]
    assert management_path(observation, ["198.18.99.1"]) == []


AUDIT = """
import sys
sys.path.insert(0, {repository!r})
from fleet.host.kernel.observation import Observation, management_path
from fleet.host.kernel.system import System
observation = Observation(System())
for part in ("links", "addresses", "routes", "rules"):
    getattr(observation, part)
management_path(observation, ["198.18.5.1"])
observation.sysctl("net.ipv4.ip_forward")
if len(sys.argv) > 1:
    observation.neighbours, observation.fdb, observation.holders
    import fleet.host.reverting.restore
    print(",".join(sorted(sys.modules)))
"""


@pytest.fixture
def host(namespace: Namespace) -> Namespace:
    """Give a namespace with six devices, addresses and a default route."""
    namespace.do(
        pair("eth0", "far0")
        + pair("eth1", "far1")
        + """
        ip link add br0 type bridge
        ip link set eth1 master br0
        ip link set eth0 up
        ip link set far0 up
        ip addr add 198.18.5.1/24 dev eth0
        ip addr add fd00::1/64 dev eth0 nodad
        ip route add default via 198.18.5.254"""
    )
    return namespace


def test_costs_no_imports(host: Namespace) -> None:
    """Neither observing nor loading what restores imports a module that is slow to load."""
    code = AUDIT.format(repository=REPOSITORY)
    words = ["/usr/bin/python3", "-I", "-S", "-c", code, "modules"]
    loaded = set(host.run(*words).strip().split(","))
    assert loaded.isdisjoint(FORBIDDEN)
    assert "fleet.host.reverting.restore" in loaded


def test_is_quick(host: Namespace) -> None:
    """An audit's reading costs less than two starts of a bare interpreter, imports included."""
    code = AUDIT.format(repository=REPOSITORY)
    with host.system.enter():
        bare = min(_seconds("pass") for _ in range(20))
        audit = min(_seconds(code) for _ in range(20))
    print(
        json.dumps({"bare ms": round(bare * 1000, 1), "above ms": round((audit - bare) * 1000, 1)})
    )
    assert audit - bare < 2 * bare


def _seconds(code: str) -> float:
    """Return the processor time of one run: what else the machine does is not its business."""
    argv: list[Any] = ["/usr/bin/python3", "-I", "-S", "-c", code]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_runs_on_this_interpreter_too(host: Namespace) -> None:
    """The same reading works on the controller's own Python."""
    code = AUDIT.format(repository=REPOSITORY)
    assert "fleet.host.kernel.observation" in host.run(
        sys.executable, "-I", "-S", "-c", code, "modules"
    )


def test_a_bridge_under_another_root_tells_its_own_timers(namespace: Namespace) -> None:
    """While another bridge is the root, the timers seen are the bridge's own, not the root's."""
    namespace.do(
        """
        ip link add name root type bridge forward_delay 300 max_age 1000 priority 4096
        ip link add name leaf type bridge forward_delay 700 hello_time 300 max_age 1500
        ip link set root type bridge stp_state 1
        ip link set leaf type bridge stp_state 1
        """
        + pair("up0", "up1")
        + """
        ip link set up0 master root up
        ip link set up1 master leaf up
        ip link set root up
        ip link set leaf up"""
    )

    def roots_timer() -> float:
        data = namespace.read("ip", "-j", "-d", "link", "show", "leaf")[0]["linkinfo"]["info_data"]
        return float(data["forward_delay"])

    await_equal(roots_timer, 300.0)
    data = Observation(namespace.system).links["leaf"]["data"]
    assert (data["forward_delay"], data["hello_time"], data["max_age"]) == (7.0, 3.0, 15.0)
