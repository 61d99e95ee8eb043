"""Virtual functions of a NIC that has SR-IOV; judged by ip(8) and sysfs.

They run where the machine itself has such a NIC that nothing uses: in a VM of the lab, an igb.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from here import Here
from namespaces import apply, sh, until, words

from fleet.host.change import HostError
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import scope_of

NICS = sorted(
    path.parts[4]
    for path in Path("/sys/class/net").glob("*/device/sriov_totalvfs")
    if path.parts[4] != "eth0"
)
NIC = NICS[0] if NICS else "none"
DEVICE = Path(f"/sys/class/net/{NIC}/device")
ETHERNET = {f"ethernet/{NIC}": {}}
#: igb's NIC is 10:ca on the bus, and its functions are igbvf's.
GUEST, OTHER = "52:54:00:0a:0b:01", "52:54:00:0a:0b:02"

pytestmark = pytest.mark.skipif(not NICS, reason="the machine has no NIC with SR-IOV to try")


class Functions(Here):
    """The machine, and its NIC's functions."""

    def plan_of(self, **functions: Any) -> Any:
        return self.plan({**ETHERNET, f"sriov/{NIC}": functions})

    def set(self, **functions: Any) -> Any:
        return self.roll({**ETHERNET, f"sriov/{NIC}": functions})


@pytest.fixture
def host() -> Iterator[Functions]:
    (DEVICE / "sriov_numvfs").write_text("0")
    here = Functions()
    here.ip(f"link set {NIC} up")
    yield here
    here.system.shut()
    (DEVICE / "sriov_numvfs").write_text("0")


def count() -> int:
    return int((DEVICE / "sriov_numvfs").read_text())


def function(index: int) -> Path:
    return (DEVICE / f"virtfn{index}").resolve()


def driver(index: int) -> str:
    link = function(index) / "driver"
    return link.resolve().name if link.exists() else ""


def device(index: int) -> str:
    return next(iter(os.listdir(function(index) / "net")), "")


def shown() -> list[str]:
    """The lines of ``ip link show`` about functions, a line each."""
    lines = sh("ip", "link", "show", NIC).splitlines()
    return [re.sub(r"\s+", " ", line.strip()) for line in lines if line.strip().startswith("vf ")]


@pytest.mark.parametrize("number", [0, 1, 7])
def test_so_many_functions(host: Functions, number: int) -> None:
    """A NIC gets the number of functions that intent names, with the kernel's drivers."""
    (DEVICE / "sriov_numvfs").write_text("2")
    plan = host.set(virtual_function_count=number)
    assert words(plan.changes[0]) == (f"update sriov/{NIC} virtual-function-count: 2 -> {number}")
    assert plan.changes[0].impact == "blip"
    assert count() == number
    assert [driver(index) for index in range(number)] == ["igbvf"] * number


def test_what_a_function_may_do(host: Functions) -> None:
    """Each setting is as ip shows it; a range sets each, and what is not named stays."""
    host.set(
        virtual_function_count=3,
        virtual_functions={
            "0": {"macaddress": GUEST, "vlan": 100, "qos": 3, "max_tx_rate": 200},
            "1-2": {"spoofchk": False, "trust": True},
        },
    )
    lines = shown()
    assert GUEST in lines[0]
    assert "vlan 100, qos 3" in lines[0]
    assert "max_tx_rate 200Mbps" in lines[0] or "tx rate 200 (Mbps)" in lines[0]
    assert "spoof checking on" in lines[0]
    for line in lines[1:]:
        assert "spoof checking off" in line
        assert "trust on" in line
        assert "vlan" not in line
    # Made without a driver, told its address, and only then driven: it has it from the start.
    assert (function(0) / "net" / device(0) / "address").read_text().strip() == GUEST


