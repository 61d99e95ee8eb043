"""Mounts of hugepages and modules of the kernel; judged by findmnt(8) and /proc/modules."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from here import Here
from namespaces import apply, sh, words

from fleet.host.change import HostError
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import scope_of

SIZES = Path("/sys/kernel/mm/hugepages")
PLACE = "/run/fleet-test/huge"

needs_pages = pytest.mark.skipif(
    not (SIZES / "hugepages-2048kB").is_dir(), reason="the processor has no pages of 2M"
)
#: A module that nothing needs, and that no hardware loads.
MODULE = "dummy"
FOLDER = Path(f"/lib/modules/{os.uname().release}")
needs_modules = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the kernel that runs has no modules"
)


@pytest.fixture
def host() -> Iterator[Here]:
    here = Here()
    yield here
    here.system.shut()
    while options():
        sh("umount", PLACE)


def options() -> set[str]:
    shown = sh("findmnt", "-t", "hugetlbfs", "-no", "OPTIONS", PLACE, check=False)
    return set(shown.strip().split(",")) if shown.strip() else set()


@needs_pages
def test_mounted_and_changed_and_taken_back(host: Here) -> None:
    """Hugepages are mounted where intent says, changed, and gone with the intent."""
    plan = host.roll({f"mount/{PLACE}": {"pagesize": "2M", "mode": "0770", "gid": "7"}})
    assert [words(change).partition(" {")[0] for change in plan.changes] == [
        f"create mount/{PLACE} : None ->"
    ]
    assert {"pagesize=2M", "mode=770", "gid=7"} <= options()
    plan = host.roll({f"mount/{PLACE}": {"pagesize": "2M", "mode": "0750", "gid": "7"}})
    assert plan.changes[0].impact == "blip"
    assert "mode=750" in options()
    host.roll({})
    assert not options()


@needs_pages
def test_revert(host: Here) -> None:
    """A revert unmounts what was not mounted, and mounts as it was what was."""
    for before in (False, True):
        if before:
            host.roll({f"mount/{PLACE}": {"pagesize": "2M", "uid": "3"}})
        was = options()
        plan = host.plan({f"mount/{PLACE}": {"pagesize": "2M", "uid": "9"}})
        taken = json.loads(json.dumps(capture(host.system, scope_of(plan))))
        for change in plan.changes:
            apply(host.system, change)
        assert "uid=9" in options()
        assert restore(host.system, taken) == []
        assert options() == was


@needs_pages
def test_one_that_is_in_use(host: Here) -> None:
    """What somebody stands in is not unmounted, and the error says how to find who."""
    host.roll({f"mount/{PLACE}": {"pagesize": "2M"}})
    plan = host.plan({f"mount/{PLACE}": {"pagesize": "2M", "uid": "9"}})
    handle = os.open(PLACE, os.O_RDONLY)
    try:
        with pytest.raises(HostError, match="busy") as failed:
            apply(host.system, plan.changes[0])
    finally:
        os.close(handle)
    assert "fuser" in failed.value.problem.remedy
    assert options()


def test_a_module_that_is_not_there(host: Here) -> None:
    """A module that the running kernel does not have is a problem of the plan."""
    [problem] = host.plan({"module/no-such-module": {}}).problems
    assert problem.actual == "modprobe would find none"


def has() -> bool:
    return f"\n{MODULE} " in "\n" + Path("/proc/modules").read_text()


@needs_modules
def test_a_module_is_loaded_and_a_revert_unloads_it(host: Here) -> None:
    """A module is loaded; one that a plan loaded and nothing uses goes with the revert."""
    sh("modprobe", "-r", MODULE)
    plan = host.plan({f"module/{MODULE}": {}})
    assert [words(change) for change in plan.changes] == [
        f"update module/{MODULE} loaded: False -> True"
    ]
    taken = json.loads(json.dumps(capture(host.system, scope_of(plan))))
    apply(host.system, plan.changes[0])
    assert has()
    assert restore(host.system, taken) == []
    assert not has()
    host.roll({f"module/{MODULE}": {}})
    assert has()
