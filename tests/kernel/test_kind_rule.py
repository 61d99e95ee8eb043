"""Policy rules in a real kernel, judged by ip-rule(8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def rules(host: Space, family: str = "-4") -> list[str]:
    """The rules, one a line, without the three that every namespace has."""
    lines = [" ".join(line.split()) for line in host.ip(f"{family} rule show").splitlines()]
    own = ("lookup local", "lookup main", "lookup default")
    return [line for line in lines if not line.endswith(own)]


def test_rules(host: Space) -> None:
    """Rules with every field are added in both families, removed, and others' stay."""
    host.ip("rule add from 198.18.77.0/24 table 77 priority 77")
    state: dict[str, Any] = {
        "rule/one": {"from_": "198.18.3.0/24", "table": 101, "priority": 100},
        "rule/two": {"to": "198.18.4.1", "table": 102, "priority": 101},
        "rule/three": {"from_": "198.18.3.0/24", "to": "198.18.4.0/24", "table": 1000,
                       "priority": 102, "mark": 7, "type_of_service": 16},
        "rule/four": {"from_": "2001:2::/64", "table": 101, "priority": 100},
        "rule/five": {"mark": 9, "table": 109, "priority": 103, "family": "ipv6"},
    }  # fmt: skip
    plan = host.roll(state)
    assert rules(host) == [
        "77: from 198.18.77.0/24 lookup 77",
        "100: from 198.18.3.0/24 lookup 101 proto static",
        "101: from all to 198.18.4.1 lookup 102 proto static",
        "102: from 198.18.3.0/24 to 198.18.4.0/24 tos 0x10 fwmark 0x7 lookup 1000 proto static",
    ]
    assert rules(host, "-6") == [
        "100: from 2001:2::/64 lookup 101 proto static",
        "103: from all fwmark 0x9 lookup 109 proto static",
    ]
    assert len(plan.unmanaged) == 1
    assert "77" in plan.unmanaged[0]
    state.pop("rule/three")
    state["rule/one"] = {"from_": "198.18.3.0/24", "table": 105, "priority": 100}
    state["rule/uno"] = state.pop("rule/one")
    host.roll(state)
    assert "100: from 198.18.3.0/24 lookup 105 proto static" in rules(host)
    assert len(rules(host)) == 3
    host.roll({})
    assert rules(host) == ["77: from 198.18.77.0/24 lookup 77"]
    assert rules(host, "-6") == []


def test_adopt_and_release(host: Space) -> None:
    """A rule that was there is adopted, whatever its priority, and stays when intent lets go."""
    host.ip("rule add from 198.18.77.0/24 table 77 priority 77")
    assert host.roll({"rule/mine": {"from_": "198.18.77.0/24", "table": 77}}).changes == ()
    assert host.ledger["rule/mine"].created is False
    assert host.roll({}).changes == ()
    assert rules(host) == ["77: from 198.18.77.0/24 lookup 77"]


def test_the_kernel_chooses_a_priority(host: Space) -> None:
    """A rule without a priority comes before those that are there."""
    host.roll({"rule/mine": {"from_": "198.18.3.0/24", "table": 77}})
    assert rules(host) == ["32765: from 198.18.3.0/24 lookup 77 proto static"]
