"""The way back of a committed run: what was there comes back, and what others made stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from world import GATEWAY, World, until

#: All that one run changes: management into a bridge, a bridge with STP, sysctls, rules, a veth.
NETWORK: dict[str, Any] = {
    "ethernets": {"eno1": {"addresses": [], "routes": []}, "eno2": {"mtu": 1450}},
    "bridges": {
        "br-mgmt": {
            "interfaces": ["eno1"],
            "addresses": ["{{ host.hostname }}/24"],
            "routes": [{"to": "default", "via": GATEWAY}],
            "parameters": {"stp": False, "forward-delay": 0},
        },
        "br0": {
            "interfaces": ["eno2", "vm1"],
            "addresses": ["10.7.0.1/24"],
            "parameters": {"stp": False, "forward-delay": 0},
            "routing-policy": [{"from": "10.7.0.0/24", "table": 7}],
        },
    },
    "virtual-ethernets": {"vm1": {"peer": "vm1p"}, "vm1p": {"peer": "vm1"}},
}


def everything(world: World, host: str) -> dict[str, Any]:
    """Return all of a host that ip, bridge, tc, sysctl and find show, but indexes and counters.

    The queue ``noqueue`` of a device and its absence are one: the kernel attaches it when a device
    first comes up, and no message takes it off again (net/sched/sch_generic.c). So it is with the
    group of all nodes on a device that is down: it is among the device's addresses until that has
    been up once, and never again (net/ipv6/mcast.c, ipv6_mc_down).
    """
    links = world.ip(host, "addr show")
    names = {link["ifindex"]: link["ifname"] for link in links}
    for link in links:
        for key in ("ifindex", "operstate", "qdisc"):
            link.pop(key, None)
        link["link_index"] = names.get(link.get("link_index"), link.get("link_index"))
        for part in ("info_data", "info_slave_data"):
            about = link.get("linkinfo", {}).get(part, {})
            for key in [key for key in about if key.endswith("_timer")]:
                del about[key]
        link["addr_info"].sort(key=lambda item: (item["family"], item["scope"], item["local"]))
    show = {
        "routes": ["ip", "-j", "-d", "route", "show", "table", "all"],
        "routes6": ["ip", "-j", "-d", "-6", "route", "show", "table", "all"],
        "rules": ["ip", "-j", "-d", "rule", "show"],
        "fdb": ["bridge", "-j", "-d", "fdb", "show"],
        "ports": ["bridge", "-j", "-d", "link", "show"],
        "qdiscs": ["tc", "-j", "qdisc", "show"],
    }
    found = {key: json.loads(world.run(host, *argv) or "[]") for key, argv in show.items()}
    found["qdiscs"] = [q for q in found["qdiscs"] if q["kind"] != "noqueue"]
    for each in found["ports"]:
        each.pop("ifindex", None)
    up = {link["ifname"] for link in links if "UP" in link["flags"]}
    found["fdb"] = sorted(
        (e for e in found["fdb"] if e["ifname"] in up or e["mac"] != "33:33:00:00:00:01"), key=str
    )
    found["sysctls"] = world.run(host, "sysctl", "net.ipv4")
    found["files"] = world.run(
        host, "sh", "-c", "cd /etc && find sysctl.d netplan systemd/network -type f 2>&1 | sort"
    )
    return {"links": links, **found}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what two pictures differ in, a line each."""
    one, other = (set(_lines(each, "")) for each in (before, after))
    return sorted([*(f"- {line}" for line in one - other), *(f"+ {line}" for line in other - one)])


def _lines(found: Any, path: str) -> Iterator[str]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _lines(value, f"{path} {key}")
    elif isinstance(found, list):
        for index, value in enumerate(found):
            name = value.get("ifname", index) if isinstance(value, dict) else index
            yield from _lines(value, f"{path} {name}")
    elif isinstance(found, str) and "\n" in found:
        yield from (f"{path}: {line}" for line in found.splitlines())
    else:
        yield f"{path}: {found}"


def committed(world: World, host: str, **network: Any) -> str:
    """Roll a host out and return the run's name."""
    world.intend(host, **network)
    world.hosts[host]["data"]["sysctl"] = {"net.ipv4.ip_forward": 1}
    world.write()
    return str(world.roll("--host", host, "--json").json["run"])


