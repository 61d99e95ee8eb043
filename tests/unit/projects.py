"""Small projects for the tests of the intent."""

from __future__ import annotations

import textwrap
from pathlib import Path

from fleet.intent import Project, load_project
from fleet.state import State


def make(tmp_path: Path, hosts: str, groups: str = "", defaults: str = "") -> Project:
    """Write an inventory's files and load the project."""
    folder = tmp_path / "inventory"
    folder.mkdir(exist_ok=True)
    for name, text in (("hosts", hosts), ("groups", groups), ("defaults", defaults)):
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    return load_project(tmp_path)


def one_host(tmp_path: Path, data: str, hostname: str = "198.18.0.1") -> Project:
    """Return a project of one host, h1, with this data; its first line is line 4 of hosts.yaml."""
    body = textwrap.indent(textwrap.dedent(data).strip("\n"), "    ")
    return make(tmp_path, f"h1:\n  hostname: {hostname}\n  data:\n{body}\n")


def specs(state: State) -> dict[str, dict[str, object]]:
    """Return a state's specs by resource key."""
    return {resource.key: resource.spec for resource in state.resources}
