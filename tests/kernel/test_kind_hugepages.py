"""Hugepages of a real kernel, judged by /proc/meminfo and sysfs; nodes by a fake of sysfs."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import Space, apply, space, words

from fleet.host.change import HostError
from fleet.host.kernel.observation import Observation
from fleet.host.kernel.system import System
from fleet.host.planning.plan import plan_from
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.state import decode_state
from fleet.host.transactions.prepare import scope_of

PLACE = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
MAP_HUGETLB = 0x40000

pytestmark = pytest.mark.skipif(not PLACE.is_dir(), reason="the processor has no pages of 2M")


def count() -> int:
    return int((PLACE / "nr_hugepages").read_text())


@pytest.fixture
def host() -> Iterator[Space]:
    before = count()
    with space() as made:
        # The machine's own: a namespace has none.
        own, made.system = made.system, System()
        yield made
        made.system.shut()
        made.system = own
    (PLACE / "nr_hugepages").write_text(str(before))


def test_pages_come_and_go(host: Space) -> None:
    """A host gets the number it shall have, more and fewer, and what it had at the end."""
    (PLACE / "nr_hugepages").write_text("3")
    plan = host.roll({"hugepages/2M": {"pages": "8"}})
    assert [words(change) for change in plan.changes] == ["update hugepages/2M pages: 3 -> 8"]
    assert count() == 8
    assert "HugePages_Total:       8" in Path("/proc/meminfo").read_text()
    host.roll({"hugepages/2M": {"pages": "5"}})
    assert count() == 5
    (PLACE / "nr_hugepages").write_text("1")
    assert [words(c) for c in host.plan({"hugepages/2M": {"pages": "5"}}).changes] == [
        "update hugepages/2M pages: 1 -> 5"
    ]
    host.roll({})
    assert count() == 3


def test_revert(host: Space) -> None:
    """A revert gives back the number that was."""
    (PLACE / "nr_hugepages").write_text("2")
    plan = host.plan({"hugepages/2M": {"pages": "9"}})
    taken = capture(host.system, scope_of(plan))
    for change in plan.changes:
        apply(host.system, change)
    assert count() == 9
    assert restore(host.system, taken) == []
    assert count() == 2


def test_pages_that_are_in_use(host: Space) -> None:
    """What a process holds is lent to it until it ends, and the plan says so."""
    (PLACE / "nr_hugepages").write_text("4")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB
    with mmap.mmap(-1, 3 << 21, flags) as held:
        for page in range(3):
            held[page << 21] = 1
        plan = host.roll({"hugepages/2M": {"pages": "1"}})
        assert plan.changes[0].reason.startswith("2 more are in use")
        assert int((PLACE / "surplus_hugepages").read_text()) == 2
        assert held[0] == 1
    assert count() == 1


@pytest.mark.parametrize(
    ("name", "pages", "expected", "actual"),
    [
        ("2M", "4000000", "4000000 more pages of 2M: 8000000 MiB", "MiB of memory are available"),
        ("4M", "1", "pages of 4M", "the processor has 2M"),
    ],
)
def test_what_the_host_cannot_have(
    host: Space, name: str, pages: str, expected: str, actual: str
) -> None:
    """More than there is memory, or a size of another processor, is a problem of the plan."""
    (PLACE / "nr_hugepages").write_text("0")
    [problem] = host.plan({f"hugepages/{name}": {"pages": pages}}).problems
    assert problem.expected == expected
    assert actual in problem.actual
    assert problem.remedy


def fake(root: Path) -> Path:
    """A host of two nodes as sysfs shows it; its files take any number."""
    for place in ("kernel/mm", "devices/system/node/node0", "devices/system/node/node1"):
        pages = root / "sys" / place / "hugepages/hugepages-1048576kB"
        pages.mkdir(parents=True)
        for word in ("nr", "free", "surplus"):
            (pages / f"{word}_hugepages").write_text("0\n")
    (root / "proc/sys/vm").mkdir(parents=True)
    (root / "proc/sys/vm/compact_memory").write_text("")
    (root / "proc/meminfo").write_text("MemAvailable: 99999999 kB\n")
    return root / "sys/devices/system/node"


def planned(root: Path, spec: dict[str, Any]) -> tuple[System, Any]:
    system = System(root=str(root))
    resource = {"namespace": "", "kind": "hugepages", "name": "1G", "spec": spec}
    state = decode_state({"host": "h", "resources": [resource]})
    plan = plan_from(state, {}, Observation(system))
    system.shut()
    return system, plan


def test_each_node_has_its_own(tmp_path: Path) -> None:
    """Pages of a node are written to the node's file, and a node that is not there is told."""
    nodes = fake(tmp_path)
    system, plan = planned(tmp_path, {"nodes": {"0": "2", "1": "1"}})
    assert [words(change) for change in plan.changes] == [
        "update hugepages/1G nodes.0: 0 -> 2",
        "update hugepages/1G nodes.1: 0 -> 1",
    ]
    for change in plan.changes:
        apply(system, change)
    found = [(nodes / f"node{n}/hugepages/hugepages-1048576kB/nr_hugepages") for n in (0, 1)]
    assert [path.read_text() for path in found] == ["2\n", "1\n"]
    _, plan = planned(tmp_path, {"nodes": {"7": "1"}})
    assert plan.problems[0].actual == "only 0, 1"


def test_a_shortfall_is_told_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is in pieces the kernel finds fewer pages, and the error says how many."""
    fake(tmp_path)
    system, plan = planned(tmp_path, {"nodes": {"1": "8"}})
    wrote: list[str] = []

    def write(path: str, text: str) -> None:
        wrote.append(path)
        if path.endswith("nr_hugepages"):
            (tmp_path / path[1:]).write_text("5\n")

    monkeypatch.setattr(system, "write", write)
    with pytest.raises(HostError, match="found 5: 3 too few") as failed:
        apply(system, plan.changes[0])
    assert "name at most 5" in failed.value.problem.remedy
    assert "/proc/sys/vm/compact_memory" in wrote
