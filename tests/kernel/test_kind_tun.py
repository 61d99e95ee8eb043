"""Tuns in a real kernel, judged by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def test_create_change_delete(host: Space) -> None:
    """A tun is made with its owner, addresses and routes, changes, and goes with its intent."""
    host.roll({
        "tun/tun0": {
            "owner": "1000", "group": "1", "multi_queue": True, "mtu": 1400,
            "addresses": [{"address": "198.18.8.1/24"}],
            "routes": [{"to": "198.19.0.0/24", "via": "198.18.8.2"}],
        },
    })  # fmt: skip
    data = host.link("tun0")["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["multi_queue"]) == ("tun", True, True)
    assert host.addresses("tun0") == ["198.18.8.1/24"]
    assert host.routes() == ["198.19.0.0/24 via 198.18.8.2 dev tun0"]
    plan = host.roll({
        "tun/tun0": {
            "owner": "0", "group": "0", "multi_queue": False, "mtu": 1500,
            "addresses": [{"address": "198.18.8.1/24"}],
            "routes": [{"to": "198.19.0.0/24", "via": "198.18.8.2"}],
        },
    })  # fmt: skip
    assert plan.changes[0].reason.startswith("made again")
    assert host.addresses("tun0") == ["198.18.8.1/24"]
    assert host.routes() == ["198.19.0.0/24 via 198.18.8.2 dev tun0"]
    host.roll({})
    assert not host.has("tun0")


def test_adopt_release_and_revert(host: Space) -> None:
    """A tun that was there stays when intent lets go; a revert is exact."""
    host.ip("tuntap add dev tun1 mode tun")
    host.roll({"tun/tun1": {}})
    assert host.roll({}).changes == ()
    assert host.has("tun1")
    host.goes_back({"tun/tun1": {"owner": "7"}, "tun/tun2": {}})
