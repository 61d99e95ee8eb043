"""The order of changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.host.change import Change
from fleet.host.planning.graph import Cycle, order, phase

RANK = {"sysctl": 10, "ethernet": 20, "bridge": 40}


def change(name: str, what: str = "mtu", **fields: object) -> Change:
    return Change("", str(fields.pop("kind", "bridge")), name, what=what, after=1, **fields)  # type: ignore[arg-type]


def names(changes: list[Change]) -> list[str]:
    return [item.name for item in changes]


def test_a_required_token_orders() -> None:
    """A change runs after every change that provides what it requires."""
    changes = [
        change("c", requires=("b", "a")),
        change("b", provides=("b",), requires=("a",)),
        change("a", provides=("a",)),
    ]
    assert names(order(changes, RANK)) == ["a", "b", "c"]


def test_a_token_nobody_provides_means_nothing() -> None:
    """A required token that no change provides orders nothing."""
    assert names(order([change("a", requires=("x",)), change("b")], RANK)) == ["a", "b"]


def test_a_change_may_need_what_it_provides() -> None:
    """A change that provides what it requires does not wait for itself."""
    assert names(order([change("a", provides=("x",), requires=("x",)), change("b")], RANK))


def test_phases() -> None:
    """Unordered changes prepare first, interrupt together, and delete last in reverse order."""
    changes = [
        change("gone", "", action="delete", kind="ethernet"),
        change("gone", "", action="delete"),
        Change("", "ethernet", "eth0", what="addresses", before="a"),
        change("eth0", "routes", kind="ethernet"),
        change("br0", "interfaces"),
        change("br0", "addresses"),
        change("br0", "", action="create"),
        change("key", "value", kind="sysctl"),
        Change("", "bridge", "br0", what="activation-mode", after="up"),
    ]
    assert [(c.kind, c.name, c.what) for c in order(changes, RANK)] == [
        ("sysctl", "key", "value"),
        ("bridge", "br0", ""),
        ("bridge", "br0", "activation-mode"),
        ("bridge", "br0", "addresses"),
        ("bridge", "br0", "interfaces"),
        ("ethernet", "eth0", "addresses"),
        ("ethernet", "eth0", "routes"),
        ("bridge", "gone", ""),
        ("ethernet", "gone", ""),
    ]


def test_management_interrupts_last_and_is_restored_first() -> None:
    """Management's port joins after the others; its old address and routes go first."""
    changes = [
        change("br0", "interfaces", touches=("br0", "eth0")),
        change("br1", "interfaces", touches=("br1", "eth1")),
        change("eth1", "routes", touches=("br1",)),
        change("eth0", "routes", touches=("br0",)),
    ]
    assert names(order(changes, RANK, ("eth0", "br0"))) == ["br1", "br0", "eth0", "eth1"]


def test_a_cycle_is_named() -> None:
    """Changes that wait for each other are an error that names them and no others."""
    changes = [
        change("a", provides=("a",), requires=("b",)),
        change("b", provides=("b",), requires=("a",)),
        change("c", requires=("a",)),
    ]
    with pytest.raises(Cycle) as caught:
        order(changes, RANK)
    assert sorted(item.name for item in caught.value.changes) == ["a", "b"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_order_is_a_permutation_that_keeps_every_edge(edges: list[tuple[int, int]]) -> None:
    """Every change comes out once, and after all that it needs."""
    needs = [(low, high) for low, high in edges if low < high]
    changes = [
        change(
            str(number),
            provides=(str(number),),
            requires=tuple(str(low) for low, high in needs if high == number),
        )
        for number in reversed(range(10))
    ]
    ordered = names(order(changes, RANK))
    assert sorted(ordered) == [str(number) for number in range(10)]
    assert all(ordered.index(str(low)) < ordered.index(str(high)) for low, high in needs)


def test_every_change_has_a_phase() -> None:
    """A list's additions run before its removals."""
    for what in ("addresses", "routes"):
        assert phase(change("a", what)) < phase(Change("", "bridge", "a", what=what, before=1))
