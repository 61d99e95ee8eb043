"""Presets are data below a host's own: read, overridden key by key, and explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import one_host

from fleet.cli.program import run
from fleet.errors import IntentError
from fleet.intent import load_project, render_state
from fleet.intent.project import explain

PRESETS = sorted((Path(__file__).parents[2] / "fleet" / "_starter" / "presets").glob("*.yaml"))
NICS = "network: {ethernets: {eno2: {}, eno3: {}}}\n"


def specs(project: object) -> dict[str, object]:
    return {r.key: r.spec for r in render_state(project, "h1").resources}  # type: ignore[arg-type]


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_each_preset_is_sound(file: Path, tmp_path: Path) -> None:
    """What fleet carries is valid intent for any NIC, and says first what it is for."""
    project = one_host(tmp_path, f"presets: {{{file.stem}: [eno2, eno3]}}\n{NICS}")
    found = specs(project)
    assert {"ethtool/eno2", "ethtool/eno3", "interrupts/eno2", "governor/all"} <= found.keys()
    assert not any("NIC" in key for key in found)
    assert file.read_text().startswith("# For ")


def test_any_key_can_be_overridden_or_taken_out(tmp_path: Path) -> None:
    """A host's own value stands above the preset's, and null takes it out."""
    project = one_host(
        tmp_path,
        "presets: {low-latency: [eno2]}\n"
        "governors: {all: null}\n"
        "sysctl: {net.core.busy_poll: 25}\n"
        "network: {ethernets: {eno2: {}}, ethtool: {eno2: {coalesce: {adaptive-rx: null}}}}\n",
    )
    found = specs(project)
    assert "governor/all" not in found
    assert found["sysctl/net.core.busy_poll"] == {"value": "25"}
    assert found["ethtool/eno2"]["coalesce"] == {"rx_usecs": 0}  # type: ignore[index]
    values = {each.path: each for each in explain(project, "h1")}
    at = values["network.ethtool.eno2.coalesce.rx-usecs"]
    assert (at.file, at.value) == ("presets/low-latency.yaml", 0)
    [poll] = [each for path, each in values.items() if "busy_poll" in path]
    assert poll.file.startswith("inventory/")


def test_a_project_has_its_own(tmp_path: Path) -> None:
    """A file of the project takes the place of fleet's, and later presets stand above earlier."""
    project = one_host(tmp_path, f"presets: {{low-latency: [eno2], site: [eno2]}}\n{NICS}")
    folder = Path(project.path) / "presets"
    folder.mkdir()
    (folder / "low-latency.yaml").write_text(
        "network: {ethtool: {NIC: {rings: {rx: 64, tx: 64}}}}\n"
    )
    (folder / "site.yaml").write_text("network: {ethtool: {NIC: {rings: {rx: 128}}}}\n")
    found = specs(load_project(project.path))
    assert found["ethtool/eno2"]["rings"] == {"rx": 128, "tx": 64}  # type: ignore[index]
    assert "governor/all" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("presets: {low-latancy: [eno2]}", "no such preset; did you mean 'low-latency'?"),
        ("presets: {turbo: [eno2]}", "the presets are low-latency, throughput"),
        ("presets: {low-latency: eno2}", "a list of NICs is expected; write [eno2]"),
        ("presets: [low-latency]", "a mapping of presets to NICs is expected"),
        ("presets: {../../etc/passwd: [eno2]}", "no such preset"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """An unknown preset, and what is no list of NICs, are refused where they are written."""
    project = one_host(tmp_path, f"{text}\n{NICS}")
    with pytest.raises(IntentError) as failed:
        render_state(project, "h1")
    assert message in str(failed.value)
    assert failed.value.place is not None
    assert failed.value.place.file == "inventory/hosts.yaml"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`fleet preset` lists them with what they are for, and prints one as it stands."""
    one_host(tmp_path, NICS)
    where = ["--project", str(tmp_path)]
    assert run(["preset", *where]) == 0
    assert capsys.readouterr().out.startswith("low-latency     For guests and programs")
    assert run(["preset", "throughput", *where]) == 0
    assert capsys.readouterr().out == PRESETS[1].read_text()
    assert run(["preset", "--json", *where]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["hosts"]["presets"]) == {"low-latency", "throughput"}
    assert run(["preset", "turbo", *where]) == 2
    assert "there are low-latency, throughput" in capsys.readouterr().err
