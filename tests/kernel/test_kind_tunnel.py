"""VXLANs in a real kernel, judged by ip(8), and by ping through one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from namespaces import Space, connect, sh, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def test_create_change_delete(host: Space) -> None:
    """A VXLAN is made with what is named, made again where that changes, and goes."""
    nic = {
        "veth/e0": {"peer": "e1", "addresses": [{"address": "198.18.9.1/24"}]},
        "veth/e1": {"peer": "e0"},
    }
    host.roll({
        **nic,
        "tunnel/vx0": {
            "id": 42, "local": "198.18.9.1", "remote": "198.18.9.2", "port": 4790, "ttl": 64,
            "type_of_service": 8, "mac_learning": False, "ageing": 100, "limit": 50,
            "arp_proxy": True, "link": "e0", "mtu": 1400,
        },
        "bridge/br0": {"interfaces": ["vx0"]},
    })  # fmt: skip
    data = host.link("vx0")["linkinfo"]["info_data"]
    assert (data["id"], data["local"], data["remote"], data["port"]) == (
        42, "198.18.9.1", "198.18.9.2", 4790,
    )  # fmt: skip
    assert (data["ttl"], data["tos"], data["learning"], data["ageing"]) == (64, "0x8", False, 100)
    assert (data["limit"], data["proxy"], data["link"]) == (50, True, "e0")
    state = {
        **nic,
        "tunnel/vx0": {"id": 43, "local": "198.18.9.1", "mac_learning": False},
        "fdb/vx0": {"entries": [{"macaddress": "00:00:00:00:00:00", "remote": "198.18.9.3"}]},
        "bridge/br0": {"interfaces": ["vx0"]},
    }
    host.roll(state)
    data = host.link("vx0")["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data.get("remote")) == (43, 4789, None)
    assert host.link("vx0")["master"] == "br0"
    again = {"id": 44, "local": "198.18.9.1", "mac_learning": False}
    host.goes_back({**state, "tunnel/vx0": again})
    host.roll({**state, "tunnel/vx0": again})
    assert "198.18.9.3" in sh("bridge", "-n", host.name, "fdb", "show", "dev", "vx0")
    host.roll(nic)
    assert not host.has("vx0")


def test_traffic(host: Space) -> None:
    """Two hosts ping each other through their VXLANs by static entries."""
    with space() as other:
        connect(host, "e0", other, "e0")
        for number, here in ((1, host), (2, other)):
            here.roll({
                "tunnel/vx0": {"id": 7, "local": f"198.18.9.{number}",
                    "addresses": [{"address": f"198.18.10.{number}/24"}]},
                "fdb/vx0": {"entries": [
                    {"macaddress": "00:00:00:00:00:00", "remote": f"198.18.9.{3 - number}"}]},
            })  # fmt: skip
            here.ip(f"addr add 198.18.9.{number}/24 dev e0")
        assert host.pings("198.18.10.2", 3)


def test_adopt_and_release(host: Space) -> None:
    """A VXLAN that was there stays when intent lets go."""
    host.ip("link add vx1 type vxlan id 9 dstport 4789 local 198.18.9.1")
    host.roll({"tunnel/vx1": {"id": 9, "local": "198.18.9.1"}})
    assert host.roll({}).changes == ()
    assert host.has("vx1")
    assert "tunnel/vx1" in host.plan({}).unmanaged
