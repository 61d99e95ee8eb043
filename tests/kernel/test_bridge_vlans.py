"""VLAN-aware bridges in a real kernel, judged by ip(8), bridge(8) and ping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from capabilities import has, needs
from namespaces import Space, sh, space

from fleet.host.kernel.observation import Observation
from fleet.host.planning.lean import space as lean

NICS = {
    "veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"},
    "veth/f0": {"peer": "f1"}, "veth/f1": {"peer": "f0"},
}  # fmt: skip
ON = {"vlan_filtering": True}
aware = needs("vlan_filtering")


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def vlans(host: Space, device: str) -> list[str]:
    """What bridge(8) shows of a port: ``10 pvid untagged``, a VLAN each, sorted by number."""
    shown = json.loads(sh("bridge", "-n", host.name, "-j", "vlan", "show", "dev", device) or "[]")
    found = []
    for each in shown[0]["vlans"] if shown else ():
        words = [flag.split()[-1].lower() for flag in each.get("flags", ())]
        numbers = range(each["vlan"], each.get("vlanEnd", each["vlan"]) + 1)
        found += [(n, " ".join([str(n), *sorted(words)])) for n in numbers]
    return [text for _, text in sorted(found)]


def bridge(ports: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An intent with a bridge of both NICs that looks at VLANs."""
    parameters = {**ON, **more.pop("parameters", {})}
    wanted = {"interfaces": ["e0", "f0"], "parameters": parameters, "ports": ports or {}, **more}
    return {**NICS, "bridge/br0": wanted}


@aware
def test_create_change_delete(host: Space) -> None:
    """Lists are made whole, changed in place, given up, and gone with the bridge."""
    plan = host.roll(
        bridge(
            {"e0": {"pvid": 10}, "f0": {"vlans": ["10", "100-199"]}},
            vlans=["10", "150"],
            parameters={"vlan_default_pvid": 0},
        )
    )
    assert vlans(host, "e0") == ["10 pvid untagged"]
    assert vlans(host, "f0") == [str(n) for n in (10, *range(100, 200))]
    assert vlans(host, "br0") == ["10", "150"]
    assert [c.after for c in plan.changes if c.what == "ports.f0.vlans"] == [["10", "100-199"]]
    data = host.link("br0")["linkinfo"]["info_data"]
    assert (data["vlan_filtering"], data["vlan_default_pvid"]) == (1, 0)
    index = host.link("br0")["ifindex"]
    plan = host.roll(
        bridge(
            {"e0": {"vlans": ["30-31"], "pvid": 20, "untagged": ["30"]}, "f0": {"vlans": []}},
            vlans=["10"], pvid=150,
            parameters={"vlan_default_pvid": 7},
        )
    )  # fmt: skip
    assert vlans(host, "e0") == ["20 pvid", "30 untagged", "31"]
    assert vlans(host, "f0") == []
    assert vlans(host, "br0") == ["10", "150 pvid untagged"]
    assert host.link("br0")["ifindex"] == index
    host.roll(bridge(parameters={"vlan_default_pvid": 7}))
    assert vlans(host, "e0") == vlans(host, "f0") == vlans(host, "br0") == ["7 pvid untagged"]
    host.roll(NICS)
    assert not host.has("br0")


@aware
def test_by_hand_and_back(host: Space) -> None:
    """VLANs added by hand are drift on a named list and nobody's business on another; a bridge
    that fleet did not make gets its lists back when intent lets go; a way back is exact."""
    host.roll(NICS)
    host.ip("link add br0 address 02:aa:00:00:00:01 type bridge vlan_filtering 1")
    for port in ("e0", "f0"):
        host.ip(f"link set {port} master br0")
    host.ip("link set br0 up")
    sh("bridge", "-n", host.name, "vlan", "add", "vid", "40-45", "dev", "e0", "untagged")
    before = vlans(host, "e0"), vlans(host, "f0")
    wanted = bridge({"e0": {"pvid": 10, "vlans": ["42"]}})
    host.goes_back(wanted)
    host.goes_back(bridge({"f0": {"vlans": ["2-4094"]}}, vlans=["3"], pvid=4))
    host.goes_back(bridge(parameters={"vlan_filtering": False}))
    host.goes_back(bridge(parameters={"vlan_protocol": "802.1ad"}))
    host.roll(wanted)
    assert vlans(host, "e0") == ["10 pvid untagged", "42"]
    sh("bridge", "-n", host.name, "vlan", "add", "vid", "77", "dev", "e0")
    sh("bridge", "-n", host.name, "vlan", "add", "vid", "77", "dev", "f0")
    drift = host.plan(wanted)
    assert [change.what for change in drift.changes] == ["ports.e0.vlans"]
    host.roll(wanted)
    assert vlans(host, "e0") == ["10 pvid untagged", "42"]
    assert "77" in vlans(host, "f0")
    sh("bridge", "-n", host.name, "vlan", "del", "vid", "77", "dev", "f0")
    host.roll({**NICS, "bridge/br0": {}})
    assert (vlans(host, "e0"), vlans(host, "f0")) == before


