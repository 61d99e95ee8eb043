"""Addresses, routes, MAC, state and the management move in a real kernel, judged by ip(8)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, apply, connect, space, words

from fleet.host.change import HostError


@pytest.fixture
def host() -> Iterator[Space]:
    """A host with two NICs whose other ends are in a second namespace, as on a switch."""
    with space() as made, space() as switch:
        connect(made, "eth0", switch, "p0")
        connect(made, "eth1", switch, "p1")
        made.switch = switch  # type: ignore[attr-defined]
        yield made


def addresses(*texts: str) -> list[dict[str, str]]:
    return [{"address": text} for text in texts]


def test_addresses_are_exclusive_and_ordered(host: Space) -> None:
    """Named addresses are made, in order; others go, but a lease's and the kernel's stay."""
    host.ip("addr add 198.18.5.9/24 dev eth0")
    host.ip("addr add 198.18.6.9/24 dev eth0 valid_lft 900 preferred_lft 900")
    host.ip("-6 addr add 2001:2::9/64 dev eth0")
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.1/24", "2001:2::1/64")}})
    assert host.addresses("eth0") == ["198.18.6.9/24", "198.18.5.1/24", "2001:2::1/64"]
    assert any(item["scope"] == "link" for item in host.json("addr show dev eth0")[0]["addr_info"])
    # The order of a subnet decides the source address.
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.2/24", "198.18.5.1/24")}})
    assert host.addresses("eth0")[1:] == ["198.18.5.2/24", "198.18.5.1/24"]
    assert "src 198.18.5.2" in host.ip("route get 198.18.5.200")
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.1/24", "198.18.5.2/24")}})
    assert "src 198.18.5.1" in host.ip("route get 198.18.5.200")
    # The first of a subnet goes and the others stay, whatever promote_secondaries says.
    host.run("sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0")
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.2/24", "198.18.5.3/24")}})
    assert host.addresses("eth0")[1:] == ["198.18.5.2/24", "198.18.5.3/24"]
    assert host.sysctl("net.ipv4.conf.eth0.promote_secondaries") == "0"
    # The list is no longer named: what fleet put there goes.
    host.roll({"ethernet/eth0": {}})
    assert host.addresses("eth0") == ["198.18.6.9/24"]


def test_labels_and_lifetimes(host: Space) -> None:
    """A label and a lifetime are set, changed and taken back."""

    def first(family: str = "inet") -> dict[str, Any]:
        items = host.json("addr show dev eth0")[0]["addr_info"]
        found: dict[str, Any] = next(i for i in items if i["family"] == family)
        return found

    both = [
        {"address": "198.18.5.1/24", "label": "eth0:web", "lifetime": "0"},
        {"address": "2001:2::1/64", "lifetime": "0"},
    ]
    host.roll({"ethernet/eth0": {"addresses": both}})
    assert first()["label"] == "eth0:web"
    assert first()["deprecated"] is first("inet6")["deprecated"] is True
    assert first()["broadcast"] == "198.18.5.255"
    host.ip("route add 198.18.99.0/24 via 198.18.5.254 src 198.18.5.1")
    both = [
        {"address": "198.18.5.1/24", "label": "eth0:db", "lifetime": "forever"},
        {"address": "2001:2::1/64", "lifetime": "forever"},
    ]
    host.roll({"ethernet/eth0": {"addresses": both}})
    assert first()["label"] == "eth0:db"
    assert "deprecated" not in first()
    assert "deprecated" not in first("inet6")
    assert host.routes() == ["198.18.99.0/24 via 198.18.5.254 dev eth0"]
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.1/24", "2001:2::1/64")}})
    assert first()["label"] == "eth0"


def test_a_lease_becomes_permanent(host: Space) -> None:
    """An address that intent names and a lease gave stays when the lease would end."""
    host.ip("addr add 198.18.5.1/24 dev eth0 valid_lft 900 preferred_lft 900")
    host.roll({"ethernet/eth0": {"addresses": addresses("198.18.5.1/24")}})
    item = host.json("addr show dev eth0")[0]["addr_info"][0]
    assert item["valid_life_time"] == 4294967295


ROUTE = {
    "to": "198.18.50.0/24", "via": "198.18.5.254", "metric": 50, "table": 100,
    "from_": "198.18.5.1", "mtu": 1300,
    "congestion_window": 20, "advertised_receive_window": 30, "advertised_mss": 1200,
}  # fmt: skip


def test_routes(host: Space) -> None:
    """Routes with every field, of every type and both families, are made, changed, removed."""
    base = {"addresses": addresses("198.18.5.1/24", "198.18.5.2/24", "2001:2::1/64")}
    plain = [
        {"to": "default", "via": "198.18.5.254"},
        {"to": "198.18.60.0/24", "scope": "link"},
        {"to": "198.18.61.0/24", "via": "198.18.200.1", "on_link": True},
        {"to": "198.18.62.1/32", "type": "blackhole"},
        {"to": "198.18.62.2/32", "type": "unreachable", "metric": 7},
        {"to": "198.18.62.3/32", "type": "prohibit", "table": 101},
        {"to": "198.18.62.4/32", "type": "throw", "table": 101},
        {"to": "198.18.62.5/32", "type": "local", "table": 101},
        {"to": "default", "via": "2001:2::fe"},
        {"to": "2001:2:5::/64", "via": "2001:2::fe", "metric": 5, "table": 100},
        {"to": "2001:2:6::/64", "type": "blackhole"},
    ]
    host.ip("route add 198.18.77.0/24 dev eth0")
    host.ip("route add 198.18.78.0/24 dev eth0 proto bird")
    host.ip("route add 198.18.79.0/24 dev eth1")
    host.ip("route add blackhole 198.18.80.0/24")
    host.roll({"ethernet/eth0": {**base, "routes": [ROUTE, *plain]}})
    assert host.routes() == [
        "198.18.60.0/24 dev eth0", "198.18.61.0/24 via 198.18.200.1 dev eth0",
        "198.18.62.1 dev None", "198.18.62.2 dev None", "198.18.78.0/24 dev eth0",
        "198.18.79.0/24 dev eth1", "198.18.80.0/24 dev None", "2001:2:6::/64 dev lo",
        "default via 198.18.5.254 dev eth0", "default via 2001:2::fe dev eth0",
    ]  # fmt: skip
    shown = host.json("route show table 100")[0]
    assert (shown["dst"], shown["gateway"], shown["metric"]) == (
        "198.18.50.0/24",
        "198.18.5.254",
        50,
    )
    assert shown["prefsrc"] == "198.18.5.1"
    assert shown["metrics"] == [{"mtu": 1300, "advmss": 1200, "initcwnd": 20, "initrwnd": 30}]
    types = {route["dst"]: route["type"] for route in host.json("route show table 101")}
    assert types == {"198.18.62.3": "prohibit", "198.18.62.4": "throw", "198.18.62.5": "local"}

    changed = {
        "via": "198.18.5.253", "from_": "198.18.5.2", "mtu": 1310, "congestion_window": 21,
        "advertised_receive_window": 31, "advertised_mss": 1201, "type": "blackhole",
    }  # fmt: skip
    for name, value in changed.items():
        if name == "type":
            kept = ("to", "metric", "table")
            route = {**{k: ROUTE[k] for k in kept}, "type": value}
        else:
            route = {**ROUTE, name: value}
        plan = host.roll({"ethernet/eth0": {**base, "routes": [route, *plain]}})
        assert len(plan.changes) == (1 if name == "via" else len(plan.changes)), plan.changes
    assert host.json("route show table 100")[0]["type"] == "blackhole"
    host.roll({"ethernet/eth0": {**base, "routes": [ROUTE, *plain]}})
    # A field no longer named goes back to the kernel's default.
    bare = {k: v for k, v in ROUTE.items() if k in ("to", "via", "metric", "table")}
    host.roll({"ethernet/eth0": {**base, "routes": [bare]}})
    shown = host.json("route show table 100")[0]
    assert "metrics" not in shown
    assert "prefsrc" not in shown
    assert host.routes("table", "101") == []
    host.roll({"ethernet/eth0": base})
    assert host.routes("table", "100") == []
    # What others made stays: a daemon's, another device's, somebody's blackhole.
    assert host.routes() == [
        "198.18.78.0/24 dev eth0", "198.18.79.0/24 dev eth1", "198.18.80.0/24 dev None",
    ]  # fmt: skip


def test_mac_mtu_and_state(host: Space) -> None:
    """MAC, MTU and state of a NIC change; manual leaves the state alone, release everything."""
    host.roll({"ethernet/eth0": {"macaddress": "02:aa:00:00:00:09", "mtu": 1400}})
    assert (host.link("eth0")["address"], host.link("eth0")["mtu"]) == ("02:aa:00:00:00:09", 1400)
    host.roll({"ethernet/eth0": {"activation_mode": "off"}})
    assert "UP" not in host.link("eth0")["flags"]
    host.roll({"ethernet/eth0": {"activation_mode": "manual"}})
    assert "UP" not in host.link("eth0")["flags"]
    host.roll({"ethernet/eth0": {}})
    assert "UP" in host.link("eth0")["flags"]
    assert host.roll({}).changes == ()
    assert (host.link("eth0")["address"], host.link("eth0")["mtu"]) == ("02:aa:00:00:00:09", 1400)


def test_a_nic_is_found_by_match(host: Space) -> None:
    """A NIC is found by pattern or MAC and renamed; a missing one is a problem that says why."""
    mac = host.link("eth1")["address"]
    spec = {
        "match": {"macaddress": mac},
        "set_name": "wan0",
        "addresses": addresses("198.18.5.1/24"),
    }
    host.roll({
        "ethernet/uplink": {**spec, "routes": [{"to": "default", "via": "198.18.5.254"}]},
        "bridge/br0": {"interfaces": ["lan"]},
        "ethernet/lan": {"match": {"name": "e*0"}},
    })  # fmt: skip
    assert host.addresses("wan0") == ["198.18.5.1/24"]
    assert host.routes() == ["default via 198.18.5.254 dev wan0"]
    assert host.link("eth0")["master"] == "br0"
    plan = host.plan({"ethernet/x": {"match": {"macaddress": "02:00:00:00:00:99"}}})
    assert len(plan.problems) == 1
    assert "02:00:00:00:00:99" in plan.problems[0].expected
    assert "eth0" in plan.problems[0].actual
    assert mac in plan.problems[0].actual


def test_addresses_move_to_a_bridge(host: Space) -> None:
    """Management moves from NIC to bridge with MAC and routes, and the host answers at once."""
    switch: Space = host.switch  # type: ignore[attr-defined]
    switch.ip("addr add 198.18.1.1/24 dev p0")
    switch.ip("-6 addr add 2001:2::1/64 dev p0")
    switch.ip("addr add 198.18.200.1/32 dev lo")
    host.ip("addr add 198.18.1.5/24 dev eth0")
    host.ip("-6 addr add 2001:2::5/64 dev eth0")
    host.ip("route add default via 198.18.1.1 dev eth0")
    host.ip("-6 route add default via 2001:2::1 dev eth0")
    host.ip("route add 198.18.9.0/24 via 198.18.1.1 dev eth0 table 100")
    mac = host.link("eth0")["address"]
    management = {"addresses": ["198.18.1.5", "2001:2::5"], "device": "eth0"}
    state = {
        "ethernet/eth0": {},
        "bridge/br0": {
            "interfaces": ["eth0", "eth1"],
            "addresses": addresses("198.18.1.5/24", "2001:2::5/64"),
        },
    }
    observed = host.plan(state, management=management)
    assert observed.digest == host.plan(state, management=management).digest
    plan = host.roll(state, management=management)
    # The steps in which the host is not reachable are next to one another.
    order = [(c.name, c.what) for c in plan.changes]
    start = max(i for i, step in enumerate(order) if step == ("br0", "interfaces"))
    assert plan.changes[start].after == "eth0"
    assert order[start + 1 :][:2] == [("eth0", "addresses"), ("eth0", "addresses")]
    assert host.link("br0")["address"] == mac
    assert host.addresses("br0") == ["198.18.1.5/24", "2001:2::5/64"]
    assert host.addresses("eth0") == []
    assert host.routes() == ["default via 198.18.1.1 dev br0", "default via 2001:2::1 dev br0"]
    assert host.routes("table", "100") == ["198.18.9.0/24 via 198.18.1.1 dev br0"]
    assert switch.pings("198.18.1.5")
    assert host.pings("198.18.200.1")
    assert switch.pings("2001:2::5")
    # And back again, by taking the bridge out of the intent.
    back = {"ethernet/eth0": {"addresses": addresses("198.18.1.5/24", "2001:2::5/64")}}
    host.roll(back, management=management)
    assert not host.has("br0")
    assert host.addresses("eth0") == ["198.18.1.5/24", "2001:2::5/64"]
    assert host.routes() == ["default via 198.18.1.1 dev eth0", "default via 2001:2::1 dev eth0"]
    assert host.pings("198.18.200.1")


def test_a_move_that_stopped_anywhere_goes_on() -> None:
    """After any number of a move's steps a new plan finishes it, and the host answers."""
    state = {
        "ethernet/eth0": {},
        "bridge/br0": {
            "interfaces": ["eth0"],
            "addresses": addresses("198.18.1.5/24", "2001:2::5/64"),
            "routes": [{"to": "default", "via": "198.18.1.1"}],
        },
    }
    management = {"addresses": ["198.18.1.5"], "device": "eth0"}
    done = 0
    while True:
        with space() as host, space() as switch:
            connect(host, "eth0", switch, "p0")
            switch.ip("addr add 198.18.1.1/24 dev p0")
            host.ip("addr add 198.18.1.5/24 dev eth0")
            host.ip("-6 addr add 2001:2::5/64 dev eth0")
            host.ip("route add default via 198.18.1.1 dev eth0")
            plan = host.plan(state, management=management)
            for change in plan.changes[:done]:
                apply(host.system, change)
            host.roll(state, management=management)
            assert host.addresses("br0") == ["198.18.1.5/24", "2001:2::5/64"], done
            assert host.addresses("eth0") == [], done
            assert host.routes() == ["default via 198.18.1.1 dev br0"], done
            assert switch.pings("198.18.1.5"), done
        done += 1
        if done > len(plan.changes):
            break


