"""Interrupts of queues on a fake of /proc and /sys, for what a machine's own NICs do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from observed import Observed

from fleet.host.change import Change, HostError
from fleet.host.kernel.system import System
from fleet.host.kinds import interrupts
from fleet.host.planning.ledger import Entry

#: A virtio NIC: two interrupts of each queue, and one of its configuration.
SHOWN = """\
           CPU0       CPU1
 39:          0          0  PCI-MSI 0-edge      virtio4-config
 40:          0          0  PCI-MSI 1-edge      virtio4-input.0
 41:          0          0  PCI-MSI 2-edge      virtio4-output.0
 42:          0          0  PCI-MSI 3-edge      virtio4-input.1
 43:          0          0  PCI-MSI 4-edge      virtio4-output.1
NMI:          0          0   Non-maskable interrupts
"""
BEFORE = {"39": "0-1", "40": "0", "41": "1", "42": "0-1", "43": "1"}


@pytest.fixture
def system(tmp_path: Path) -> System:
    (tmp_path / "sys/class/net/e0/device").mkdir(parents=True)
    for number, text in BEFORE.items():
        (tmp_path / f"sys/class/net/e0/msi_irqs/{number}").mkdir(parents=True)
        (tmp_path / f"proc/irq/{number}").mkdir(parents=True)
        (tmp_path / f"proc/irq/{number}/smp_affinity_list").write_text(text + "\n")
    (tmp_path / "proc/interrupts").write_text(SHOWN)
    made = System(root=str(tmp_path))
    # A file of /proc is written whole; one of a disk keeps what was behind it.
    made.write = lambda path, text: Path(made.root + path).write_text(text)  # type: ignore[assignment, method-assign, return-value]
    return made


def now(system: System) -> dict[str, str]:
    folder = Path(system.root) / "proc/irq"
    return {n: (folder / n / "smp_affinity_list").read_text().split()[0] for n in BEFORE}


def observed(system: System) -> Any:
    asked = {"interrupts e0": interrupts.read(system, "e0")}
    return Observed({"links": {"e0": {}}, "asked": asked})


def test_both_interrupts_of_a_queue_go_back_to_their_own_cpus(system: System) -> None:
    """A queue's two interrupts may have had different CPUs, and each gets its own back."""
    resource: Any = Entry(kind="interrupts", name="e0", spec={"cpus": "0-1"})
    before = interrupts.original(resource, observed(system))
    place = Change(kind="interrupts", name="e0", touches=("e0",), after={"cpus": "0-1"})
    interrupts.apply(system, place)
    assert now(system) == {"39": "0-1", "40": "0", "41": "0", "42": "1", "43": "1"}
    entry = Entry(kind="interrupts", name="e0", spec={"cpus": "0-1"}, before=before)
    [change] = interrupts.remove(entry, observed(system))
    assert change.after == {"named": {"virtio4-output.0": "1", "virtio4-input.1": "0-1"}}
    interrupts.apply(system, change)
    assert now(system) == BEFORE


def test_one_that_the_kernel_keeps(system: System) -> None:
    """A driver may place its interrupts for good: the error names the queue and the remedy."""
    file = Path(system.root) / "proc/irq/42/smp_affinity_list"
    change = Change(kind="interrupts", name="e0", touches=("e0",), after={"queues": {"1": "0"}})
    real = system.write

    def write(path: str, text: str) -> None:
        if path.endswith("/42/smp_affinity_list"):
            raise OSError(5, "Input/output error")  # IRQD_AFFINITY_MANAGED, kernel/irq/proc.c
        real(path, text)

    system.write = write  # type: ignore[method-assign]
    with pytest.raises(HostError, match="interrupt 42 of queue 1 on CPUs 0") as failed:
        interrupts.apply(system, change)
    assert "managed" in failed.value.problem.remedy
    assert file.read_text() == "0-1\n"
