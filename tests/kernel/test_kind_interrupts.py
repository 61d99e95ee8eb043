"""Interrupts of a NIC's queues, on one that nothing else of the machine uses; judged by /proc."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from here import Here
from namespaces import apply, until, words

from fleet.host.kinds.interrupts import queue_of
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import scope_of

NICS = sorted(
    path.parts[4]
    for path in Path("/sys/class/net").glob("*/device/msi_irqs")
    if path.parts[4] != "eth0" and len(os.listdir(path)) > 2
)
NIC = NICS[0] if NICS else "none"
CPUS = os.cpu_count() or 1

needs_nic = pytest.mark.skipif(
    not NICS or CPUS < 2, reason="the machine has no NIC of several queues to spare"
)


@pytest.fixture
def host() -> Iterator[Here]:
    here = Here()
    here.ip(f"link set {NIC} up")
    until(lambda: len(shown()) > 1)
    for number in numbers():
        Path(f"/proc/irq/{number}/smp_affinity_list").write_text(f"0-{CPUS - 1}")
    yield here
    here.system.shut()


def lines() -> list[list[str]]:
    return [line.split() for line in Path("/proc/interrupts").read_text().splitlines()]


def numbers() -> dict[str, str]:
    """The names of the NIC's interrupts by their numbers, as /proc/interrupts has them."""
    own = os.listdir(f"/sys/class/net/{NIC}/device/msi_irqs")
    return {each[0][:-1]: each[-1] for each in lines() if each and each[0][:-1] in own}


def shown() -> dict[str, str]:
    """The CPUs of each of the NIC's interrupts by its name."""
    return {
        name: Path(f"/proc/irq/{number}/smp_affinity_list").read_text().strip()
        for number, name in numbers().items()
    }


def of_queues(said: dict[str, str]) -> dict[str, str]:
    return {name: cpus for name, cpus in said.items() if name[-1].isdigit() and name != NIC}


def wanted(**spec: Any) -> dict[str, Any]:
    return {f"ethernet/{NIC}": {}, f"interrupts/{NIC}": spec}


@needs_nic
def test_queues_are_spread(host: Here) -> None:
    """Each queue has a CPU of its own, one after the other; the link's interrupt stays."""
    other = {name: cpus for name, cpus in shown().items() if name not in of_queues(shown())}
    plan = host.roll(wanted(cpus=f"0-{CPUS - 1}"))
    assert [change.what for change in plan.changes] == ["affinity"]
    for name, cpus in of_queues(shown()).items():
        assert cpus == str(int(name[-1]) % CPUS), name
    assert other.items() <= shown().items()
    host.roll({f"ethernet/{NIC}": {}})
    assert set(shown().values()) == {f"0-{CPUS - 1}"}


@needs_nic
def test_a_queue_by_its_number_and_drift(host: Here) -> None:
    """A queue that is named has its CPUs, and what somebody moved is put right."""
    spec = {"cpus": "0", "queues": {"1": f"0-{CPUS - 1}"}}
    host.roll(wanted(**spec))
    for name, cpus in of_queues(shown()).items():
        assert cpus == (f"0-{CPUS - 1}" if name.endswith("1") else "0"), name
    number = next(n for n, name in numbers().items() if name.endswith("0"))
    Path(f"/proc/irq/{number}/smp_affinity_list").write_text("1")
    drift = host.plan(wanted(**spec))
    assert [words(c) for c in drift.changes] == [
        f"update interrupts/{NIC} affinity: {{'0': '1'}} -> "
        f"{{'cpus': '0', 'queues': {{'1': '0-{CPUS - 1}'}}}}"
    ]


@needs_nic
def test_revert(host: Here) -> None:
    """A revert gives each interrupt the CPUs it had."""
    host.roll(wanted(cpus="0"))
    before = shown()
    plan = host.plan(wanted(cpus="1"))
    taken = json.loads(json.dumps(capture(host.system, scope_of(plan))))
    apply(host.system, plan.changes[0])
    assert shown() != before
    assert restore(host.system, taken) == []
    assert shown() == before


@needs_nic
def test_a_nic_that_is_down(host: Here) -> None:
    """Drivers ask for interrupts when their NIC comes up: they are placed then."""
    host.ip(f"link set {NIC} down")
    until(lambda: not of_queues(shown()))
    plan = host.roll(wanted(cpus="1"))
    assert [change.what for change in plan.changes][-1] == "affinity"
    assert set(of_queues(shown()).values()) == {"1"}


@needs_nic
def test_other_channels_are_placed_too(host: Here) -> None:
    """A driver that makes its queues anew has new interrupts, which the same plan places."""
    host.roll(wanted(cpus="1"))
    found = host.run("ethtool", "-l", NIC, check=False)
    most = [line.split()[-1] for line in found.splitlines() if line.startswith("Combined")]
    if len(most) < 2 or most[0] in ("n/a", "1"):
        pytest.skip(f"{NIC} has one channel")
    other = "1" if most[1] != "1" else "2"
    plan = host.roll({**wanted(cpus="1"), f"ethtool/{NIC}": {"channels": {"combined": int(other)}}})
    assert [change.what for change in plan.changes] == ["channels", "affinity"]
    assert set(of_queues(shown()).values()) == {"1"}
    host.roll({**wanted(cpus="1"), f"ethtool/{NIC}": {"channels": {"combined": int(most[1])}}})


@needs_nic
def test_what_cannot_be(host: Here) -> None:
    """A CPU or a queue that is not there is a problem of the plan."""
    [problem] = host.plan(wanted(cpus=f"{CPUS}")).problems
    assert problem.actual == f"the host has 0-{CPUS - 1}"
    [problem] = host.plan(wanted(queues={"77": "0"})).problems
    assert problem.expected == f"a queue 77 of {NIC}"


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        ("eth2-TxRx-3", "3"), ("i40e-eth0-TxRx-11", "11"), ("virtio4-input.0", "0"),
        ("virtio4-output.12", "12"), ("mlx5_comp3@pci:0000:01:00.0", "3"), ("eth1-rx-1", "1"),
        ("ens1f0-fp-7", "7"), ("eth0", ""), ("virtio4-config", ""), ("eth1", ""),
        ("mlx5_async0@pci:0000:01:00.0", ""), ("vfio-msi[0](0000:01:00.0)", ""), ("", ""),
    ],
)  # fmt: skip
def test_which_queue_an_interrupt_belongs_to(name: str, queue: str) -> None:
    """Drivers name interrupts in their own ways; what is no queue's is left alone."""
    assert queue_of(name) == queue