@pytest.fixture
def by_hand(world: World) -> World:
    """A host whose network somebody made with ip(8): other flags and sources than fleet's."""
    for line in (
        "route del default",
        f"route add default via {GATEWAY} dev eno1 proto boot metric 42",
        "addr add 10.9.0.1/24 dev eno2",  # without a broadcast address
        "link set eno2 up",
    ):
        world.run("hv1", "ip", *line.split())
    world.defaults["data"]["fleet"]["management"] = {"interface": "br-mgmt"}
    world.write()
    return world


def settled(world: World, host: str) -> dict[str, Any]:
    """Return the picture of a host once its IPv6 addresses have been found to be its own alone."""
    until(lambda: "tentative" not in world.run(host, "ip", "-6", "addr", "show"))
    return everything(world, host)


def test_a_committed_run_goes_back_to_what_was_there(by_hand: World) -> None:
    """All that ip, bridge, tc and find show is as before the run, and as the run left it again
    where the way back is taken back itself."""
    world = by_hand
    before = settled(world, "hv1")
    run = committed(world, "hv1", **NETWORK)
    between = world.picture("hv1")

    back = world.fleet("revert", "--yes", run)
    assert "record" not in back.err
    assert changes(before, settled(world, "hv1")) == []
    assert world.logs_in("hv1")
    assert "unchanged" in world.fleet("revert", "--yes", run).out

    backs = [
        each for each in world.fleet("history", "--json").json["runs"] if each["kind"] == "revert"
    ]
    world.fleet("revert", "--yes", min(each["run"] for each in backs))
    until(lambda: world.picture("hv1") == between)
    world.fleet("audit", "--host", "hv1")


def test_runs_go_back_one_after_another(world: World) -> None:
    """The last run goes back first, then the one before it; out of order the record's word holds,
    and that is said."""
    pictures, runs = [settled(world, "hv1")], []
    for mtu in (1400, 1380):
        bridge = {
            "interfaces": ["eno2"],
            "mtu": mtu,
            "parameters": {"stp": False, "forward-delay": 0},
        }
        runs.append(committed(world, "hv1", bridges={"br0": bridge}))
        pictures.append(settled(world, "hv1"))
    world.fleet("revert", "--yes", runs[1])
    assert changes(pictures[1], settled(world, "hv1")) == []
    world.fleet("revert", "--yes", runs[0])
    assert changes(pictures[0], settled(world, "hv1")) == []

    first = committed(world, "hv1", bridges={"br0": {"interfaces": ["eno2"], "mtu": 1400}})
    committed(world, "hv1", bridges={"br0": {"interfaces": ["eno2"], "mtu": 1380}})
    back = world.fleet("revert", "--yes", first)
    assert "going back by what the record says" in back.err
    assert "br0" not in world.links("hv1")


def test_what_others_did_since_is_kept(world: World) -> None:
    """Addresses, routes, rules and aliases that somebody added after the commit survive it."""
    world.run("hv1", "ip", "link", "set", "eno2", "up")
    run = committed(world, "hv1", ethernets={"eno2": {"mtu": 1400, "addresses": ["10.7.0.1/24"]}})
    for line in (
        "addr add 10.8.0.1/24 dev eno2",
        "route add 10.80.0.0/16 via 10.8.0.2",
        "rule add from 10.8.0.0/24 table 80 priority 4000",
        "link set eno2 alias uplink",
    ):
        world.run("hv1", "ip", *line.split())
    world.fleet("revert", "--yes", run)
    links = world.links("hv1")
    assert (links["eno2"]["mtu"], links["eno2"]["ifalias"]) == (1500, "uplink")
    assert world.held("hv1", "eno2") == ["10.8.0.1/24"]
    assert ("10.80.0.0/16", "10.8.0.2", "eno2") in world.routes("hv1")
    assert "4000:\tfrom 10.8.0.0/24 lookup 80" in world.run("hv1", "ip", "rule", "show")


