"""Macvlans in a real kernel, judged by ip(8) and ping."""

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
    host.roll({**NICS, "macvlan/mv0": wanted})
    link = host.link("mv0")
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert (link["link"], mode_of(host)) == ("e0", "bridge")
    assert (link["mtu"], link["address"]) == (1400, "52:54:00:00:00:01")
    assert host.addresses("mv0") == ["198.18.9.1/24"]
    for mode in ("private", "vepa", "bridge", "source"):
        host.roll({**NICS, "macvlan/mv0": {**wanted, "mode": mode}})
        assert mode_of(host) == mode
        assert host.link("mv0")["ifindex"] == link["ifindex"]
    changed = {**wanted, "link": "f0", "mode": "passthru", "macaddress": None}
    plan = host.roll({**NICS, "macvlan/mv0": changed})
    assert plan.changes[0].reason.startswith("made again")
    assert (host.link("mv0")["link"], mode_of(host)) == ("f0", "passthru")
    assert host.addresses("mv0") == ["198.18.9.1/24"]
    host.roll(NICS)
    assert not host.has("mv0")


def test_adopt_release_and_revert(host: Space) -> None:
    """One that was there stays when intent lets go; a revert is exact."""
    host.roll(NICS)
    host.ip("link add link e0 name mv0 type macvlan mode private")
    host.roll({**NICS, "macvlan/mv0": {"link": "e0", "mode": "vepa"}})
    assert host.roll(NICS).changes == ()
    assert mode_of(host) == "vepa"
    host.goes_back({**NICS, "macvlan/mv0": {"link": "f0"}, "macvlan/mv1": {"link": "e0"}})
    plan = host.plan({**NICS, "macvlan/mv1": {"link": "nowhere"}})
    assert "nowhere" in plan.problems[0].expected


def test_traffic(host: Space) -> None:
    """Two macvlans in bridge mode reach each other and the NIC's far end."""
    with space() as one, space() as other:
        state = {
            "veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0", "addresses": [
                {"address": "198.18.9.9/24"}]},
        }  # fmt: skip
        host.roll(state)
        for guest, mode in ((one, "bridge"), (other, "bridge")):
            name = f"m{guest.name[-5:]}"
            host.roll({**state, f"macvlan/{name}": {"link": "e0", "mode": mode}})
            host.ledger.clear()
            host.ip(f"link set {name} netns {guest.name}")
            guest.ip(f"link set {name} up")
        one.ip(f"addr add 198.18.9.1/24 dev m{one.name[-5:]}")
        other.ip(f"addr add 198.18.9.2/24 dev m{other.name[-5:]}")
        assert one.pings("198.18.9.9")
        assert one.pings("198.18.9.2")


def test_a_passthru_device_has_the_mac_it_is_given(host: Space) -> None:
    """A new passthru device would have its lower device's; given one, both have that, and a way
    back gives the lower device its own."""
    pair = {"veth/e0": {"peer": "f0"}, "veth/f0": {"peer": "e0"}}
    host.roll(pair)
    wanted = {"link": "e0", "mode": "passthru", "macaddress": "02:aa:00:00:00:05"}
    host.goes_back({**pair, "macvlan/mv0": wanted})
    host.roll({**pair, "macvlan/mv0": wanted})
    assert host.link("mv0")["address"] == "02:aa:00:00:00:05"


def test_what_is_below_keeps_its_neighbours(host: Space) -> None:
    """A passthru device gives its lower device its MAC address, then another one, then its own
    back; the permanent neighbours there stay, and a way back from each is exact."""
    pair = {"veth/e0": {"peer": "f0"}, "veth/f0": {"peer": "e0"}}
    host.roll(pair)
    host.ip("addr add 198.18.9.1/24 dev e0")
    host.ip("neigh add 198.18.9.7 lladdr 02:aa:00:00:00:77 dev e0 nud permanent")
    before = host.link("e0")["address"]

    def with_mac(number: int) -> dict[str, object]:
        mac = f"02:aa:00:00:00:{number:02x}"
        return {**pair, "macvlan/mv0": {"link": "e0", "mode": "passthru", "macaddress": mac}}

    def kept() -> bool:
        return "02:aa:00:00:00:77" in host.ip("neigh show dev e0 nud permanent")

    host.goes_back(with_mac(5))
    host.roll(with_mac(5))
    assert kept()
    host.goes_back(pair)
    host.goes_back(with_mac(6))
    host.roll(with_mac(6))
    assert kept()
    assert host.link("e0")["address"] == "02:aa:00:00:00:06"
    host.roll(pair)
    assert kept()
    assert host.link("e0")["address"] == before


def test_two_macs_for_one_device(host: Space) -> None:
    """A passthru device with another address than its lower device is to have is refused."""
    pair = {"veth/e0": {"peer": "f0", "macaddress": "02:aa:00:00:00:01"}, "veth/f0": {"peer": "e0"}}
    wanted = {"link": "e0", "mode": "passthru", "macaddress": "02:aa:00:00:00:05"}
    plan = host.plan({**pair, "macvlan/mv0": wanted})
    assert [problem.what for problem in plan.problems] == ["macaddress"]
    assert "02:aa:00:00:00:01" in plan.problems[0].actual
    same = {**wanted, "macaddress": "02:aa:00:00:00:01"}
    host.roll({**pair, "macvlan/mv0": same})
    assert host.link("mv0")["address"] == "02:aa:00:00:00:01"
