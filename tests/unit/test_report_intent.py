"""A host's intent as it is shown."""

from __future__ import annotations

from pathlib import Path

import yaml

from fleet.intent.source import Source
from fleet.intent.tree import plain
from fleet.report.intent import explained, intent_lines

INVENTORY = Path(__file__).parents[2] / "inventory"


def source() -> Source:
    return Source(*(INVENTORY / f"{name}.yaml" for name in ("hosts", "groups", "defaults")))


def test_shown_intent_is_the_merged_one() -> None:
    """What is shown, read again as YAML, is the merged data of every host of the example."""
    inventory = source()
    for host in inventory.hosts:
        tree = inventory.data(host)
        for explain in (False, True):
            assert yaml.safe_load("\n".join(intent_lines(tree, explain))) == plain(tree)


def test_each_value_has_its_place() -> None:
    """--explain says for a value the file and line that wrote it, the host's own last."""
    tree = source().data("hv-r3-2")
    line = next(line for line in intent_lines(tree, True) if "priority: 4096" in line)
    file, number = line.rpartition("# ")[2].rsplit(":", 1)
    assert "4096" in Path(file).read_text().splitlines()[int(number) - 1]
    found = {each["path"]: each for each in explained(tree)}
    assert found["network.bridges.br-guests.parameters.priority"]["value"] == 4096


def test_values_that_yaml_would_misread_are_quoted(tmp_path: Path) -> None:
    """Templates in lists, texts that look like numbers, and controls are quoted."""
    (tmp_path / "hosts.yaml").write_text(
        'h:\n  data:\n    list: ["{{ a }}", "1", "a, b", ": x"]\n    text: "yes"\n'
        '    odd: "a\\u202eb"\n    empty: {}\n    "k: 1": null\n    none: []\n'
    )
    tree = Source(tmp_path / "hosts.yaml", tmp_path / "g", tmp_path / "d").data("h")
    text = "\n".join(intent_lines(tree))
    assert yaml.safe_load(text) == plain(tree)
    assert "\u202e" not in text


def test_secret_variables_are_not_shown(tmp_path: Path) -> None:
    """A variable whose name says that it is a secret keeps its place, and hides its value."""
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("h:\n  data: {bmc_password: s3cret, tokens: 3, psk: {a: s3cret}}\n")
    tree = Source(hosts, tmp_path / "groups.yaml", tmp_path / "defaults.yaml").data("h")
    lines = intent_lines(tree, explain=True)
    assert [line.partition("  ")[0] for line in lines] == [
        "bmc_password: (secret)",
        "tokens: 3",
        "psk: (secret)",
    ]
    assert all(line.endswith("hosts.yaml:2") for line in lines)
    assert "s3cret" not in str(explained(tree))