#: What somebody does by hand after the commit, what undoes it, and what a refusal names.
DEEDS = [
    ("link set br0 mtu 1300", "link set br0 mtu 1400", "br0 mtu"),
    ("addr add 10.8.0.1/24 dev br0", "addr del 10.8.0.1/24 dev br0", "10.8.0.1/24"),
    ("link add vnet9 master br0 type veth peer name vnet9p", "link del vnet9", "vnet9 has joined"),
    ("addr del 10.7.0.1/24 dev br0", "addr add 10.7.0.1/24 brd + dev br0", "10.7.0.1/24"),
    ("route add 10.80.0.0/16 dev eno2", "route del 10.80.0.0/16", "10.80.0.0/16"),
]


def test_what_others_did_and_cannot_be_kept_is_refused(world: World) -> None:
    """A change by hand to what goes back refuses the way back, by its name; nothing changes."""
    bridge = {
        "interfaces": ["eno2"],
        "mtu": 1400,
        "addresses": ["10.7.0.1/24"],
        "parameters": {"stp": False, "forward-delay": 0},
    }
    untouched = world.picture("hv1")
    run = committed(world, "hv1", bridges={"br0": bridge})
    for deed, undone, named in DEEDS:
        world.run("hv1", "ip", *deed.split())
        before = world.picture("hv1")
        assert named in world.fleet("revert", "--yes", run, expect=1).out
        assert world.picture("hv1") == before
        world.run("hv1", "ip", *undone.split())
    path = "/etc/sysctl.d/90-fleet.conf"
    world.run("hv1", "sh", "-c", f"cp {path} /tmp/kept; echo net.ipv4.tcp_ecn = 0 >> {path}")
    assert path in world.fleet("revert", "--yes", run, expect=1).out
    assert "tcp_ecn" in world.run("hv1", "cat", path)
    world.run("hv1", "cp", "/tmp/kept", path)
    world.fleet("revert", "--yes", run)
    assert world.picture("hv1") == untouched


#: A host's guests in namespaces, and what is neither a device nor on one.
GUESTS: dict[str, Any] = {
    "virtual-ethernets": {"vnet1": {"peer": "eth0", "peer-namespace": "g1"}},
    "bridges": {"br-vm": {"interfaces": ["vnet1"], "addresses": ["10.7.0.1/24"]}},
    "namespaces": {
        "g1": {
            "virtual-ethernets": {
                "eth0": {
                    "peer": "vnet1",
                    "peer-namespace": "host",
                    "macaddress": "02:00:00:00:07:11",
                    "addresses": ["10.7.0.11/24"],
                }
            }
        }
    },
    "policies": {"guests": {"isolate": True}},
    "nftables": {"inet/ours": "chain input {\n type filter hook input priority 5;\n}\n"},
    "shaping": {"vnet1": {"egress": {"rate": "20mbit"}, "ingress": {"rate": "8mbit"}}},
    "neighbours": {"br-vm": [{"address": "10.7.0.9", "macaddress": "02:00:00:00:07:09"}]},
    "fdb": {"vnet1": [{"macaddress": "02:00:00:00:07:0a"}]},
}


def rules(world: World) -> str:
    """Return the two tables, whichever was made first."""
    tables = (("bridge", "fleet-guests"), ("inet", "ours"))
    return "".join(world.run("hv1", "nft", "-s", "list", "table", *table) for table in tables)


def test_rules_shaping_and_entries_go_back(world: World) -> None:
    """Tables, limits and entries of a run go with it; what somebody had done to a table before a
    run comes back with the way back of that run, and is named where it is in the way."""
    untouched = settled(world, "hv1")
    runs = [committed(world, "hv1", **GUESTS)]
    tables = rules(world)
    world.run("hv1", *["nft", "add", "rule", "bridge", "fleet-guests", "forward", "counter"])
    world.run("hv1", *["nft", "add", "rule", "inet", "ours", "input", "tcp", "dport", "7", "drop"])
    drifted = rules(world)
    assert "found    chain forward: counter" in world.fleet("audit", expect=3).out
    runs.append(committed(world, "hv1", **GUESTS))
    assert rules(world) == tables

    world.fleet("revert", "--yes", runs[1])
    assert rules(world) == drifted
    refused = world.fleet("revert", "--yes", runs[0], expect=1).out
    assert "+ chain input: tcp dport 7 drop" in refused
    world.fleet("revert", "--yes", runs[0], "--allow", "foreign")
    assert world.run("hv1", "nft", "list", "ruleset") == ""
    assert changes(untouched, settled(world, "hv1")) == []
