"""Governors on a fake of sysfs, for no processor here lets its frequency be set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.host import registry
from fleet.host.change import HostError
from fleet.host.kernel.observation import Observation
from fleet.host.kernel.system import System
from fleet.host.planning.plan import committed_entries, plan_from
from fleet.host.reverting.restore_values import read_values, value_differences
from fleet.host.state import decode_state
from fleet.host.transactions.prepare import scope_of


def fake(root: Path, count: int = 4) -> Path:
    """A host's processors, each with two governors to choose from."""
    place = root / "sys/devices/system/cpu"
    for number in range(count):
        folder = place / f"cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("schedutil\n")
        (folder / "scaling_available_governors").write_text("performance schedutil\n")
    (place / "cpufreq").mkdir(parents=True, exist_ok=True)
    return place


class Host:
    """The fake, and fleet on it."""

    def __init__(self, root: Path) -> None:
        self.place = fake(root)
        self.system = System(root=str(root))
        self.ledger: Any = {}

    def plan(self, resources: dict[str, Any]) -> Any:
        listed = [
            {"namespace": "", "kind": "governor", "name": name, "spec": {"governor": value}}
            for name, value in resources.items()
        ]
        self.state = decode_state({"host": "h", "resources": listed})
        self.seen = Observation(self.system)
        plan = plan_from(self.state, self.ledger, self.seen)
        self.system.shut()
        return plan

    def roll(self, resources: dict[str, Any]) -> Any:
        plan = self.plan(resources)
        assert not plan.problems, plan.problems
        for change in plan.changes:
            registry.load(change.kind).apply(self.system, change)
        self.ledger = committed_entries(self.state, self.ledger, plan, self.seen)
        assert self.plan(resources).changes == ()
        return plan

    def now(self) -> list[str]:
        files = sorted(self.place.glob("cpu*/cpufreq/scaling_governor"))
        return [file.read_text().split()[0] for file in files]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_all_and_some(host: Host) -> None:
    """All CPUs, or those of a list, get their governor, and what they had when intent goes."""
    plan = host.roll({"all": "performance"})
    assert (plan.changes[0].before, plan.changes[0].after) == (
        {"schedutil": "0-3"},
        {"performance": "0-3"},
    )
    assert host.now() == ["performance"] * 4
    host.roll({})
    assert host.now() == ["schedutil"] * 4
    host.roll({"1-2": "performance"})
    assert host.now() == ["schedutil", "performance", "performance", "schedutil"]


def test_revert(host: Host) -> None:
    """What a plan will write is in its snapshot, CPU by CPU."""
    (host.place / "cpu2/cpufreq/scaling_governor").write_text("performance\n")
    plan = host.plan({"all": "performance"})
    paths = scope_of(plan)["values"]
    before = {"values": read_values(host.system, paths)}
    for change in plan.changes:
        registry.load(change.kind).apply(host.system, change)
    after = {"values": read_values(host.system, paths)}
    found = value_differences(before, after)
    assert sorted(path.split("/")[5] for path in found) == ["cpu0", "cpu1", "cpu3"]
    assert set(found.values()) == {("schedutil", "performance")}


def test_what_cannot_be(host: Host, tmp_path: Path) -> None:
    """A governor or a CPU that is not there, and a host without any, are problems of the plan."""
    [problem] = host.plan({"all": "powersave"}).problems
    assert problem.actual == "the driver has performance, schedutil"
    [problem] = host.plan({"2-9": "performance"}).problems
    assert problem.actual == "only 0-3 have a governor"
    for file in host.place.glob("cpu*/cpufreq/scaling_governor"):
        file.unlink()
    [problem] = host.plan({"all": "performance"}).problems
    assert problem.actual == "they have no governor: no driver of cpufreq"


def test_a_driver_that_refuses(host: Host) -> None:
    """What the kernel refuses while it is applied names the CPU."""
    plan = host.plan({"all": "performance"})
    file = host.place / "cpu3/cpufreq/scaling_governor"
    file.unlink()
    file.mkdir()
    with pytest.raises(HostError, match="CPU 3 to take the governor performance"):
        registry.load("governor").apply(host.system, plan.changes[0])