def test_drift_and_what_is_named_no_more(host: Functions) -> None:
    """What somebody changed by hand is drift; what intent names no more goes back."""
    wanted: Any = {"0": {"macaddress": GUEST, "vlan": 100, "qos": 3}}
    host.set(virtual_function_count=2, virtual_functions=wanted)
    host.ip(f"link set {NIC} vf 0 vlan 7")
    drift = host.plan_of(virtual_function_count=2, virtual_functions=wanted)
    assert [words(change) for change in drift.changes] == [
        f"update sriov/{NIC} virtual-functions.0: {{'vlan': 7, 'qos': 0}} -> "
        "{'vlan': 100, 'qos': 3}"
    ]
    host.set(virtual_function_count=2, virtual_functions=wanted)
    assert "vlan 100, qos 3" in shown()[0]
    host.set(virtual_function_count=2, virtual_functions={"0": {"macaddress": GUEST}})
    assert "vlan" not in shown()[0]
    assert GUEST in shown()[0]
    host.roll(ETHERNET)
    assert count() == 0


def test_a_driver_for_guests(host: Functions) -> None:
    """A function is vfio-pci's from the start, and goes to another driver and back."""
    host.set(virtual_function_count=2, virtual_functions={"0": {"driver": "vfio-pci"}})
    assert [driver(0), driver(1)] == ["vfio-pci", "igbvf"]
    assert (function(0) / "driver_override").read_text().strip() == "vfio-pci"
    plan = host.set(virtual_function_count=2, virtual_functions={"0-1": {"driver": "igbvf"}})
    assert [words(change) for change in plan.changes] == [
        f"update sriov/{NIC} virtual-functions.0.driver: vfio-pci -> igbvf"
    ]
    assert [driver(0), driver(1)] == ["igbvf", "igbvf"]
    assert (function(0) / "driver_override").read_text().strip() == "(null)"


def test_revert(host: Functions) -> None:
    """A revert gives back number, settings, drivers, and the devices with what they had."""
    (DEVICE / "sriov_numvfs").write_text("3")
    until(lambda: all(driver(index) == "igbvf" for index in range(3)))
    until(lambda: all(device(index) == named(index) for index in range(3)))
    host.ip(f"link set {NIC} vf 0 mac {GUEST} vlan 20 qos 1")
    host.ip(f"link set {NIC} vf 1 trust on spoofchk off")
    # A function's driver asks for its address when it starts.
    (function(0) / "driver/unbind").write_text(function(0).name)
    Path("/sys/bus/pci/drivers_probe").write_text(function(0).name)
    until(lambda: device(0) == named(0))
    port = device(1)
    host.ip(f"link set {port} up")
    host.ip(f"addr add 198.18.7.1/24 dev {port}")
    (function(2) / "driver/unbind").write_text(function(2).name)
    (function(2) / "driver_override").write_text("vfio-pci")
    Path("/sys/bus/pci/drivers_probe").write_text(function(2).name)
    before = [line.partition(" brd")[2] for line in shown()]
    plan = host.plan_of(
        virtual_function_count=7, virtual_functions={"0-6": {"vlan": 5, "driver": "vfio-pci"}}
    )
    taken = capture(host.system, scope_of(plan))
    for change in plan.changes:
        apply(host.system, change)
    assert count() == 7
    assert restore(host.system, taken) == []
    assert count() == 3
    assert [line.partition(" brd")[2] for line in shown()] == before
    assert GUEST in shown()[0]
    assert [driver(index) for index in range(3)] == ["igbvf", "igbvf", "vfio-pci"]
    assert (DEVICE / "sriov_drivers_autoprobe").read_text().strip() == "1"
    assert device(1) == port
    assert host.addresses(port) == ["198.18.7.1/24"]


def named(index: int) -> str:
    """How udev names a function's device (systemd.net-naming-scheme(7))."""
    bus, slot = (int(part, 16) for part in DEVICE.resolve().name.split(".")[0].split(":")[1:])
    return f"enp{bus}s{slot}v{index}"


def test_a_function_that_somebody_holds(host: Functions) -> None:
    """Functions go under nobody: the impact is drain, with the names of those that hold them."""
    host.set(virtual_function_count=2, virtual_functions={"0": {"driver": "vfio-pci"}})
    group = (function(0) / "iommu_group").resolve().name
    with open(f"/dev/vfio/{group}", "rb"):
        plan = host.plan_of(virtual_function_count=4)
        [change] = [c for c in plan.changes if c.what == "virtual-function-count"]
        assert change.impact == "drain"
        assert len(change.guests) == 1
        assert "all of them" in change.reason
    plan = host.plan_of(virtual_function_count=4)
    assert plan.changes[0].impact == "blip"
    port = device(1)
    with_space(port)
    try:
        plan = host.plan_of(virtual_function_count=0)
        assert plan.changes[0].impact == "drain"
        assert plan.changes[0].guests == (f"a namespace's {function(1).name}",)
    finally:
        sh("ip", "netns", "delete", "holder")


