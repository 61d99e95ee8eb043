"""SR-IOV: a NIC's virtual functions and what its driver keeps for each of them.

The count is in sysfs (PCI/pci-iov-howto), a function's settings are RTM_NEWLINK attributes of the
NIC itself (ip-link(8), ``vf``), the mode of the embedded switch is devlink's (devlink-dev(8)).
"""

from __future__ import annotations

import errno
import posix
import sys
import time

from fleet.host.kernel import binding, generic
from fleet.host.kernel.link_attributes import GETLINK, header
from fleet.host.kernel.netlink import (
    attribute_list,
    attributes,
    mac_of,
    nest,
    number,
    pack,
    pack_text,
    pack_u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Words = dict[str, Any]

SETLINK = 19
_NAME, _LIST, _MASK, _ONE = 3, 22, 29, 1
#: RTEXT_FILTER_VF, and RTEXT_FILTER_SKIP_STATS: counters of 128 functions overflow the attribute.
_WITH_FUNCTIONS = 1 | 1 << 3
#: include/uapi/linux/if_link.h, IFLA_VF_*
_MAC, _VLAN, _SPOOFCHK, _STATE, _RATE, _TRUST, _VLANS = 1, 2, 4, 5, 6, 9, 12
_UNKNOWN = 0xFFFFFFFF
_PROTOCOLS = {0x8100: "802.1q", 0x88A8: "802.1ad"}
STATES = ("auto", "enable", "disable")
#: include/uapi/linux/devlink.h
_MODE_GET, _MODE_SET, _BUS, _DEVICE, _MODE = 29, 30, 1, 2, 25
MODES = ("legacy", "switchdev")
#: Not of this device, this driver or this kernel.
_NOTHING = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL, errno.ENOENT)

#: Seconds that making functions may take, and more for each of them: drivers of servers' NICs need
#: up to half a second for one.
PATIENCE, PATIENCE_EACH = 5.0, 0.5
_LOOK = 0.02


def budget(count: int) -> float:
    """Return the seconds that a driver may take to make so many functions."""
    return PATIENCE + PATIENCE_EACH * count


def read(system: System, device: str, address: str) -> Words | None:
    """Return what a NIC at a PCI address has of SR-IOV, None where it cannot have any.

    ``total``, ``count``, ``autoprobe``, ``mode`` (empty where there is no embedded switch), and
    ``functions``: by their numbers as texts, each with ``address``, ``driver``, ``override``,
    ``devices`` (its network devices here), ``elsewhere`` (it has one in another namespace),
    ``handles`` (the files that hold it) and those of the settings that the driver tells of.
    Raises OSError.
    """
    place = binding.place_of(address)
    total = system.read(place + "/sriov_totalvfs")
    if total is None:
        return None
    count = int(system.read(place + "/sriov_numvfs") or 0)
    told = _settings(system, device) if count else {}
    functions: Words = {}
    for index in range(count):
        own = binding.target_of(system, f"{place}/virtfn{index}")
        if own:
            functions[str(index)] = {**_function(system, own), **told.get(index, {})}
    return {
        "address": address,
        "total": int(total),
        "count": count,
        "autoprobe": (system.read(place + "/sriov_drivers_autoprobe") or "1").strip() == "1",
        "mode": read_mode(system, address),
        "functions": functions,
    }


def _function(system: System, address: str) -> Words:
    place = binding.place_of(address)
    devices, handles = _names(system, place + "/net"), []
    group = binding.target_of(system, place + "/iommu_group")
    if group:
        handles.append(f"/dev/vfio/{group}")
    handles += [f"/dev/vfio/devices/{name}" for name in _names(system, place + "/vfio-dev") or ()]
    return {
        "address": address,
        "driver": binding.driver_of(system, address),
        "override": binding.override_of(system, address),
        # The directory shows what is in the namespace of its mount, and is there for all.
        "devices": devices or [],
        "elsewhere": devices == [],
        "handles": handles,
    }


def _names(system: System, path: str) -> list[str] | None:
    try:
        return sorted(posix.listdir(system.root + path))
    except OSError:
        return None


def _settings(system: System, device: str) -> dict[int, Words]:
    ask = bytes(16) + pack_text(_NAME, device) + pack_u32(_MASK, _WITH_FUNCTIONS)
    found: dict[int, Words] = {}
    for _, payload in system.netlink.get(GETLINK, ask):
        for _, each in attribute_list(attributes(payload, 16).get(_LIST, b"")):
            index, words = _words(attributes(each))
            found[index] = words
    return found


def _words(told: dict[int, bytes]) -> tuple[int, Words]:
    """Return a function's number and its settings; what the driver does not know is left out."""
    words: Words = {"macaddress": mac_of(told[_MAC][4:10])}
    if _VLAN in told:
        words["vlan"], words["qos"] = number(told[_VLAN][4:8]), number(told[_VLAN][8:12])
        words["protocol"] = "802.1q"
    for _, each in attribute_list(told.get(_VLANS, b"")):
        protocol = int.from_bytes(each[12:14], "big")
        words["protocol"] = _PROTOCOLS.get(protocol, f"{protocol:#06x}")
    if _RATE in told:
        words["min-tx-rate"] = number(told[_RATE][4:8])
        words["max-tx-rate"] = number(told[_RATE][8:12])
    if _STATE in told:
        words["state"] = STATES[min(number(told[_STATE][4:8]), 2)]
    for word, kind in (("spoofchk", _SPOOFCHK), ("trust", _TRUST)):
        if kind in told and number(told[kind][4:8]) != _UNKNOWN:
            words[word] = bool(number(told[kind][4:8]))
    return number(told[_MAC][:4]), words


