"""YAML: places of values, the core schema, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import IntentError
from fleet.intent.tree import Mapping, Node, Scalar, Sequence, leaves, plain
from fleet.intent.yaml import compose, read

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def value(text: str) -> object:
    node = compose(text, "f.yaml")
    assert node is not None
    return plain(node)


def test_every_value_knows_its_place() -> None:
    """Line and column of a value and of its key, counted from 1."""
    node = compose("a:\n  b: [1, two]\n  c: x\n", "f.yaml")
    assert node is not None
    places = {path: str(leaf.place) for path, leaf in leaves(node)}
    assert places == {
        ("a", "b", 0): "f.yaml:2:7",
        ("a", "b", 1): "f.yaml:2:10",
        ("a", "c"): "f.yaml:3:6",
    }
    assert isinstance(node, Mapping)
    assert str(node.entries["a"].key_place) == "f.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("52:54:00", "52:54:00"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("~", None),
        ("'~'", "~"),
        ("null", None),
        ("true", True),
        ("'true'", "true"),
        ("2001:db8::1", "2001:db8::1"),
        ("!!str 12", "12"),
        ("-.inf", float("-inf")),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object) -> None:
    """No sexagesimals, and yes and no are texts."""
    assert value(f"k: {text}") == {"k": expected}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, "twice; first on line 1"),
        ("a: {b: 1, 'b': 2}", 1, "twice"),
        ("a: *nothing", 1, "no anchor"),
        ("a: &a [*a]", 1, "no anchor"),
        ("a: 1\n---\nb: 1", 2, "second document"),
        ("? [a]\n: 1", 1, "a key must be a text"),
        ("a: !!python/object/apply:os.system [id]", 1, "tag"),
        ("a: !vault secret", 1, "tag"),
        ("a: 1\nb: [", 3, "not YAML"),
        ("\ta: 1", 1, "not YAML"),
        ("a: b: c", 1, "not YAML"),
        ("a: 1\nb: x\x00y", 2, "control character"),
        ('a: "x\\0y"', 1, "control character"),
        ('a: "\\x1b[2J"', 1, "control character"),
        ("a: \x1b[2J", 1, "control character"),
        ("a: " + "[" * 100, 1, "nested deeper"),
        ("a: {<<: 1}", 1, "<< takes a mapping"),
        ("~: 1", 1, "a key is missing"),
    ],
)
def test_what_is_refused_is_located(text: str, line: int, message: str) -> None:
    """A file that cannot be taken is an error with its line, never a traceback."""
    with pytest.raises(IntentError, match=r"f\.yaml") as caught:
        compose(text, "f.yaml")
    assert message in str(caught.value)
    assert caught.value.line == line


def test_an_alias_bomb_is_refused() -> None:
    """Nine aliases of nine aliases … stop before they are expanded."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for last, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]")
    with pytest.raises(IntentError, match="aliases expand"):
        compose("\n".join(lines), "f.yaml")


def test_anchors_and_merge_keys() -> None:
    """An alias is its anchor's value; a mapping's own keys win over merged ones, in any order."""
    assert value("b: &b {x: 1, y: 2}\nc: {y: 3, <<: *b}\nd: {<<: [{y: 4}, *b]}\ne: *b") == {
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 4},
        "e": {"x": 1, "y": 2},
    }


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, not UTF-8, a directory: errors that name the file; an empty one is nothing."""
    path = tmp_path / "x.yaml"
    with pytest.raises(IntentError, match=r"x\.yaml: cannot be read"):
        read(path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(IntentError, match=r"x\.yaml:2:4: not UTF-8"):
        read(path)
    path.write_text("# nothing\n")
    assert read(path) is None
    with pytest.raises(IntentError, match="cannot be read"):
        read(tmp_path)


@QUICK
@given(st.text(max_size=200))
def test_any_text_is_a_tree_or_an_error(text: str) -> None:
    """Whatever a file holds, the result is a tree or an IntentError."""
    with contextlib.suppress(IntentError):
        compose(text, "f.yaml")


SCALARS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(TREES)
def test_what_pyyaml_writes_is_read_back(tree: object) -> None:
    """Texts, lists and mappings survive a round trip through PyYAML's writer."""
    text = pyyaml.safe_dump(tree, allow_unicode=True, default_style='"')
    node = compose(text, "f.yaml")
    assert node is not None
    assert plain(node) == tree
    for _, leaf in leaves(node):
        assert isinstance(leaf, (Scalar, Sequence, Mapping, Node))
        assert leaf.place.line > 0
