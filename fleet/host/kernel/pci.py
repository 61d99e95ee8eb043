"""What hangs on a PCI device: its network devices, its disks, and who has it through vfio."""

from __future__ import annotations

import errno
import os

from fleet.host.kernel import binding
from fleet.host.kernel.binding import BUS, place_of, target_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Words = dict[str, Any]

#: Which device had a MAC address before its network device went: of this boot, so in /run.
REMEMBERED = "/run/fleet/pci-addresses"
_CLASSES = {"0x01": "storage", "0x02": "network", "0x06": "bridge"}


def read(system: System) -> dict[str, Words]:
    """Return the PCI devices by address.

    Each has ``driver``, ``override``, ``sort`` (of storage, network, bridge, or empty), ``group``
    (its IOMMU group, empty without one), ``devices`` (network devices here) and ``handles`` (the
    files that hold it).
    """
    folder = f"{system.root}{BUS}/devices"
    found = {}
    for address in _list(folder):
        place = place_of(address)
        group = target_of(system, place + "/iommu_group")
        devices = network_devices(system, address)
        handles = [f"/dev/vfio/{group}"] if group else []
        handles += [f"/dev/vfio/devices/{n}" for n in _list(f"{folder}/{address}/vfio-dev")]
        found[address] = {
            "driver": binding.driver_of(system, address),
            "override": binding.override_of(system, address),
            "sort": _CLASSES.get((system.read(place + "/class") or "")[:4], ""),
            "group": group,
            "devices": devices,
            "handles": handles,
        }
    return found


def _list(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def network_devices(system: System, address: str) -> list[str]:
    """Return the network devices of a PCI device; a virtio NIC's are a level further down."""
    place = f"{system.root}{place_of(address)}"
    below = [f"{place}/{name}/net" for name in _list(place) if name.startswith("virtio")]
    return [name for folder in (f"{place}/net", *below) for name in _list(folder)]


def mounted_disks(system: System, address: str) -> list[str]:
    """Return what of a PCI device's disks is in use, as ``sda1 on /boot``.

    A disk is in use where it, a part of it, or what is made of it (dm, md) is mounted, or swapped
    to.
    """
    numbers: dict[str, str] = {}
    for line in (system.read("/proc/self/mountinfo") or "").splitlines():
        words = line.split()
        numbers.setdefault(words[2], words[4])
    swapped = {
        os.path.realpath(system.root + line.split()[0]).rpartition("/")[2]
        for line in (system.read("/proc/swaps") or "").splitlines()[1:]
        if line.startswith("/dev/")
    }
    folder = f"{system.root}/sys/class/block"
    found = []
    for name in _list(folder):
        where = numbers.get((system.read(f"/sys/class/block/{name}/dev") or "").strip(), "")
        where = where or ("swap" if name in swapped else "")
        if where and any(f"/{address}/" in way for way in _ways(folder, name)):
            found.append(f"{name} on {where}")
    return found


def _ways(folder: str, name: str, depth: int = 8) -> list[str]:
    """Return the paths of a block device and of all that it is made of."""
    found = [os.path.realpath(f"{folder}/{name}")]
    if depth:
        for below in _list(f"{folder}/{name}/slaves"):
            found += _ways(folder, below, depth - 1)
    return found


def remembered(system: System) -> dict[str, str]:
    """Return the PCI addresses of this boot's bound devices, by MAC address."""
    said = system.read(REMEMBERED) or ""
    pairs = (line.split() for line in said.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def remember(system: System, macs: list[str], address: str) -> None:
    """Keep which device had these addresses; raises OSError."""
    pairs = {**remembered(system), **dict.fromkeys(macs, address)}
    path = system.root + REMEMBERED
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write("".join(f"{mac} {place}\n" for mac, place in sorted(pairs.items())))
        os.replace(path + ".new", path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{path}: {error.strerror}") from error
