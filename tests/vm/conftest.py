"""Hosts with a kernel of their own: their tests run where they are asked for, with ``-m vm``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from machine import Machine, image, missing


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A boot takes a minute or two: leave these tests out unless their marker is named."""
    here = Path(__file__).parent
    asked = "vm" in str(config.option.markexpr)
    every = "vm_all" in str(config.option.markexpr)
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("vm")
            if not asked:
                item.add_marker(pytest.mark.skip(reason="boots machines: ask for it with -m vm"))
            elif not every and item.get_closest_marker("vm_all"):
                item.add_marker(pytest.mark.skip(reason="takes long: make test-vm-all runs it"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A hypervisor as it was installed, up, with systemd-networkd."""
    why = missing()
    if why:
        pytest.skip(why)
    built = image()
    assert built is not None
    made = Machine(tmp_path_factory.mktemp("machine"), built)
    try:
        made.up()
        yield made
    finally:
        made.down()
