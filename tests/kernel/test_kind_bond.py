"""Bonds in a real kernel, judged by ip(8), and by traffic while a member fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from capabilities import has, needs
from namespaces import Space, connect, space, until

from fleet.host.kinds.bond import BondParameters


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


PAIRS = {
    "veth/e0": {"peer": "f0"}, "veth/f0": {"peer": "e0"},
    "veth/e1": {"peer": "f1"}, "veth/f1": {"peer": "e1"},
}  # fmt: skip


def data(host: Space, device: str = "bond0") -> dict[str, Any]:
    found: dict[str, Any] = host.link(device)["linkinfo"]["info_data"]
    return found


def bond(*members: str, **parameters: Any) -> dict[str, Any]:
    return {"interfaces": list(members), "parameters": {"mode": "active-backup", **parameters}}


@pytest.mark.skipif(has("bonding"), reason="the kernel has bonds")
def test_a_kernel_without_bonds_is_told(host: Space) -> None:
    """The plan says so by name, and has no change."""
    plan = host.plan({**PAIRS, "bond/bond0": bond("e0")})
    (problem,) = plan.problems
    assert "has no bonding" in problem.actual


@pytest.mark.timeout(600)
@needs("bonding")
def test_made_changed_taken_away_and_back(host: Space) -> None:
    """Members join and leave, each parameter changes in place, another mode makes it again; each
    goes back, and the members are NICs again in the end."""
    first = {**bond("e0", mii_monitor_interval=100), "addresses": [{"address": "198.18.1.1/24"}]}
    host.roll(PAIRS)
    host.goes_back({**PAIRS, "bond/bond0": first})
    host.roll({**PAIRS, "bond/bond0": first})
    assert (data(host)["mode"], data(host)["miimon"]) == ("active-backup", 100)
    assert host.link("e0")["master"] == "bond0"
    assert "UP" in host.link("e0")["flags"]
    index = host.link("bond0")["ifindex"]
    words: dict[str, Any] = {"mii_monitor_interval": 100}
    for word, value, shown in (
        ("up_delay", 200, ("updelay", 200)),
        ("down_delay", 300, ("downdelay", 300)),
        ("min_links", 1, ("min_links", 1)),
        ("transmit_hash_policy", "layer3+4", ("xmit_hash_policy", "layer3+4")),
        ("all_members_active", True, ("all_slaves_active", 1)),
        ("gratuitous_arp", 3, ("num_peer_notif", 3)),
        ("primary_reselect_policy", "failure", ("primary_reselect", "failure")),
        ("resend_igmp", 4, ("resend_igmp", 4)),
        # The member that is active anyhow: which one is after a way back is the kernel's choice.
        ("primary", "e0", ("primary", "e0")),
    ):
        words[word] = value
        wanted = {**bond("e0", "e1", **words), "addresses": first["addresses"]}
        host.goes_back({**PAIRS, "bond/bond0": wanted})
        host.roll({**PAIRS, "bond/bond0": wanted})
        assert data(host)[shown[0]] == shown[1]
    assert host.link("bond0")["ifindex"] == index
    host.goes_back(PAIRS)
    other = {
        "interfaces": ["e1"],
        "parameters": {"mode": "802.3ad", "lacp_rate": "fast", "mii_monitor_interval": 50},
        "addresses": first["addresses"],
    }
    host.goes_back({**PAIRS, "bond/bond0": other})
    host.roll({**PAIRS, "bond/bond0": other})
    assert (data(host)["mode"], data(host)["ad_lacp_rate"]) == ("802.3ad", "fast")
    assert "master" not in host.link("e0")
    assert "UP" in host.link("e0")["flags"]
    assert host.addresses("bond0") == ["198.18.1.1/24"]
    host.roll(PAIRS)
    assert not host.has("bond0")
    assert "master" not in host.link("e1")


@needs("bonding")
def test_another_interval_under_delays(host: Space) -> None:
    """Delays are counted in intervals: with another interval they are what intent says all the
    same, and what they were after a way back."""
    host.roll(PAIRS)
    first = {"mii_monitor_interval": 100, "up_delay": 200, "down_delay": 400}
    host.roll({**PAIRS, "bond/bond0": bond("e0", **first)})
    for other in (
        {**first, "mii_monitor_interval": 50},
        {"mii_monitor_interval": 200, "up_delay": 600, "down_delay": 400},
    ):
        until(lambda: host.link("bond0")["operstate"] == "UP", 15)  # its member waits up-delay
        host.goes_back({**PAIRS, "bond/bond0": bond("e0", **other)})
        host.roll({**PAIRS, "bond/bond0": bond("e0", **other)})
        assert data(host)["miimon"] == other["mii_monitor_interval"]
        assert data(host)["updelay"] == other["up_delay"]
        assert data(host)["downdelay"] == other["down_delay"]


@needs("bonding")
def test_arp_watches(host: Space) -> None:
    """A bond that is watched by ARP has its targets in any order, and takes answers as told."""
    wanted = bond(
        "e0", arp_interval=200, arp_ip_targets=["198.18.1.9", "198.18.1.8"], arp_validate="all",
        arp_all_targets="all",
    )  # fmt: skip
    host.roll({**PAIRS, "bond/bond0": wanted})
    assert data(host)["arp_interval"] == 200
    assert sorted(data(host)["arp_ip_target"]) == ["198.18.1.8", "198.18.1.9"]
    assert data(host)["arp_validate"] == "all"


@needs("bonding")
def test_traffic_goes_on_when_a_member_fails(host: Space) -> None:
    """With one of two cables pulled the other side is still reached; a VLAN and a bridge stand on
    a bond."""
    with space() as other:
        for number in (0, 1):
            connect(host, f"n{number}", other, f"n{number}")
        for number, here in ((1, host), (2, other)):
            here.roll(
                {
                    "ethernet/n0": {}, "ethernet/n1": {},
                    "bond/bond0": bond("n0", "n1", mii_monitor_interval=20),
                    "vlan/v7": {"id": 7, "link": "bond0"},
                    "bridge/br0": {
                        "interfaces": ["v7"],
                        "parameters": {"stp": False, "forward_delay": 0},
                        "addresses": [{"address": f"198.18.9.{number}/24"}],
                    },
                }
            )  # fmt: skip
        assert host.pings("198.18.9.2", 3)
        other.ip("link set n0 down")
        until(lambda: host.pings("198.18.9.2"), 15)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"mii_monitor_interval": 10, "arp_interval": 10}, "not both"),
        ({"mode": "802.3ad", "arp_interval": 10}, "arp-interval"),
        ({"lacp_rate": "fast"}, "802.3ad"),
        ({"primary": "e0"}, "no primary"),
        ({"up_delay": 10}, "mii-monitor-interval"),
        ({"up_delay": 250, "mii_monitor_interval": 100}, "no multiple"),
        ({"mode": "802.3ad", "arp_validate": "all"}, "ARP"),
        ({"mode": "802.3ad", "packets_per_member": 2}, "balance-rr"),
        ({"arp_ip_targets": tuple(["198.18.1.1"] * 17)}, "at most 16"),
    ],
)
def test_what_no_kernel_takes_is_refused(parameters: dict[str, Any], said: str) -> None:
    """Parameters that exclude each other are refused before any host is contacted."""
    with pytest.raises(ValueError, match=said):
        BondParameters(**parameters).__check__()
