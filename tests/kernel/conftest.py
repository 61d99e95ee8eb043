"""Lets the kernel tests share their helpers, and gives them fresh network namespaces."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pictures import Namespace

_numbers = itertools.count()


@pytest.fixture
def make_namespace() -> Iterator[Callable[[], Namespace]]:
    """Give a maker of namespaces; all of them are gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    made: list[Namespace] = []

    def make() -> Namespace:
        name = f"fleet-test-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        made.append(Namespace(name))
        made[-1].do("ip link set lo up")
        return made[-1]

    try:
        yield make
    finally:
        for namespace in made:
            namespace.system.close()
            subprocess.run(["ip", "netns", "delete", namespace.name], check=False)


@pytest.fixture
def namespace(make_namespace: Callable[[], Namespace]) -> Namespace:
    """Give a fresh namespace with its loopback device up."""
    return make_namespace()