def test_the_move_is_short() -> None:
    """Seen from another network, with strict reverse paths, the move costs a few milliseconds."""
    with space() as host, space() as router, space() as far:
        connect(host, "eth0", router, "p0")
        connect(router, "p1", far, "e0")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        router.ip("addr add 198.18.1.1/24 dev p0")
        router.ip("addr add 198.18.2.1/24 dev p1")
        far.ip("addr add 198.18.2.2/24 dev e0")
        far.ip("route add default via 198.18.2.1")
        host.ip("addr add 198.18.1.5/24 dev eth0")
        host.ip("route add default via 198.18.1.1")
        host.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
        assert far.pings("198.18.1.5")
        assert host.system.route  # the import is no part of the interruption
        argv = ["ping", "-n", "-i", "0.005", "-c", "300", "-W", "1", "198.18.1.5"]
        ping = subprocess.Popen(
            ["ip", "netns", "exec", far.name, *argv], stdout=subprocess.PIPE, text=True
        )
        assert ping.stdout is not None
        for _ in range(20):
            ping.stdout.readline()
        host.roll(
            {
                "ethernet/eth0": {},
                "bridge/br0": {"interfaces": ["eth0"], "addresses": addresses("198.18.1.5/24")},
            },
            management={"addresses": ["198.18.1.5"], "device": "eth0"},
        )
        out, _ = ping.communicate(timeout=10)
        summary = next(line for line in out.splitlines() if "received" in line)
        # 100 packets are half a second, on a machine that is busy with other tests.
        assert int(summary.split()[3]) > 200, summary


def test_what_the_kernel_refuses_is_an_error(host: Space) -> None:
    """An MTU the device cannot carry is a problem of the plan; a refused change a HostError."""
    plan = host.plan({"ethernet/lo": {}, "ethernet/eth0": {"mtu": 65535}})
    assert plan.problems == ()
    gateway = [{"to": "default", "via": "198.18.44.1"}]
    plan = host.plan({"ethernet/eth0": {"routes": gateway}})
    with pytest.raises(HostError, match="unreachable"):
        apply(host.system, plan.changes[-1])
    assert words(plan.changes[-1]).startswith("update ethernet/eth0 routes")
    host.ip("link add br9 type bridge")
    taken = host.plan({"ethernet/br9": {}})
    assert "bridge" in taken.problems[0].actual
