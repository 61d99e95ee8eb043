"""What is others' and would go along with an address, a device's last: judged by ip(8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, space

from fleet.host.planning.plan import allowed

MAC = "52:54:00:00:00:01"
BRIDGE: dict[str, Any] = {
    "ethernet/e0": {},
    "bridge/br0": {
        "interfaces": ["e0"],
        "addresses": [{"address": "198.18.9.1/24"}, {"address": "fd00::1/64"}],
        "parameters": {"stp": False},
    },
}
BARE: dict[str, Any] = {"ethernet/e0": {"addresses": []}}


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        made.ip("link add e0 type veth peer name e1")
        made.ip("link set e1 up")
        made.ip("link set e0 up")
        made.ip("address add 198.18.9.1/24 dev e0")
        made.ip("address add fd00::1/64 dev e0 nodad")
        yield made


def neighbours(host: Space, device: str) -> set[str]:
    return {each["dst"] for each in host.json(f"neigh show dev {device} nud permanent")}


def test_routes_of_other_tables_and_neighbours_follow_an_address_into_a_bridge(
    host: Space,
) -> None:
    """What others have by way of a subnet is on the bridge when the subnet is."""
    host.ip("route add 198.18.60.0/24 via 198.18.9.9 dev e0 table 100")
    host.ip("route add 198.18.61.0/24 dev e0 table 100")
    host.ip("route add fd01::/64 via fd00::9 dev e0 table 100")
    host.ip(f"neigh add 198.18.9.9 lladdr {MAC} dev e0 nud permanent")
    host.ip(f"neigh add fd00::9 lladdr {MAC} dev e0 nud permanent")
    host.ip(f"neigh add 203.0.113.9 lladdr {MAC} dev e0 nud permanent")
    plan = host.goes_back(BRIDGE)
    assert allowed(plan, ()) == ()
    host.roll(BRIDGE)
    assert host.routes("table", "100") == [
        "198.18.60.0/24 via 198.18.9.9 dev br0",
        "198.18.61.0/24 dev br0",
        "fd01::/64 via fd00::9 dev br0",
    ]
    assert neighbours(host, "br0") == {"198.18.9.9", "fd00::9"}
    assert neighbours(host, "e0") == {"203.0.113.9"}


def test_what_needs_no_address_stays_when_the_last_one_goes(host: Space) -> None:
    """Routes without a gateway, or with one on the link, and neighbours stay on the device."""
    host.ip("route add 198.18.61.0/24 dev e0 table 100")
    host.ip("route add 198.18.9.9 dev e0")
    host.ip("route add 198.18.62.0/24 via 198.18.9.9 dev e0")
    host.ip("route add 198.18.63.0/24 via 203.0.113.1 dev e0 onlink table 100 metric 7")
    host.ip(f"neigh add 198.18.9.9 lladdr {MAC} dev e0 nud permanent")
    routes = host.routes("table", "all")
    plan = host.roll(BARE)
    assert [change.takes for change in plan.changes] == [(), ()]
    assert host.addresses("e0") == []
    assert host.routes("table", "all") == routes
    assert neighbours(host, "e0") == {"198.18.9.9"}


def test_what_cannot_stay_is_refused_unless_it_is_allowed(host: Space) -> None:
    """A route whose gateway or source goes with an address is named, and has to be allowed."""
    host.ip("address add 198.18.9.2/24 dev e0")
    host.ip("route add 198.18.60.0/24 via 198.18.9.9 dev e0 table 100")
    host.ip("route add 198.18.64.0/24 dev e0 src 198.18.9.2 table 101")
    plan = host.plan(BARE)
    (problem,) = allowed(plan, ("drain",))
    assert problem.resource == "ethernet/e0"
    assert "the route to 198.18.60.0/24 of table 100" in problem.actual
    assert "the route to 198.18.64.0/24 of table 101" in problem.actual
    assert "--allow foreign or --allow ethernet/e0" in problem.remedy
    assert allowed(plan, ("foreign",)) == allowed(plan, ("ethernet/e0",)) == ()
    # With the first address alone the second one's route goes.
    one = {"ethernet/e0": {"addresses": [{"address": "198.18.9.1/24"}]}}
    (problem,) = allowed(host.plan(one), ())
    assert problem.actual == "it takes the route to 198.18.64.0/24 of table 101 along"


def test_what_goes_with_a_device_is_refused_unless_it_is_allowed(host: Space) -> None:
    """Others' routes and neighbours on a device that intent lets go of have to be allowed."""
    bridge = {"bridge/br0": {"addresses": [{"address": "198.18.8.1/24"}]}}
    host.roll(bridge)
    assert allowed(host.plan({}), ()) == ()
    host.ip("route add 198.18.65.0/24 via 198.18.8.9 dev br0 table 100")
    host.ip(f"neigh add 198.18.8.9 lladdr {MAC} dev br0 nud permanent")
    (problem,) = allowed(host.plan({}), ())
    assert problem.actual == (
        "it takes the route to 198.18.65.0/24 of table 100, the neighbour 198.18.8.9 along"
    )