def test_a_function_that_a_guest_drives(host: Functions) -> None:
    """Also where it is allowed, the kernel is not asked for what a guest drives: it would wait."""
    host.set(virtual_function_count=2, virtual_functions={"0": {"driver": "vfio-pci"}})
    group = (function(0) / "iommu_group").resolve().name
    plan = host.plan_of(virtual_function_count=4)
    with open("/dev/vfio/vfio", "r+b", 0) as container, open(f"/dev/vfio/{group}", "r+b", 0) as way:
        # VFIO_GROUP_SET_CONTAINER, VFIO_SET_IOMMU (type 1), VFIO_GROUP_GET_DEVICE_FD
        fcntl.ioctl(way, 0x3B68, container.fileno().to_bytes(4, "little"))
        fcntl.ioctl(container, 0x3B66, 1)
        driven = fcntl.ioctl(way, 0x3B6A, bytearray(function(0).name.encode() + b"\0"))
        try:
            with pytest.raises(HostError, match="expected a device that no process drives"):
                apply(host.system, plan.changes[0])
        finally:
            os.close(driven)
    assert count() == 2
    apply(host.system, plan.changes[0])
    assert count() == 4


def with_space(port: str) -> None:
    sh("ip", "netns", "add", "holder")
    sh("ip", "link", "set", port, "netns", "holder")


def test_management_on_a_function(host: Functions) -> None:
    """A function that carries management does not go."""
    (DEVICE / "sriov_numvfs").write_text("1")
    until(lambda: device(0) == named(0))
    port = device(0)
    host.ip(f"link set {port} up")
    host.ip(f"addr add 198.18.7.1/24 dev {port}")
    state = {**ETHERNET, f"sriov/{NIC}": {"virtual_function_count": 2}}
    plan = host.plan(state, management={"addresses": ["198.18.7.1"]})
    [problem] = plan.problems
    assert f"{port} does" in problem.actual


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ({"0": {"min_tx_rate": 100}}, "min-tx-rate"),
        ({"0": {"state": "enable"}}, "state"),
        ({"0": {"vlan": 5, "protocol": "802.1ad"}}, "vlan 5, protocol 802.1ad"),
        ({"0": {"driver": "no-such-driver"}}, "driver"),
        ({"0": {"driver": "virtio-pci"}}, "driver"),
    ],
)
def test_what_the_driver_refuses(host: Functions, functions: dict[str, Any], said: str) -> None:
    """What the driver does not take fails with its name and the remedy, and goes back."""
    host.set(virtual_function_count=1)
    until(lambda: device(0) == named(0))
    plan = host.plan_of(virtual_function_count=1, virtual_functions=functions)
    assert not plan.problems
    taken = capture(host.system, scope_of(plan))
    assert len(plan.changes) == 1
    with pytest.raises(HostError, match=said) as failed:
        apply(host.system, plan.changes[0])
    assert failed.value.problem.remedy
    assert restore(host.system, taken) == []
    assert driver(0) == "igbvf"


def test_what_the_nic_has_not(host: Functions) -> None:
    """More functions than the card has, or an embedded switch, is a problem of the plan."""
    [problem] = host.plan_of(virtual_function_count=8).problems
    assert (problem.what, problem.actual) == ("virtual-function-count", f"{NIC} has at most 7")
    [problem] = host.plan_of(virtual_functions={"0": {"vlan": 1}}).problems
    assert problem.remedy == "write virtual-function-count: 1"
    [problem] = host.plan_of(embedded_switch_mode="switchdev").problems
    assert "no embedded switch" in problem.actual
    other = {"ethernet/eth0": {}, "sriov/eth0": {"virtual_function_count": 1}}
    [problem] = host.plan(other).problems
    assert problem.expected == "a NIC with SR-IOV"
