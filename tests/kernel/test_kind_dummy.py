"""Dummy devices in a real kernel, judged by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from capabilities import has, needs
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


@pytest.mark.skipif(has("dummy"), reason="the kernel has dummy devices")
def test_a_kernel_without_any_is_told(host: Space) -> None:
    """Where the kernel has no such devices the plan says so by name, and has no change."""
    plan = host.plan({"dummy/d0": {}})
    (problem,) = plan.problems
    assert "has no dummy" in problem.actual
    assert plan.changes == ()


@needs("dummy")
def test_made_changed_taken_away_and_back(host: Space) -> None:
    """Each attribute is there, changes in place, goes back, and goes with the intent."""
    every = {
        "mtu": 1400,
        "macaddress": "02:aa:00:00:00:01",
        "addresses": [{"address": "198.18.1.1/32"}],
        "routes": [{"to": "198.18.2.0/24"}],
    }
    host.goes_back({"dummy/d0": every})
    host.roll({"dummy/d0": every})
    link = host.link("d0")
    assert (link["mtu"], link["address"]) == (1400, "02:aa:00:00:00:01")
    assert link["linkinfo"]["info_kind"] == "dummy"
    assert host.addresses("d0") == ["198.18.1.1/32"]
    other = {"mtu": 9000, "addresses": [{"address": "198.18.1.2/32"}], "routes": []}
    host.goes_back({"dummy/d0": other})
    host.roll({"dummy/d0": other})
    assert host.link("d0")["ifindex"] == link["ifindex"]
    assert host.addresses("d0") == ["198.18.1.2/32"]
    host.goes_back({})
    host.roll({})
    assert not host.has("d0")


@needs("dummy")
def test_a_port_of_a_bridge(host: Space) -> None:
    """A dummy device is made and joins a bridge in one plan, and stays where fleet found it."""
    host.ip("link add old type dummy")
    host.roll({"dummy/d0": {}, "dummy/old": {}, "bridge/br0": {"interfaces": ["d0", "old"]}})
    assert host.link("d0")["master"] == host.link("old")["master"] == "br0"
    host.roll({})
    assert host.has("old")
    assert not host.has("d0")
