"""Namespaces and what is inside them, judged by ip(8), nft(8), sysctl(8) and ping."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, sh, space, until

from fleet.host.planning.plan import allowed


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


@pytest.fixture
def names(host: Space) -> Iterator[tuple[str, str]]:
    found = (f"{host.name}a", f"{host.name}b")
    yield found
    host.system.close()
    for name in found:
        sh("ip", "netns", "del", name, check=False)


def guests(one: str, other: str) -> dict[str, Any]:
    """Two namespaces on bridges of their own, as the guide's secure-vm and dmz-vm."""
    found: dict[str, Any] = {}
    for number, name in enumerate((one, other), 1):
        found |= {
            f"namespace/{name}": {},
            f"veth/v{number}": {"peer": "eth0", "peer_namespace": name},
            f"bridge/br{number}": {
                "interfaces": [f"v{number}"],
                "macaddress": f"02:00:00:00:01:0{number}",
                "addresses": [{"address": f"198.18.{number}.1/24"}],
            },
            f"{name}:veth/eth0": {
                "peer": f"v{number}",
                "peer_namespace": "host",
                "macaddress": f"02:00:00:00:00:0{number}",
                "addresses": [{"address": f"198.18.{number}.2/24"}],
                "routes": [{"to": "default", "via": f"198.18.{number}.1"}],
            },
            f"{name}:sysctl/net.ipv4.conf.all.rp_filter": {"value": "1"},
            f"{name}:sysctl/net.ipv4.conf.eth0.arp_ignore": {"value": "2"},
            f"{name}:nftables/inet/own": {"rules": "chain c { ct state invalid counter; }"},
        }
    return found


def inside(name: str) -> Space:
    return Space(name)


def test_what_is_in_them(host: Space, names: tuple[str, str]) -> None:
    """Namespaces are made with all that is in them, and go with it; nothing is half made."""
    plan = host.roll(guests(*names))
    assert [c.key for c in plan.changes[:2]] == [f"namespace/{name}" for name in names]
    for number, name in enumerate(names, 1):
        own = inside(name)
        assert own.addresses("eth0") == [f"198.18.{number}.2/24"]
        assert own.routes() == [f"default via 198.18.{number}.1 dev eth0"]
        assert own.link("eth0")["address"] == f"02:00:00:00:00:0{number}"
        assert "UP" in own.link("lo")["flags"]
        assert own.sysctl("net.ipv4.conf.all.rp_filter") == "1"
        assert own.sysctl("net.ipv4.conf.eth0.arp_ignore") == "2"
        assert "table inet own" in own.run("nft", "list", "ruleset")
        assert own.pings(f"198.18.{number}.1")
        assert host.link(f"v{number}")["master"] == f"br{number}"
    changed = guests(*names)
    changed[f"{names[0]}:veth/eth0"]["mtu"] = 1400
    changed[f"{names[0]}:veth/eth0"]["addresses"] = [{"address": "198.18.1.3/24"}]
    changed[f"{names[0]}:sysctl/net.ipv4.conf.eth0.arp_ignore"]["value"] = "1"
    changed[f"{names[0]}:nftables/inet/own"]["rules"] = "chain d { tcp dport 22 accept; }"
    host.roll(changed)
    own = inside(names[0])
    assert own.link("eth0")["mtu"] == 1400
    assert own.addresses("eth0") == ["198.18.1.3/24"]
    assert own.routes() == ["default via 198.18.1.1 dev eth0"]
    assert "tcp dport 22" in own.run("nft", "list", "ruleset")
    plan = host.roll({})
    assert [c.key for c in plan.changes if c.namespace] == []
    assert [c.key for c in plan.changes][-2:] == [f"namespace/{name}" for name in names]
    assert not any(os.path.exists(f"/run/netns/{name}") for name in names)
    assert not host.has("v1")


