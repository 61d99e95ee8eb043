"""Types of fields about the machine itself: its bus, memory and mounts; as ``fields``."""

from __future__ import annotations

import re
from typing import Annotated

from fleet.host.fields import (
    Check,
    check_mac,
    check_number_set,
    check_pci_address,
    check_text,
)


def _function_range(value: str) -> str:
    low, _, high = value.partition("-")
    numbers = [int(each) for each in (low, high or low) if re.fullmatch(r"\d{1,5}", each)]
    if len(numbers) < 2 or not 0 <= numbers[0] <= numbers[1] <= 65535:
        raise ValueError(f"{value!r} is neither a function's number nor a range such as 0-3")
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}-{numbers[1]}"


_UNITS = {"G": 1 << 20, "M": 1 << 10, "K": 1}


def _mount_path(value: str) -> str:
    check_text(value)
    parts = value.split("/")
    if (
        not value.startswith("/")
        or len(value) > 255
        or any(p in ("", ".", "..") for p in parts[1:])
    ):
        raise ValueError(f"{value!r} is no path such as /dev/hugepages1G")
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", value):
        raise ValueError(f"{value!r}: letters, digits and _ . - only")
    return value


def _cpus(value: str) -> str:
    return value if value == "all" else check_number_set(value)


def _cpus_or_none(value: str) -> str:
    return value if value == "none" else check_number_set(value)


def _queue_name(value: str) -> str:
    if not re.fullmatch(r"[rt]x-\d{1,4}", value):
        raise ValueError(f"{value!r} is no queue such as rx-0 or tx-0")
    return f"{value[:3]}{int(value[3:])}"


def _file_mode(value: str) -> str:
    if not re.fullmatch(r"[01]?[0-7]{3}", value):
        raise ValueError(f"{value!r} is no mode such as 0770")
    return f"{int(value, 8):04o}"


def _pci_orcheck_mac(value: str) -> str:
    return check_mac(value) if value.count(":") == 5 else check_pci_address(value)


def _page_size(value: str) -> str:
    found = re.fullmatch(r"(\d{1,7})([KMG])i?B?", value)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    # The smallest of any architecture is arm64's, of 64K; the largest are of 16G.
    if size & (size - 1) or not 64 <= size <= 16 << 20:
        raise ValueError(f"{value!r} is no size of hugepages such as 2M or 1G")
    unit = next(unit for unit, each in _UNITS.items() if size >= each)
    return f"{size // _UNITS[unit]}{unit}"


def _node(value: str) -> str:
    if not re.fullmatch(r"\d{1,4}", value):
        raise ValueError(f"{value!r} is no number of a NUMA node")
    return str(int(value))


def _driver_name(value: str) -> str:
    # A directory of /sys/bus/pci/drivers, and a module's name.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,55}", value):
        raise ValueError(f"{value!r} is no name of a driver such as vfio-pci")
    return value


#: Virtual functions of a NIC: ``3`` or ``0-3``.
FunctionRange = Annotated[str, Check(_function_range)]
DriverName = Annotated[str, Check(_driver_name)]
#: Of hugepages: ``2M``, ``1G``.
PageSize = Annotated[str, Check(_page_size)]
#: A NUMA node's number.
Node = Annotated[str, Check(_node)]
PCIAddressOrMAC = Annotated[str, Check(_pci_orcheck_mac)]
MountPath = Annotated[str, Check(_mount_path)]
FileMode = Annotated[str, Check(_file_mode)]
#: ``all`` CPUs, or a list of them.
CPUs = Annotated[str, Check(_cpus)]
#: A list of CPUs, or ``none``.
CPUsOrNone = Annotated[str, Check(_cpus_or_none)]
#: A queue as /sys calls it: ``rx-0``.
QueueName = Annotated[str, Check(_queue_name)]
