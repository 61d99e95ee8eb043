"""The merge: precedence, null, provenance, and the order of groups."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import make

from fleet.errors import InventoryError
from fleet.intent import explain
from fleet.intent.merge import Linearisation, Merger
from fleet.intent.tree import Mapping, Node, Place, Scalar, Sequence, plain

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def node(data: object) -> Node:
    if isinstance(data, dict):
        return Mapping({key: node(value) for key, value in data.items()}, "f", 1)
    if isinstance(data, list):
        return Sequence([node(item) for item in data], "f", 1)
    return Scalar("null" if data is None else str(data), True, "f", 1)


def merged(*layers: dict[str, object]) -> object:
    nodes = [node(layer) for layer in layers]
    assert all(isinstance(each, Mapping) for each in nodes)
    return plain(Merger().stack(nodes))  # type: ignore[arg-type]


def expected(low: object, high: object) -> object:
    """The merge, said in another way."""
    if not isinstance(high, dict):
        return high
    result = dict(low) if isinstance(low, dict) else {}
    for key, value in high.items():
        result[key] = expected(result.get(key), value)
    return {key: value for key, value in result.items() if value is not None}


def test_mappings_merge_and_the_rest_replaces() -> None:
    """Keys of mappings come together; lists and scalars are replaced whole; null removes."""
    low = {"a": {"x": 1, "y": 2}, "l": [1, 2], "n": {"k": 1}, "s": 1}
    high = {"a": {"y": 3, "z": None}, "l": [3], "n": None, "s": {"m": 1}}
    assert merged(low, high) == {"a": {"x": 1, "y": 3}, "l": [3], "s": {"m": 1}}


VALUES = st.recursive(
    st.integers(0, 9) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
LAYERS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=4)


@QUICK
@given(LAYERS)
def test_the_merge_is_what_its_words_say(layers: list[dict[str, object]]) -> None:
    """Any stack of layers gives what folding them one by one gives, and no null is left."""
    start: object = {}
    assert merged(*layers) == functools.reduce(expected, layers, start)


def test_every_value_says_where_it_is_from(tmp_path: Path) -> None:
    """--explain names the file and line that won, for the host's, a group's and the defaults'."""
    project = make(
        tmp_path,
        "h1:\n  groups: [g]\n  data:\n    a: 1\n",
        "g:\n  data:\n    b: {x: 2}\n    a: 9\n",
        "data:\n  b: {y: 3}\n  c: 4\n",
    )
    found = {each.path: (each.value, each.file, each.line) for each in explain(project, "h1")}
    assert found == {
        "a": (1, "inventory/hosts.yaml", 4),
        "b.x": (2, "inventory/groups.yaml", 3),
        "b.y": (3, "inventory/defaults.yaml", 2),
        "c": (4, "inventory/defaults.yaml", 3),
    }


GRAPHS = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        *[
            st.lists(st.sampled_from(range(number)), unique=True, max_size=3)
            if number
            else st.just([])
            for number in range(size)
        ]
    )
)


@QUICK
@given(GRAPHS)
def test_groups_are_ordered_as_python_orders_classes(graph: tuple[list[int], ...]) -> None:
    """C3: the order is that of Python's own classes, and an error exactly where Python has one."""
    place = Place("f", 1, 1)
    order = Linearisation(lambda name: [(str(parent), place) for parent in graph[int(name)]])
    classes: dict[int, type] = {}
    for number, parents in enumerate(graph):
        try:
            classes[number] = type(str(number), tuple(classes[p] for p in parents), {})
        except (TypeError, KeyError):
            assert not all(parent in classes for parent in parents) or parents
            if all(parent in classes for parent in parents):
                with pytest.raises(InventoryError):
                    order.of([(str(number), place)], "h")
            continue
        python = tuple(each.__name__ for each in classes[number].__mro__[:-1])
        assert order.of([(str(number), place)], "h") == python


@pytest.mark.parametrize(
    ("hosts", "groups", "message"),
    [
        (
            "h: {groups: [rack9]}",
            "rack1: {}",
            r"hosts\.yaml:1:14: there is no group 'rack9'.*'rack1'",
        ),
        ("h: {}", "a: {groups: [b]}\nb: {groups: [a]}", r"groups\.yaml:\d.*contain each other"),
        ("h: {}", "a: {groups: [a]}", "contain each other: a → a"),
        (
            "h: {groups: [x, y]}",
            "a: {}\nb: {}\nx: {groups: [a, b]}\ny: {groups: [b, a]}",
            r"hosts\.yaml:1:14: the groups of host h contradict",
        ),
        ("h:\n", "", r"hosts\.yaml:1:1: host h is empty"),
        ("h: 1", "", "host h is not a mapping"),
        ("h: {}", "g:\n", r"groups\.yaml:1:1: group g is empty"),
        ("h: {hostnam: x}", "", r"unknown key 'hostnam'; did you mean 'hostname'"),
        ("h: {port: 99999}", "", "is not a port"),
        ("h: {hostname: -oProxyCommand=x}", "", "is not a hostname"),
        ("h: {hostname: '{{ name }}'}", "", "not rendered"),
        ("h: {username: 'a b'}", "", "is not a user's name"),
        ("'h;rm -rf /': {}", "", "cannot be a host's name"),
        ("h: {groups: g}", "g: {}", "groups is a list"),
        ("h: {groups: [g, g]}", "g: {}", "lists a group twice"),
        ("h: {data: []}", "", "data is a mapping"),
        ("h: {connection_options: {asyncssh: {extra: {}}}}", "", "did you mean 'extras'"),
        ("[]", "", "a mapping is expected"),
    ],
)
def test_a_wrong_inventory_is_a_located_error(
    tmp_path: Path, hosts: str, groups: str, message: str
) -> None:
    """Whatever is wrong with hosts and groups names the file, the line and what to do."""
    with pytest.raises(InventoryError, match=message):
        make(tmp_path, hosts, groups)