@aware
def test_only_what_shares_a_vlan_reaches_another(host: Space) -> None:
    """Two access ports of one VLAN reach each other, and another's does not; a trunk carries the
    tags, and the bridge itself answers in the VLANs it is in."""
    with space() as one, space() as other:
        for guest, port in ((one, "e"), (other, "f")):
            host.ip(f"link add {port}0 type veth peer name {port}1 netns {guest.name}")
            guest.ip(f"link set {port}1 up")
            host.ip(f"link set {port}0 up")
        one.ip("addr add 198.18.9.1/24 dev e1")
        other.ip("addr add 198.18.9.2/24 dev f1")

        def roll(of_e: dict[str, Any], of_f: dict[str, Any], **more: Any) -> None:
            host.roll({"bridge/br0": bridge({"e0": of_e, "f0": of_f}, **more)["bridge/br0"]})

        roll({"pvid": 10}, {"pvid": 10})
        assert one.pings("198.18.9.2")
        roll({"pvid": 10}, {"pvid": 11})
        assert not one.pings("198.18.9.2")
        roll({"pvid": 10}, {"vlans": ["10"]}, addresses=[{"address": "198.18.9.3/24"}], pvid=10)
        assert not one.pings("198.18.9.2")
        assert one.pings("198.18.9.3")
        other.ip("link add link f1 name f1.10 type vlan id 10")
        other.ip("addr del 198.18.9.2/24 dev f1")
        other.ip("addr add 198.18.9.2/24 dev f1.10")
        other.ip("link set f1.10 up")
        assert one.pings("198.18.9.2")


@aware
def test_filtering_comes_last(host: Space) -> None:
    """Lists are in place before the bridge looks at them: what they carry is never cut."""
    host.roll({**NICS, "bridge/br0": {"interfaces": ["e0", "f0"]}})
    plan = host.plan(bridge({"e0": {"pvid": 10}}, parameters={"vlan_default_pvid": 5}))
    order = [change.what for change in plan.changes]
    assert order.index("parameters.vlan-default-pvid") < order.index("ports.e0.vlans")
    assert order.index("ports.e0.vlans") < order.index("parameters.vlan-filtering")


@aware
def test_as_intent(host: Space) -> None:
    """What somebody made by hand is written as intent, without what a new port has."""
    host.roll(bridge({"e0": {"vlans": ["20-22"], "pvid": 9}}, vlans=["20"]))
    form = lean(Observation(host.system), ())["resources"]["bridge"]["br0"]
    assert form["ports"] == {"e0": {"vlans": ["20-22"], "pvid": 9}}
    assert form["vlans"] == ["20"]
    assert "pvid" not in form
    assert form["parameters"] == {"vlan-filtering": True}


@aware
def test_a_list_that_nobody_looks_at(host: Space) -> None:
    """Lists on a bridge without filtering are refused, and so is a VLAN above a bridge that is
    not in it, before anything changes."""
    host.roll(NICS)
    wanted = {"interfaces": ["e0"], "ports": {"e0": {"pvid": 10}}}
    problems = host.plan({**NICS, "bridge/br0": wanted}).problems
    assert "vlan-filtering" in problems[0].remedy
    above = {"vlan/br0.100": {"link": "br0", "id": 100}}
    problems = host.plan({**bridge(vlans=["10"]), **above}).problems
    assert any("100" in each.expected and each.resource == "bridge/br0" for each in problems)


def test_a_kernel_without_vlan_filtering(host: Space) -> None:
    """It is named in the plan, whether there is a bridge already or not."""
    if has("vlan_filtering"):
        pytest.skip("the kernel has it")
    host.roll(NICS)
    for _ in range(2):
        plan = host.plan(bridge({"e0": {"pvid": 10}}))
        assert "VLAN filtering" in plan.problems[0].expected
        assert "CONFIG_BRIDGE_VLAN_FILTERING" in plan.problems[0].remedy
        host.roll({**NICS, "bridge/br0": {"interfaces": ["e0"]}})