def write(system: System, device: str, index: int, word: str, words: Words) -> None:
    """Set one setting of a function; raises OSError with the kernel's words.

    ``words`` has all of them: the VLAN's and the rates' go to the driver together.
    """
    if word in ("vlan", "qos", "protocol"):
        part = _vlan(index, words)
    elif word in ("min-tx-rate", "max-tx-rate"):
        part = pack(_RATE, _u32(index, words.get("min-tx-rate", 0), words.get("max-tx-rate", 0)))
    elif word == "macaddress":
        address = bytes.fromhex(words[word].replace(":", ""))
        part = pack(_MAC, _u32(index) + address.ljust(32, b"\0"))
    elif word == "state":
        part = pack(_STATE, _u32(index, STATES.index(words[word])))
    else:
        part = pack({"spoofchk": _SPOOFCHK, "trust": _TRUST}[word], _u32(index, int(words[word])))
    ask = header.pack(0, 0, 0, 0, 0) + pack_text(_NAME, device) + nest(_LIST, nest(_ONE, part))
    try:
        system.netlink.request(SETLINK, 0, ask)
    except OSError as error:
        # igb_ndo_set_vf_bw() and others take a rate only while the NIC knows its link's speed, and
        # making functions has it negotiated anew.
        waits = word.endswith("tx-rate") and error.errno == errno.EINVAL
        if not waits or not _await_carrier(system, device):
            raise
        system.netlink.request(SETLINK, 0, ask)


def _await_carrier(system: System, device: str) -> bool:
    """Wait for the link of a NIC that has just lost it; say whether it came meanwhile."""
    end, waited = time.monotonic() + PATIENCE, False
    while not _carrier(system, device):
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK)
        waited = True
    return waited


def _carrier(system: System, device: str) -> bool:
    try:
        return (system.read(f"/sys/class/net/{device}/carrier") or "").strip() == "1"
    except OSError:
        return False  # EINVAL: it is down


def _vlan(index: int, words: Words) -> bytes:
    numbers = _u32(index, words.get("vlan", 0), words.get("qos", 0))
    protocol = words.get("protocol", "802.1q")
    if protocol == "802.1q":
        return pack(_VLAN, numbers)  # the one that every driver and kernel knows
    tag = next(value for value, name in _PROTOCOLS.items() if name == protocol)
    return nest(_VLANS, pack(1, numbers + tag.to_bytes(2, "big") + bytes(2)))


def _u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, sys.byteorder) for value in values)


def set_count(system: System, address: str, count: int, autoprobe: bool) -> None:
    """Make so many functions, without drivers, and wait until they are there; raises OSError.

    The kernel goes from one number to another by way of none (sriov_numvfs_store,
    drivers/pci/pci-sysfs.c).
    """
    place = binding.place_of(address)
    if (system.read(place + "/sriov_numvfs") or "").strip() not in ("0", ""):
        system.write(place + "/sriov_numvfs", "0\n")
    set_autoprobe(system, address, False)
    try:
        if count:
            system.write(place + "/sriov_numvfs", f"{count}\n")
        await_functions(system, address, count)
    finally:
        set_autoprobe(system, address, autoprobe)


def set_autoprobe(system: System, address: str, on: bool) -> None:
    """Say whether new functions go to drivers by themselves; kernels before 4.12 always do."""
    path = binding.place_of(address) + "/sriov_drivers_autoprobe"
    if system.read(path) is not None:
        system.write(path, f"{int(on)}\n")


def await_functions(system: System, address: str, count: int) -> None:
    """Wait until a NIC has so many functions; raises OSError where the budget ends before.

    It looks at least once, and once more at the end: a host may sleep for longer than any budget.
    """
    place = binding.place_of(address)
    end = time.monotonic() + budget(count)
    while True:
        late = time.monotonic() >= end
        said = int(system.read(place + "/sriov_numvfs") or 0)
        made = sum(bool(binding.target_of(system, f"{place}/virtfn{i}")) for i in range(count))
        if said == count and made == count:
            return
        if late:
            text = f"{made} of {count} virtual functions after {budget(count):g} s"
            raise OSError(errno.ETIMEDOUT, text)
        time.sleep(_LOOK)


def read_mode(system: System, address: str) -> str:
    """Return the mode of a NIC's embedded switch, empty where it has none that can be told."""
    try:
        found = generic.answers(system, "devlink", _message(_MODE_GET, address))
    except (OSError, KeyError) as error:
        if isinstance(error, OSError) and error.errno not in _NOTHING:
            raise
        return ""
    told = attributes(found[0], 4) if found else {}
    value = number(told[_MODE]) if _MODE in told else len(MODES)
    return MODES[value] if value < len(MODES) else ""


def write_mode(system: System, address: str, mode: str) -> None:
    """Set the mode of a NIC's embedded switch; raises OSError."""
    value = MODES.index(mode).to_bytes(2, sys.byteorder)
    generic.request(system, "devlink", _message(_MODE_SET, address) + pack(_MODE, value))


def _message(command: int, address: str) -> bytes:
    where = pack_text(_BUS, "pci") + pack_text(_DEVICE, address)
    return bytes((command, 1, 0, 0)) + where
