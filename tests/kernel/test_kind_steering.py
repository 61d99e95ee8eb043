"""Which CPUs work on a device's packets: whole transactions, judged by sysfs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import STATE, HelperFailed, Hypervisor, applied, hypervisor

from fleet.host.kernel import cpus

needs_rps = pytest.mark.skipif(
    not os.path.exists("/sys/class/net/lo/queues/rx-0/rps_cpus"),
    reason="the kernel has no receive packet steering",
)
needs_two = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the machine has one CPU")


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    with hypervisor() as made:
        made.ip("link add e0 numrxqueues 4 numtxqueues 4 type veth peer name e1")
        made.sh("ethtool", "-L", "e0", "rx", "4", "tx", "4")
        made.ip("link set e0 up")
        made.ip("link set e1 up")
        yield made


def state(**spec: Any) -> dict[str, Any]:
    more = {"kind": "steering", "name": "e0", "spec": spec}
    return {**STATE, "resources": [*STATE["resources"], more]}


def said(host: Hypervisor, word: str) -> list[str]:
    """A word of each queue, in the queues' order."""
    start = "tx" if word.startswith("xps") else "rx"
    text = host.sh("sh", "-c", f"cat /sys/class/net/e0/queues/{start}-*/{word}")
    return [line.lstrip("0,") or "0" for line in text.split()]


@needs_rps
@needs_two
def test_all_queues_and_single_ones(host: Hypervisor) -> None:
    """Every receive queue has the CPUs and flows that intent names, a single one its own."""
    applied(
        host,
        deadline=20,
        state=state(rps_cpus="0-1", rps_flow_cnt=1000, queues={"rx-2": {"rps_cpus": "1"}}),
    )
    assert said(host, "rps_cpus") == ["3", "3", "2", "3"]
    assert said(host, "rps_flow_cnt") == ["1024"] * 4


@needs_rps
@needs_two
def test_new_queues_are_steered_too(host: Hypervisor) -> None:
    """A plan that gives a device more queues sets them as it does the others."""
    host.sh("ethtool", "-L", "e0", "rx", "2")
    host.sh("sh", "-c", "for n in 0 1; do echo 2 > /sys/class/net/e0/queues/rx-$n/rps_cpus; done")
    wanted = state(rps_cpus="1")
    wanted["resources"].append({"kind": "ethtool", "name": "e0", "spec": {"channels": {"rx": 4}}})
    applied(host, deadline=20, state=wanted)
    assert said(host, "rps_cpus") == ["2"] * 4


@needs_rps
@needs_two
def test_nobody_confirms(host: Hypervisor) -> None:
    """When the deadline passes, each queue has what it had."""
    host.sh("sh", "-c", "echo 2 > /sys/class/net/e0/queues/rx-1/rps_cpus")
    before = [said(host, word) for word in ("rps_cpus", "xps_cpus", "rps_flow_cnt")]
    applied(host, deadline=3, state=state(rps_cpus="0", xps_cpus="1", rps_flow_cnt=64))
    assert said(host, "rps_cpus") == ["1"] * 4
    assert said(host, "xps_cpus") == ["2"] * 4
    assert host.wait_for_outcome(seconds=20)["state"] == "REVERTED"
    assert [said(host, word) for word in ("rps_cpus", "xps_cpus", "rps_flow_cnt")] == before


@needs_rps
def test_what_cannot_be(host: Hypervisor) -> None:
    """A queue or a CPU that is not there is refused, and nothing changes."""
    for spec, actual in (
        ({"rps_cpus": "0,4000"}, "the host has "),
        ({"queues": {"rx-9": {"rps_cpus": "0"}}}, "it has rx-0, rx-1, rx-2, rx-3, tx-0"),
    ):
        with pytest.raises(HelperFailed) as failed:
            applied(host, deadline=20, state=state(**spec))
        assert actual in failed.value.problems[0]["actual"]
    assert said(host, "rps_cpus") == ["0"] * 4


@pytest.mark.parametrize(
    ("text", "mask"),
    [("0", "1"), ("0-3,8", "10f"), ("31", "80000000"), ("32", "1,00000000"), ("", "0"),
     ("0,35", "8,00000001"), ("64-65", "3,00000000,00000000")],
)  # fmt: skip
def test_masks(text: str, mask: str) -> None:
    """Lists and masks of any number of CPUs are each other's."""
    numbers = cpus.members(text)
    assert cpus.mask(numbers) == mask
    assert cpus.of_mask(mask) == numbers