def test_isolated_from_each_other(host: Space, names: tuple[str, str]) -> None:
    """Two guests on bridges of their own do not reach each other, though the host forwards."""
    state = guests(*names) | {"sysctl/net.ipv4.ip_forward": {"value": "1"}}
    host.roll(state)
    assert inside(names[0]).pings("198.18.2.2")
    state["nftables/inet/isolation"] = {
        "rules": "chain forward { type filter hook forward priority 0; policy accept; "
        'iifname "br1" oifname "br2" drop; iifname "br2" oifname "br1" drop; }'
    }
    host.roll(state)
    assert not inside(names[0]).pings("198.18.2.2", 0.3)
    assert not inside(names[1]).pings("198.18.1.2", 0.3)
    assert inside(names[0]).pings("198.18.1.1")


def test_a_pair_between_two(host: Space, names: tuple[str, str]) -> None:
    """A pair whose ends are both in namespaces is made once, and each end is found again."""
    one, other = names
    host.roll({
        f"namespace/{one}": {}, f"namespace/{other}": {},
        f"{one}:veth/va": {
            "peer": "vb", "peer_namespace": other, "addresses": [{"address": "198.18.7.1/24"}],
        },
        f"{other}:veth/vb": {
            "peer": "va", "peer_namespace": one, "addresses": [{"address": "198.18.7.2/24"}],
        },
    })  # fmt: skip
    assert inside(one).pings("198.18.7.2")
    # What is taken out of a namespace that stays goes by itself.
    host.roll({f"namespace/{one}": {}, f"namespace/{other}": {}})
    assert not inside(one).has("va")
    assert not inside(other).has("vb")


def test_reverts(host: Space, names: tuple[str, str]) -> None:
    """Made ones go with a revert; a deleted one comes back with all that was in it."""
    host.goes_back(guests(*names), *names)
    host.roll(guests(*names))
    until(lambda: all(host.link(name)["operstate"] == "UP" for name in ("br1", "br2")))

    def addressed(name: str) -> bool:
        return "fe80" in sh("ip", "-n", host.name, "-6", "addr", "show", "dev", name)

    until(lambda: addressed("br1") and addressed("br2"))
    until(lambda: not any("tentative" in sh("ip", "-n", n, "-6", "addr") for n in names))
    inside(names[0]).run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    inside(names[0]).ip("link add m0 type veth peer name m1")
    inside(names[0]).run("nft", "add table ip other")
    host.goes_back({}, *names)
    assert inside(names[0]).pings("198.18.1.1")
    assert inside(names[0]).sysctl("net.ipv4.ip_forward") == "1"


def test_a_process_in_it(host: Space, names: tuple[str, str]) -> None:
    """One with a process in it is deleted only where that is allowed by name."""
    host.roll({f"namespace/{names[0]}": {}})
    process = subprocess.Popen(["ip", "netns", "exec", names[0], "sleep", "60"])
    try:
        until(lambda: "sleep" in sh("ip", "netns", "exec", names[0], "ps", "-o", "comm=", "-p",
                                    str(process.pid)))  # fmt: skip
        until(lambda: bool(sh("ip", "netns", "pids", names[0])))
        plan = host.plan({})
        assert [c.impact for c in plan.changes] == ["drain"]
        assert f"({process.pid})" in plan.changes[0].reason
        assert allowed(plan, ())
        assert not allowed(plan, (f"namespace/{names[0]}",))
    finally:
        process.kill()
        process.wait()
    host.roll({})


def test_adopt_release_and_refuse(host: Space, names: tuple[str, str]) -> None:
    """One that was there stays when intent lets go; what is in an unnamed one is a problem."""
    sh("ip", "netns", "add", names[0])
    plan = host.roll({f"namespace/{names[0]}": {}})
    assert [(c.what, c.after) for c in plan.changes] == [("loopback", "up")]
    host.roll({})
    assert os.path.exists(f"/run/netns/{names[0]}")
    plan = host.plan({f"{names[1]}:bridge/br0": {}})
    assert "no such namespace" in plan.problems[0].actual
