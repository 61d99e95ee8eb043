"""Put back which driver has a PCI device, and wait for the network device that comes with it."""

from __future__ import annotations

from fleet.host.kernel import binding, pci
from fleet.host.reverting.restore_functions import await_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]


def read_drivers(system: System, addresses: list[str]) -> Record:
    """Return each device's driver, override and network devices; None where it is not there."""
    found: Record = {}
    for address in addresses:
        known = system.read(binding.place_of(address) + "/class") is not None
        found[address] = {
            "driver": binding.driver_of(system, address),
            "override": binding.override_of(system, address),
            "devices": pci.network_devices(system, address),
        } if known else None  # fmt: skip
    return found


def driver_differences(snapshot: Record, now: Record) -> dict[str, tuple[Record, Record]]:
    """Return the devices whose driver is not as it was, by address, as (then, now)."""
    found = {}
    for address, then in snapshot["drivers"].items():
        have = now["drivers"].get(address)
        if then is None or have is None:
            continue  # pulled, or put in, meanwhile
        if any(then[word] != have[word] for word in ("driver", "override")):
            found[address] = (then, have)
    return found


def restore_drivers(step: Step) -> None:
    """Give each device back to its driver; what it had of the network follows with the links."""
    back = {}
    for address, (then, _) in driver_differences(step.then, step.now).items():
        arguments = (address, then["driver"], then["override"])
        if step.attempt("drivers", address, binding.bind, step.system, *arguments):
            back[address] = then["devices"]
    await_devices(step.system, {address: names[0] for address, names in back.items() if names})
