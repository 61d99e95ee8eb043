"""VLAN interfaces in a real kernel, judged by ip(8), and by tagged pings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from capabilities import has, needs
from namespaces import Space, connect, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


PAIR = {"veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"}}


def data(host: Space, device: str) -> dict[str, Any]:
    found: dict[str, Any] = host.link(device)["linkinfo"]["info_data"]
    return found


def qos(host: Space, device: str, which: str) -> dict[int, int]:
    return {pair["from"]: pair["to"] for pair in data(host, device).get(which, [])}


@pytest.mark.skipif(has("802.1q"), reason="the kernel has 802.1q")
def test_missing_capability(host: Space) -> None:
    """Where the kernel has no VLANs the plan says so by name, and has no change."""
    plan = host.plan({**PAIR, "vlan/e0.10": {"id": 10, "link": "e0"}})
    (problem,) = plan.problems
    assert problem.resource == "vlan/e0.10"
    assert "has no 802.1q" in problem.actual
    assert not any(change.kind == "vlan" for change in plan.changes)


@needs("802.1q")
def test_create_change_delete(host: Space) -> None:
    """A VLAN is made with every attribute, each changes in place, and it goes with its intent."""
    every = {
        "id": 10, "link": "e0", "gvrp": True, "mvrp": True, "reorder_hdr": False,
        "loose_binding": True, "ingress_qos_map": {1: 2, 3: 4}, "egress_qos_map": {0: 1, 5: 6},
        "mtu": 1400, "macaddress": "02:aa:00:00:00:01",
        "addresses": [{"address": "198.18.1.1/24"}],
    }  # fmt: skip
    host.roll({**PAIR, "vlan/e0.10": every})
    found = data(host, "e0.10")
    assert (found["id"], found["protocol"]) == (10, "802.1Q")
    assert sorted(found["flags"]) == ["GVRP", "LOOSE_BINDING", "MVRP"]
    assert qos(host, "e0.10", "ingress_qos") == {1: 2, 3: 4}
    assert qos(host, "e0.10", "egress_qos") == {0: 1, 5: 6}
    link = host.link("e0.10")
    assert (link["link"], link["mtu"], link["address"]) == ("e0", 1400, "02:aa:00:00:00:01")
    assert "UP" in link["flags"]

    index = link["ifindex"]
    other = {
        "gvrp": False, "mvrp": False, "reorder_hdr": True, "loose_binding": False,
        "ingress_qos_map": {3: 5, 7: 1}, "egress_qos_map": {},
    }  # fmt: skip
    for word, value in other.items():
        every = {**every, word: value}
        host.goes_back({**PAIR, "vlan/e0.10": every})
        plan = host.roll({**PAIR, "vlan/e0.10": every})
        assert [change.what for change in plan.changes] == [word.replace("_", "-")]
    assert data(host, "e0.10")["flags"] == ["REORDER_HDR"]
    assert qos(host, "e0.10", "ingress_qos") == {3: 5, 7: 1}
    assert qos(host, "e0.10", "egress_qos") == {}
    assert host.link("e0.10")["ifindex"] == index

    # What is no longer named is as in a new one.
    host.roll({**PAIR, "vlan/e0.10": {"id": 10, "link": "e0"}})
    assert qos(host, "e0.10", "ingress_qos") == {}
    assert host.link("e0.10")["mtu"] == 1500
    plan = host.roll(PAIR)
    assert [(c.action, c.key) for c in plan.changes] == [("delete", "vlan/e0.10")]
    assert not host.has("e0.10")


@needs("802.1q")
def test_made_again(host: Space) -> None:
    """Another id, lower device or protocol makes a VLAN again, with all that is on it."""
    words = {"id": 10, "link": "e0", "addresses": [{"address": "198.18.1.1/24"}],
             "routes": [{"to": "198.18.2.0/24", "via": "198.18.1.9"}]}  # fmt: skip
    bridge = {"bridge/br0": {"interfaces": ["v0"]}}
    state = {**PAIR, "vlan/v0": {"id": 9, "link": "e0"}, "vlan/e.x": words, **bridge}
    host.roll(state)
    for word, value in (("id", 11), ("protocol", "802.1ad"), ("link", "e1")):
        words = {**words, word: value}
        state = {**PAIR, "vlan/v0": {"id": 19, **{k: v for k, v in words.items()
                 if k in ("protocol", "link")}}, "vlan/e.x": words, **bridge}  # fmt: skip
        host.goes_back(state)
        host.roll(state)
        assert host.addresses("e.x") == ["198.18.1.1/24"]
        assert host.routes() == ["198.18.2.0/24 via 198.18.1.9 dev e.x"]
        assert host.link("v0")["master"] == "br0"
    found = data(host, "e.x")
    assert (found["id"], found["protocol"]) == (11, "802.1ad")
    assert host.link("e.x")["link"] == "e1"


@needs("802.1q")
def test_create_goes_back(host: Space) -> None:
    """A VLAN on a bridge and a bridge on a VLAN are made in one plan, and taken back."""
    host.roll(PAIR)
    host.goes_back({
        **PAIR,
        "vlan/e0.10": {"id": 10, "link": "e0"},
        "bridge/br10": {"interfaces": ["e0.10"]},
        "bridge/br0": {"interfaces": ["e1"]},
        "vlan/br0.20": {"id": 20, "link": "br0", "addresses": [{"address": "198.18.3.1/24"}]},
        "vlan/in": {"id": 30, "link": "br0.20"},
    })  # fmt: skip


@needs("802.1q")
def test_mtu_order(host: Space) -> None:
    """MTUs of a NIC and the VLANs on it are raised from below and lowered from above."""

    def both(mtu: int) -> dict[str, Any]:
        return {
            "veth/e0": {"peer": "e1", "mtu": mtu}, "veth/e1": {"peer": "e0"},
            "vlan/v": {"id": 5, "link": "e0", "mtu": mtu},
            "vlan/w": {"id": 6, "link": "v", "mtu": mtu},
            "vlan/small": {"id": 7, "link": "e0", "mtu": 1300},
        }  # fmt: skip

    for mtu in (1500, 9000, 1400):
        host.roll(both(mtu))
        assert [host.link(name)["mtu"] for name in ("e0", "v", "w", "small")] == [
            mtu, mtu, mtu, 1300,
        ]  # fmt: skip


@needs("802.1q")
def test_traffic(host: Space) -> None:
    """Two hosts ping each other in a VLAN, and not from one VLAN to another."""
    with space() as other:
        connect(host, "e0", other, "e0")
        nic: dict[str, Any] = {"ethernet/e0": {}}
        for number, here in ((1, host), (2, other)):
            here.roll(
                {
                    **nic,
                    "vlan/e0.10": {
                        "id": 10,
                        "link": "e0",
                        "addresses": [{"address": f"198.18.9.{number}/24"}],
                    },
                }
            )
        assert host.pings("198.18.9.2", 3)
        other.roll(
            {
                **nic,
                "vlan/e0.10": {"id": 11, "link": "e0", "addresses": [{"address": "198.18.9.2/24"}]},
            }
        )
        assert not host.pings("198.18.9.2")
        # One tag in another: 802.1ad outside, 802.1Q inside.
        for number, here in ((1, host), (2, other)):
            here.roll(
                {
                    **nic,
                    "vlan/outer": {"id": 100, "link": "e0", "protocol": "802.1ad"},
                    "vlan/inner": {
                        "id": 7,
                        "link": "outer",
                        "addresses": [{"address": f"198.18.8.{number}/24"}],
                    },
                }
            )
        assert host.pings("198.18.8.2", 3)


@needs("802.1q")
def test_adopt_and_release(host: Space) -> None:
    """A VLAN that was there is changed where intent says so, and stays when intent lets go."""
    host.roll(PAIR)
    host.ip("link add e0.7 link e0 type vlan id 7 gvrp on")
    host.roll({**PAIR, "vlan/e0.7": {"id": 7, "link": "e0", "mvrp": True}})
    assert sorted(data(host, "e0.7")["flags"]) == ["GVRP", "MVRP", "REORDER_HDR"]
    assert host.roll(PAIR).changes == ()
    assert host.has("e0.7")
    assert "vlan/e0.7" in host.plan(PAIR).unmanaged
