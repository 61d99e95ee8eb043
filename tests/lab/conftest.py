"""Lets the lab's tests share what they stand on, and gives each test a fleet of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import World, opened


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two hypervisors of one rack, up in a lab of their own, as freshly installed."""
    with opened(tmp_path) as made:
        made.up()
        yield made
