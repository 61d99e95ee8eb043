"""What all tests share: which of them need root."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# How long an example takes is the machine's business: it may be busy with something else.
hypothesis.settings.register_profile("fleet", deadline=None)
hypothesis.settings.load_profile("fleet")
# Started in the background by a shell, a process ignores Ctrl-C, and so does what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What an operator has exported for the program is not for what tests it.
for name in ("FLEET_LAB", "FLEET_PROJECT", "FLEET_RECORD"):
    os.environ.pop(name, None)

#: Folders whose tests make namespaces, and their markers.
ROOTED = {"kernel": "kernel", "lab": "lab"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and skip those that need root where there is none."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        if folder in ROOTED:
            item.add_marker(ROOTED[folder])
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: it makes namespaces"))
