"""Permanent neighbours in a real kernel, judged by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def pair(*words: str) -> dict[str, Any]:
    return {
        "veth/e0": {
            "peer": "e1",
            "addresses": [{"address": "198.18.9.1/24"}, {"address": "fd00::1/64"}],
        },
        "veth/e1": {"peer": "e0"},
    }


def listed(*pairs: str) -> dict[str, Any]:
    found = [each.split("=") for each in pairs]
    return {"entries": [{"address": address, "macaddress": mac} for address, mac in found]}


def neighbours(host: Space) -> dict[str, str]:
    found = host.json("neigh show dev e0 nud permanent")
    return {each["dst"]: each["lladdr"] for each in found}


ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"


def test_create_change_delete(host: Space) -> None:
    """Neighbours of both families are put once the device is up, changed and taken away."""
    host.roll({**pair(), "neighbour/e0": listed(f"198.18.9.7={ONE}", f"fd00::7={ONE}")})
    assert neighbours(host) == {"198.18.9.7": ONE, "fd00::7": ONE}
    host.roll({**pair(), "neighbour/e0": listed(f"198.18.9.7={TWO}", f"198.18.9.8={ONE}")})
    assert neighbours(host) == {"198.18.9.7": TWO, "198.18.9.8": ONE}
    host.roll(pair())
    assert neighbours(host) == {}


def test_adopt_release_and_revert(host: Space) -> None:
    """A neighbour that was there stays when intent lets go; a revert is exact."""
    host.roll(pair())
    host.ip(f"neigh add 198.18.9.7 lladdr {ONE} dev e0 nud permanent")
    assert host.roll({**pair(), "neighbour/e0": listed(f"198.18.9.7={ONE}")}).changes == ()
    host.goes_back({**pair(), "neighbour/e0": listed(f"198.18.9.7={TWO}", f"198.18.9.8={TWO}")})
    assert host.roll(pair()).changes == ()
    assert neighbours(host) == {"198.18.9.7": ONE}
