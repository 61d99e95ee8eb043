"""The tests of kinds that this machine's kernel lacks, run inside a host whose kernel has them."""

from __future__ import annotations

import base64
import io
import re
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from machine import Machine

pytestmark = pytest.mark.timeout(1500)

ROOT = Path(__file__).parents[2]
#: What the tests import; what these require comes along.
PACKAGES = ("pytest", "pytest-timeout", "hypothesis", "pydantic", "jinja2", "pyyaml", "pyroute2")
TESTS = (
    *(f"tests/kernel/test_kind_{kind}.py" for kind in ("vlan", "dummy", "bond", "vrf")),
    "tests/kernel/test_bridge_vlans.py",
    *(
        f"tests/kernel/test_kind_{kind}.py"
        for kind in ("sriov", "hugepages", "driver", "mount", "interrupts", "steering")
    ),
)


def closure(names: tuple[str, ...]) -> set[str]:
    """The distributions that some need, themselves among them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.split(r"[^A-Za-z0-9_.-]", waiting.pop())[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another system or Python
        found.add(name)
        waiting += [need for need in needs if "extra ==" not in need]
    return found


def suite() -> bytes:
    """The tests, what they test and what they run with, as an archive."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz", compresslevel=1, dereference=True) as archive:
        for name in ("fleet", "tests", "pyproject.toml"):
            archive.add(
                ROOT / name, name, filter=lambda each: None if "__pyc" in each.name else each
            )
        for name in sorted(closure(PACKAGES)):
            for file in distribution(name).files or ():
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    archive.add(str(file.locate()), f"packages/{file}")
    return memory.getvalue()


def test_kinds_that_this_kernel_lacks(machine: Machine) -> None:
    """VLANs, bonds and dummy devices are made, changed and reverted, and carry traffic."""
    version = machine.run("python3 -c 'import sys; print(*sys.version_info[:2])'")
    if version != f"{sys.version_info[0]} {sys.version_info[1]}":
        pytest.skip(
            f"the host has Python {version}: compiled packages of this one do not run there"
        )
    unpack = "rm -rf /run/suite; mkdir /run/suite; base64 -d | tar xzf - -C /run/suite"
    machine.run(unpack, base64.b64encode(suite()).decode())
    said = machine.ssh(
        "cd /run/suite && PYTHONPATH=.:packages python3 -m pytest -q -p no:cacheprovider "
        f"--timeout=600 {' '.join(TESTS)} 2>&1; echo exit $?",
        timeout=900,
    )
    assert said is not None
    assert said.strip().endswith("exit 0"), said[-6000:]
    assert "passed" in said
    print(said.strip().splitlines()[-2])
