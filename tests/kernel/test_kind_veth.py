"""Pairs in a real kernel, judged by ip(8) and ping."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


PAIR = {"veth/va": {"peer": "vb"}, "veth/vb": {"peer": "va"}}


def test_create_change_delete(host: Space) -> None:
    """A pair is made once with what each end names, changes, and goes with its intent."""
    host.roll({
        "veth/va": {"peer": "vb", "macaddress": "02:aa:00:00:00:01", "mtu": 1400},
        "veth/vb": {"peer": "va", "macaddress": "02:aa:00:00:00:02", "mtu": 1400},
        "bridge/br0": {"interfaces": ["vb"]},
    })  # fmt: skip
    for end, peer, mac in (("va", "vb", "02:aa:00:00:00:01"), ("vb", "va", "02:aa:00:00:00:02")):
        link = host.link(end)
        assert (link["linkinfo"]["info_kind"], link["link"], link["mtu"]) == ("veth", peer, 1400)
        assert link["address"] == mac
        assert "UP" in link["flags"]
    host.roll({
        "veth/va": {"peer": "vb", "macaddress": "02:aa:00:00:00:03", "mtu": 1500},
        "veth/vb": {"peer": "va", "activation_mode": "off"},
        "bridge/br0": {"interfaces": ["vb"]},
    })  # fmt: skip
    assert host.link("va")["address"] == "02:aa:00:00:00:03"
    assert host.link("va")["mtu"] == 1500
    assert "UP" not in host.link("vb")["flags"]
    plan = host.roll({"bridge/br0": {"interfaces": []}})
    assert not host.has("va")
    assert not host.has("vb")
    assert {c.key for c in plan.changes if c.action == "delete"} == {"veth/va", "veth/vb"}


def test_adopt_and_release(host: Space) -> None:
    """A pair that was there is adopted and, when intent lets go, stays."""
    host.ip("link add va type veth peer name vb")
    host.roll(PAIR)
    assert host.ledger["veth/va"].created is False
    assert host.roll({}).changes == ()
    assert host.has("va")


def test_half_a_pair_cannot_go(host: Space) -> None:
    """Intent that keeps one end of a pair and drops the other is a problem, not a surprise."""
    host.roll(PAIR)
    plan = host.plan({"veth/vb": {"peer": "va", "mtu": 1400}})
    assert "veth/va" in plan.problems[0].actual
    host.ip("link add vx type veth peer name vy")
    other = host.plan({**PAIR, "veth/vx": {"peer": "vz"}, "veth/vz": {"peer": "vx"}})
    assert "vy" in other.problems[0].actual
