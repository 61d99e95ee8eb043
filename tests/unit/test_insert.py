"""Data put into a YAML text: comments, spelling and order of what was there stay."""

from __future__ import annotations

import pytest
import yaml

from fleet.adopt import beyond, merged, only_new, shared, text_of
from fleet.intent.insert import insert
from fleet.intent.tree import plain
from fleet.intent.yaml import compose

FILE = """\
# The fleet's hosts.
---
hv1:
  hostname: 198.18.1.11   # by the door
  groups: [rack1]
  data: {unit: 011, "role": 'edge'}  # flow
# Between.
hv2:
    hostname: 198.18.1.12
    data:
        # Why.
        unit: 12

        network:
            ethernets:
                eno1: {mtu: 9000}
                eno2: {}
    # Groups come last.
    groups:
    - rack1

hv3:
  hostname: 198.18.1.13
"""


def read(text: str) -> object:
    tree = compose(text, "test")
    return None if tree is None else plain(tree)


@pytest.mark.parametrize("host", ["hv1", "hv2", "hv3", "hv4"])
def test_only_lines_are_added(host: str) -> None:
    """The result means the file with the data merged in, and every comment is still there."""
    data = {host: {"data": {"network": {"ethernets": {"eno1": {"addresses": ["198.18.1.1/24"]}}}}}}
    text, refused = insert(FILE, data, text_of)
    assert refused == {}
    before = read(FILE)
    assert isinstance(before, dict)
    assert read(text) == merged(before, data)
    comments = [line[line.index("#") :] for line in FILE.splitlines() if "#" in line]
    assert [line[line.index("#") :] for line in text.splitlines() if "#" in line] == comments
    assert "unit: 011" in text


def test_mappings_that_end_at_one_place() -> None:
    """What is added to several mappings that end with the file, or the host, goes to each."""
    text = "hv1:\n  data:\n    network:\n      ethernets:\n        eth1: {}\n"
    data = {
        "hv2": {"hostname": "hv2"},
        "hv3": {"hostname": "hv3"},
        "hv1": {
            "groups": ["rack"],
            "data": {
                "sysctl": {"net.ipv4.ip_forward": "1"},
                "network": {"ethernets": {"eth1": {"mtu": 9000}, "eth2": {}}, "bridges": {"b": {}}},
            },
        },
    }
    for one in (text, text.rstrip("\n"), "# Hosts.\n" + text + "# The end.\n"):
        new, refused = insert(one, data, text_of)
        assert refused == {}
        before = read(one)
        assert isinstance(before, dict)
        assert read(new) == merged(before, data)
        assert new.count("#") == one.count("#")
        assert new.index("hv2") < new.index("hv3")


def test_a_value_is_replaced_in_place() -> None:
    """A scalar or a list that differs is replaced where it stands, its line's comment kept."""
    text = "a:\n  data:\n    one: 1 # first\n    list:\n    - x\n    - y\n    two: 2\n"
    found, refused = insert(text, {"a": {"data": {"one": 9, "list": ["z"]}}}, text_of)
    assert refused == {}
    assert "one: 9 # first\n" in found
    assert read(found) == {"a": {"data": {"one": 9, "list": ["z"], "two": 2}}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("b: &x {u: 1}\na: *x\n", "alias"),
        ("a:\n  data: &x {u: 1}\n", "anchor"),
        ("a:\n  data: {u: 1, # why\n    v: 2}\n", "comments"),
        ("a:\n  data: text\n", "would be a mapping"),
    ],
)
def test_what_only_a_person_can_change(text: str, reason: str) -> None:
    """Where something would be lost the text stays as it is, and the reason is said."""
    found, refused = insert(text, {"a": {"data": {"network": {"version": 2}}}}, text_of)
    assert found == text
    assert reason in refused["a"]


def test_an_empty_file_and_one_without_a_last_newline() -> None:
    """A file that is empty, or ends in the middle of a line, is written on."""
    data = {"a": {"data": {"x": 1}}}
    for text in ("", "# Only this.\n", "---\n", "b: {}"):
        found, refused = insert(text, data, text_of)
        assert refused == {}
        assert read(found) == {**(read(text) or {}), **data}  # type: ignore[dict-item]


def test_shared_beyond_and_new() -> None:
    """What hosts share, and the rest of each, are together what each host is."""
    one = {
        "network": {"bridges": {"br0": {"mtu": 1400, "addresses": ["10.0.0.1/24"]}}},
        "s": {"a": "1"},
    }
    two = {
        "network": {"bridges": {"br0": {"mtu": 1400, "addresses": ["10.0.0.2/24"]}}},
        "s": {"a": "2"},
    }
    up = shared([one, two])
    assert up == {"network": {"bridges": {"br0": {"mtu": 1400}}}}
    for each in (one, two):
        assert merged(up, beyond(each, up)) == each
    new, other = only_new(beyond(one, {"s": {"a": "9"}}), {"s": {"a": "9"}})
    assert (new, other) == ({"network": one["network"]}, {"s": {"a": "1"}})


def test_what_a_host_says_is_no_template() -> None:
    """Jinja2's own signs in what came from a host come out of a template as they were."""
    from fleet.adopt import _quoted
    from fleet.render import Renderer

    text = 'comment "{{ 7 * 7 }} {% if %} {# x #}"'
    assert Renderer([]).text(_quoted(text), {}) == text


@pytest.mark.parametrize("rules", ["\n", "chain a {\n}\n\n\n", "\n\nchain a {\n}\n", "  chain a\n"])
def test_any_text_is_written_so_that_the_file_stays_yaml(rules: str) -> None:
    """Empty lines in front of a text, or at its end, do not swallow the next host."""
    data = {"one": {"data": {"nftables": {"ip/a": {"rules": rules}}}}}
    text, refused = insert("one: {}\ntwo: {}\n", data, text_of)
    assert not refused
    assert yaml.safe_load(text) == {**data, "two": {}}
