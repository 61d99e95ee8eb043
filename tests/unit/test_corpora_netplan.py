"""netplan's own examples, pasted under ``network:``, are taken or refused for a reason."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from projects import one_host

from fleet.errors import IntentError
from fleet.intent import render_state

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora") / "netplan"
FILES = sorted(FOLDER.glob("*.yaml")) if FOLDER.is_dir() else []

pytestmark = pytest.mark.corpora
REASONS = ("cannot apply", "is refused", "systemd-networkd", "is not one of")


@pytest.mark.skipif(not FILES, reason="corpora/netplan is not here; set FLEET_CORPORA")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_netplan_file_is_taken_or_refused_by_name(path: Path, tmp_path: Path) -> None:
    """Each file becomes resources and manager's keys, or errors that say what is not applied."""
    project = one_host(tmp_path, textwrap.dedent(path.read_text()), hostname="host.example")
    try:
        state = render_state(project, "h1")
    except IntentError as error:
        for each in (error, *error.others):
            print(f"{path.name}: refused: {each.path}: {each.message}")
            assert any(reason in each.message for reason in REASONS), str(each)
        return
    assert state.resources
    left = [
        f"{name}.{key}"
        for devices in state.manager.values()
        for name, keys in devices.items()
        for key in keys
    ]
    print(f"{path.name}: applied: {', '.join(r.key for r in state.resources)}; left: {left}")
