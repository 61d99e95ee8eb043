"""Macvtaps in a real kernel, judged by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


NICS = {
    "veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"},
    "veth/f0": {"peer": "f1"}, "veth/f1": {"peer": "f0"},
}  # fmt: skip


def mode_of(host: Space) -> str:
    return str(host.link("mv0")["linkinfo"]["info_data"]["mode"])


def test_create_change_delete(host: Space) -> None:
    """It is made in every mode, changes its mode in place, moves to another NIC, and goes."""
    wanted = {"link": "e0", "mode": "bridge", "mtu": 1400, "macaddress": "52:54:00:00:00:01",
              "addresses": [{"address": "198.18.9.1/24"}]}  # fmt: skip
    host.roll({**NICS, "macvtap/mv0": wanted})
    link = host.link("mv0")
    assert link["linkinfo"]["info_kind"] == "macvtap"
    assert (link["link"], mode_of(host)) == ("e0", "bridge")
    assert (link["mtu"], link["address"]) == (1400, "52:54:00:00:00:01")
    assert host.addresses("mv0") == ["198.18.9.1/24"]
    index = host.link("mv0")["ifindex"]
    assert str(index) in host.run("cat", "/sys/class/net/mv0/ifindex")
    assert "tap" in host.run("ls", "/sys/class/net/mv0/macvtap")
    for mode in ("private", "vepa", "bridge"):
        host.roll({**NICS, "macvtap/mv0": {**wanted, "mode": mode}})
        assert mode_of(host) == mode
        assert host.link("mv0")["ifindex"] == link["ifindex"]
    changed = {**wanted, "link": "f0", "mode": "passthru", "macaddress": None}
    plan = host.roll({**NICS, "macvtap/mv0": changed})
    assert plan.changes[0].reason.startswith("made again")
    assert (host.link("mv0")["link"], mode_of(host)) == ("f0", "passthru")
    assert host.addresses("mv0") == ["198.18.9.1/24"]
    host.roll(NICS)
    assert not host.has("mv0")


def test_adopt_release_and_revert(host: Space) -> None:
    """One that was there stays when intent lets go; a revert is exact."""
    host.roll(NICS)
    host.ip("link add link e0 name mv0 type macvtap mode private")
    host.roll({**NICS, "macvtap/mv0": {"link": "e0", "mode": "vepa"}})
    assert host.roll(NICS).changes == ()
    assert mode_of(host) == "vepa"
    host.goes_back({**NICS, "macvtap/mv0": {"link": "f0"}, "macvtap/mv1": {"link": "e0"}})
    plan = host.plan({**NICS, "macvtap/mv1": {"link": "nowhere"}})
    assert "nowhere" in plan.problems[0].expected
