"""Drivers of PCI devices, on NICs that nothing else of a machine uses; by sysfs and ip(8)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
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

BUS = Path("/sys/bus/pci")


def _is_virtio(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/device").resolve().name.startswith("virtio")


def spare() -> list[str]:
    """NICs on a PCI bus with an IOMMU that are not the first, which is the way in."""
    found = []
    for path in sorted(Path("/sys/class/net").glob("*/device")):
        name = path.parts[4]
        address = re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", str(path.resolve()))
        groups = address and (BUS / "devices" / address[-1] / "iommu_group").exists()
        if groups and name != "eth0":
            found.append(name)
    # DPDK's driver of virtio takes minutes to start on an emulated processor.
    return sorted(found, key=_is_virtio)


NICS = spare()
NIC = NICS[0] if NICS else "none"
PLACE = Path(f"/sys/class/net/{NIC}/device").resolve()
if PLACE.name.startswith("virtio"):
    PLACE = PLACE.parent
ADDRESS = PLACE.name

pytestmark = pytest.mark.skipif(not NICS, reason="the machine has no NIC to spare")


def driver() -> str:
    link = BUS / "devices" / ADDRESS / "driver"
    return link.resolve().name if link.exists() else ""


OWN = driver()
MAC = Path(f"/sys/class/net/{NIC}/address").read_text().strip() if NICS else ""


@pytest.fixture
def host() -> Iterator[Here]:
    here = Here()
    yield here
    here.system.shut()
    device = BUS / "devices" / ADDRESS
    (device / "driver_override").write_text("\n")
    if driver() != OWN:
        if driver():
            (device / "driver/unbind").write_text(ADDRESS)
        (BUS / "drivers_probe").write_text(ADDRESS)
    until(lambda: Path(f"/sys/class/net/{NIC}").exists())


@pytest.mark.parametrize("name", ["address", "mac"])
def test_to_vfio_and_back(host: Here, name: str) -> None:
    """A NIC goes to vfio-pci, is found again without its network device, and comes back."""
    resource = f"driver/{ADDRESS if name == 'address' else MAC}"
    plan = host.roll({resource: {"driver": "vfio-pci"}})
    assert [words(change) for change in plan.changes] == [
        f"update {resource} driver: {OWN} -> vfio-pci"
    ]
    assert plan.changes[0].impact == "blip"
    assert driver() == "vfio-pci"
    assert not Path(f"/sys/class/net/{NIC}").exists()
    assert host.plan({resource: {"driver": "vfio-pci"}}).changes == ()
    host.roll({})
    assert driver() == OWN
    until(lambda: Path(f"/sys/class/net/{NIC}").exists())
    assert (BUS / "devices" / ADDRESS / "driver_override").read_text().strip() == "(null)"


def test_revert(host: Here) -> None:
    """A revert gives the NIC back, with its name and what it had of the network."""
    host.ip(f"link set {NIC} up mtu 1400")
    host.ip(f"addr add 198.18.9.1/24 dev {NIC}")
    host.ip(f"route add 198.18.10.0/24 via 198.18.9.2 dev {NIC}")
    plan = host.plan({f"driver/{ADDRESS}": {"driver": "uio_pci_generic"}})
    assert not plan.problems, plan.problems
    taken = json.loads(json.dumps(capture(host.system, scope_of(plan))))
    for change in plan.changes:
        apply(host.system, change)
    assert driver() == "uio_pci_generic"
    assert restore(host.system, taken) == []
    assert driver() == OWN
    assert host.addresses(NIC) == ["198.18.9.1/24"]
    assert host.link(NIC)["mtu"] == 1400
    assert "198.18.10.0/24 via 198.18.9.2" in sh("ip", "route")
    host.ip(f"addr flush dev {NIC}")


def test_what_carries_management(host: Here) -> None:
    """The device that management runs through keeps its driver, also below a bridge."""
    host.ip("link add brm type bridge")
    try:
        host.ip(f"link set {NIC} master brm")
        host.ip("addr add 198.18.9.1/24 dev brm")
        wanted = {f"driver/{ADDRESS}": {"driver": "vfio-pci"}}
        [problem] = host.plan(wanted, management={"addresses": ["198.18.9.1"]}).problems
        assert problem.expected == "a device that does not carry management"
        assert problem.actual == f"{NIC} does"
    finally:
        host.ip("link delete brm")


def test_a_mounted_disk(host: Here) -> None:
    """The device of a disk that is mounted keeps its driver."""
    source = sh("findmnt", "-no", "SOURCE", "/").strip().rpartition("/")[2]
    way = os.path.realpath(f"/sys/class/block/{source}")
    found = re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", way)
    if not found:
        pytest.skip("the machine's root is on no PCI device")
    [problem] = host.plan({f"driver/{found[-1]}": {"driver": "vfio-pci"}}).problems
    assert problem.actual == f"{source} on /"


def test_what_cannot_be(host: Here) -> None:
    """No such device, no such driver, and a bridge of the bus are told, and nothing happens."""
    [problem] = host.plan({"driver/0000:7f:1f.7": {"driver": "vfio-pci"}}).problems
    assert problem.actual == "no such device"
    plan = host.plan({f"driver/{ADDRESS}": {"driver": "no-such-driver"}})
    with pytest.raises(HostError, match="no driver no-such-driver"):
        apply(host.system, plan.changes[0])
    assert driver() == OWN
    bridges = [p for p in (BUS / "devices").glob("*/class") if p.read_text().startswith("0x0604")]
    if bridges:
        name = bridges[0].parent.name
        [problem] = host.plan({f"driver/{name}": {"driver": "vfio-pci"}}).problems
        assert "is a bridge" in problem.actual


@pytest.mark.skipif(not shutil.which("dpdk-testpmd"), reason="needs dpdk-testpmd: dpdk-dev")
def test_testpmd_runs_on_what_was_bound(host: Here) -> None:
    """DPDK's own test program finds the NIC on fleet's hugepages, starts it and ends."""
    resources: dict[str, Any] = {
        "hugepages/2M": {"pages": "64"},
        f"driver/{ADDRESS}": {"driver": "vfio-pci"},
    }
    host.roll(resources)
    argv = ["dpdk-testpmd", "-l", "0,1", "-a", ADDRESS, "--", "--total-num-mbufs=2048"]
    done = subprocess.run(
        ["timeout", "-s", "INT", "20", *argv, "--auto-start", "--no-mlockall", "--stats-period=5"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert f"({ADDRESS})" in done.stdout or "Port 0:" in done.stdout, done.stdout + done.stderr
    assert MAC.upper() in done.stdout
    host.roll({})
    assert driver() == OWN
