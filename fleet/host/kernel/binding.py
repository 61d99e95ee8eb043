"""Which driver has a PCI device, and giving it to another (ABI/testing/sysfs-bus-pci).

A device is named by its address, such as ``0000:01:10.0``. Its ``driver_override`` says that one
driver alone may have it; without it, the kernel's tables of ids decide.
"""

from __future__ import annotations

import errno
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System

BUS = "/sys/bus/pci"


def place_of(address: str) -> str:
    """Return a device's directory."""
    return f"{BUS}/devices/{address}"


def target_of(system: System, path: str) -> str:
    """Return the last part of what a link leads to, empty where there is none."""
    try:
        return posix.readlink(system.root + path).rpartition("/")[2]
    except OSError:
        return ""


def driver_of(system: System, address: str) -> str:
    """Return the driver that has a device, empty for none."""
    return target_of(system, place_of(address) + "/driver")


def override_of(system: System, address: str) -> str:
    """Return the one driver that may have a device, empty where the kernel's tables decide."""
    said = (system.read(place_of(address) + "/driver_override") or "").strip()
    return "" if said == "(null)" else said


def bind(system: System, address: str, driver: str, override: str) -> None:
    """Give a device to a driver, or to none where it is empty, and leave its override as said.

    Raises OSError where there is no such driver, or where it does not take the device.
    """
    place = place_of(address)
    if driver_of(system, address) != driver:
        if driver:
            _load(system, driver)
        unbind(system, address)
        if driver:
            system.write(place + "/driver_override", driver + "\n")
            system.write(BUS + "/drivers_probe", address + "\n")
    if override_of(system, address) != override:
        system.write(place + "/driver_override", override + "\n")
    if driver_of(system, address) != driver:
        raise OSError(errno.ENODEV, f"{driver} does not take {address}")


def probe(system: System, address: str) -> None:
    """Let the driver that the kernel's tables name have a device, if there is one."""
    if not driver_of(system, address):
        system.write(BUS + "/drivers_probe", address + "\n")


def unbind(system: System, address: str) -> None:
    """Take a device from its driver; one that has none is left alone. Raises OSError."""
    if driver_of(system, address):
        system.write(place_of(address) + "/driver/unbind", address + "\n")


def _load(system: System, driver: str) -> None:
    """Load the module of a driver that the kernel does not have yet; raises OSError."""
    from fleet.host.kernel.system import CommandError

    place = f"{system.root}{BUS}/drivers/{driver}"
    if not posix.access(place, posix.F_OK):
        try:
            system.run(["modprobe", "--", driver])
        except CommandError as error:
            raise OSError(errno.ENOENT, f"no driver {driver}: {error}") from error
    if not posix.access(place, posix.F_OK):
        raise OSError(errno.ENOENT, f"no driver {driver} on the PCI bus")
