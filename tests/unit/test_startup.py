"""What a command that connects has imported when it connects: the speed of a start, as a count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: PEP 578: the event is raised before the kernel is asked, so no host is contacted.
STOPPED = """\
import json, os, sys

def stop(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        os.write(1, json.dumps(sorted(sys.modules)).encode())
        os._exit(75)

sys.addaudithook(stop)
from fleet.cli import main
sys.exit(main(sys.argv[1:]))
"""
FLOOR = "import asyncssh, json, sys, typer; print(json.dumps(sorted(sys.modules)))"
#: What changing hosts needs, or the record, or a terminal that watches for long.
LATER = (
    "fleet.plan_file",
    "fleet.record.reader",
    "fleet.record.store",
    "fleet.record.writer",
    "fleet.rollout.again",
    "fleet.rollout.course",
    "fleet.rollout.resume",
    "fleet.rollout.rolling",
    "fleet.rollout.transactions",
    "fleet.rollout.undo",
    "pyroute2",
    "rich",
    "ruamel.yaml.main",
    "sqlalchemy",
)


def imported(*words: str) -> set[str]:
    """Return the modules that a Python has imported when it is about to connect, or ends."""
    done = subprocess.run(
        [sys.executable, "-c", *words], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode in (0, 75), done.stderr
    modules: list[str] = json.loads(done.stdout)
    return set(modules)


@pytest.fixture(scope="module")
def connecting() -> set[str]:
    """What ``fleet audit`` of this repository's inventory has imported at its first connect."""
    return imported(STOPPED, "audit", "--project", str(ROOT))


def test_an_audit_connects_before_it_imports_what_it_may_not_need(connecting: set[str]) -> None:
    """Neither the record and its SQLAlchemy nor what only a rollout does is there yet."""
    assert not connecting & set(LATER)


def test_only_the_kinds_of_the_inventory_are_imported(connecting: set[str]) -> None:
    """A kind that no host has costs nothing."""
    kinds = {name for name in connecting if name.startswith("fleet.host.kinds.")}
    assert {name.rpartition(".")[2] for name in kinds} <= {
        "bridge",
        "ethernet",
        "route",
        "rule",
        "sysctl",
        "veth",
    }


def test_a_start_imports_little_more_than_it_must(connecting: set[str]) -> None:
    """The way to the first connect has 1.75 times the modules of ``import asyncssh, typer``."""
    assert len(connecting) <= 1.75 * len(imported(FLOOR))
