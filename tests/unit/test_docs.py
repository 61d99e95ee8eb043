"""What the documentation shows is taken by fleet as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import one_host

from fleet.intent import load_project, render_state

REPOSITORY = Path(__file__).parents[2]
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]
EXAMPLES = sorted(path.parent for path in (REPOSITORY / "docs" / "examples").glob("*/inventory"))
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.M | re.S)


def blocks() -> Iterator[tuple[str, str]]:
    """Each page's blocks that are a host's data."""
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if re.match(r"(network|libvirt|sysctl|fleet|openvswitch|presets):", match[1]):
                line = page.read_text(encoding="utf-8")[: match.start()].count("\n") + 1
                yield f"{page.name}:{line}", match[1]


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in blocks()])
def test_a_block_of_a_page_is_sound(text: str, tmp_path: Path) -> None:
    """What a page shows as intent is valid intent, but for devices and templates it leaves out."""
    (tmp_path / "templates" / "nft").mkdir(parents=True)
    (tmp_path / "templates" / "nft" / "isolation.nft.j2").write_text("chain c { }\n")
    project = one_host(tmp_path, text)
    assert render_state(project, "h1").resources


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_sound(folder: Path) -> None:
    """Each example is a project whose intent is valid."""
    project = load_project(folder)
    for name in project.inventory.hosts:
        assert render_state(project, name).resources
