"""Lets the ssh tests share a real sshd whose host has a /var/lib, a /run and users of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server import Host, a_host


@pytest.fixture(scope="session")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Give the host that all tests of a session use."""
    with a_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def host(shared_host: Host) -> Host:
    """Give a host on which nothing of fleet is."""
    shared_host.sh("rm -rf /var/lib/fleet /run/fleet")
    return shared_host
