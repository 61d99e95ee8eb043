"""Which driver has a PCI device: ``vfio-pci`` or ``uio_pci_generic`` for DPDK and guests.

A device goes by its PCI address or by the MAC address of its NIC, which is remembered until the
next boot: a NIC that DPDK has is no network device any more.
"""

from __future__ import annotations

from fleet.host.change import HostError, amended
from fleet.host.kernel import pci
from fleet.host.kernel.binding import BUS
from fleet.host.links.held import holders, require_free
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

if not ON_HOST:
    from fleet.host.machine_fields import DriverName, PCIAddressOrMAC

    #: What a resource is called.
    NAME = PCIAddressOrMAC

#: A bare text is the driver's name.
SHORT = "driver"


@spec
class Driver:
    """The driver of one device."""

    #: The empty text says that it has to be named.
    driver: DriverName = ""

    def __post_init__(self) -> None:
        """Refuse a device without a driver; the controller alone comes here."""
        if not self.driver:
            raise ValueError("name its driver, such as vfio-pci")


SPEC = Driver

VFIO = "vfio-pci"
#: Drivers that hand a device to a program, whatever the tables of ids say.
_FOR_PROGRAMS = (VFIO, "uio_pci_generic", "igb_uio")


def names(observation: Observation) -> list[str]:
    """Return the devices that a program may have."""
    return sorted(a for a, each in _seen(observation).items() if each["driver"] in _FOR_PROGRAMS)


def observe(observation: Observation, name: str) -> Words | None:
    """Return the driver of a device as intent would write it, None where it has none."""
    address = _address(observation, name)
    device = _seen(observation).get(address)
    return {"driver": device["driver"]} if device and device["driver"] else None


def original(resource: Resource, observation: Observation) -> Words | None:
    """Return what a device had before fleet adopted it, and where it is."""
    address = _address(observation, resource.name)
    device = _seen(observation).get(address)
    if device is None:
        return None
    return {"address": address, "driver": device["driver"], "override": device["override"]}


def _seen(observation: Observation) -> dict[str, Words]:
    found: dict[str, Words] = observation.once("pci", pci.read)
    return found


def _address(observation: Observation, name: str, entry: Entry | None = None) -> str:
    """Return the PCI address that a name means, empty where nothing tells."""
    if "." in name:
        return name
    for link in observation.links.values():
        if name in (link["perm_mac"], link["mac"]) and link["pci_address"]:
            return str(link["pci_address"])
    known: dict[str, str] = observation.once("pci addresses", pci.remembered)
    return known.get(name) or str(((entry.before if entry else None) or {}).get("address", ""))


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that gives a device its driver; raises HostError where it is not free."""
    wanted = decode(Driver, resource.spec).driver
    address = _address(observation, resource.name, entry)
    device = _seen(observation).get(address)
    if device is None:
        raise HostError(
            resource.key,
            f"a PCI device {resource.name}",
            "no such device" if "." in resource.name else "no NIC has this MAC address",
            "look at lspci -D, or at ip link",
        )
    if device["driver"] == wanted:
        return []
    return _change(resource, address, device, wanted, observation)


def _change(
    resource: Resource | Entry, address: str, device: Words, wanted: str, seen: Observation
) -> list[Change]:
    _check(resource, address, device, wanted, seen)
    held = holders(seen, device["handles"]) if device["driver"] == VFIO else []
    steps = Steps(resource)
    shared = [
        other
        for other, each in _seen(seen).items()
        if wanted == VFIO and each["group"] == device["group"] and other != address
        if each["driver"] not in ("", VFIO, "pcieport")
    ]
    steps.add(
        "driver",
        device["driver"] or None,
        wanted or None,
        impact="drain" if held else "blip" if device["devices"] else "none",
        reason=f"{', '.join(shared)} is in its IOMMU group, and has to go too" if shared else "",
        provides=(f"driver:{address}",),
        touches=(f"driver:{address}", *device["devices"]),
    )
    guests = tuple(sorted(str(holder["guest"]) for holder in held))
    return [amended(steps.changes[0], guests=guests)]


def _check(
    resource: Resource | Entry, address: str, device: Words, wanted: str, seen: Observation
) -> None:
    from fleet.host.kernel.observation import management_path

    carriers = management_path(seen, [str(item["address"]) for item in seen.management])
    carrying = [name for name in device["devices"] if name in carriers]
    if carrying:
        raise HostError(
            resource.key,
            "a device that does not carry management",
            f"{carrying[0]} does",
            "name another device, or move management first",
            "driver",
        )
    if device["sort"] == "bridge":
        raise HostError(
            resource.key, "a device", f"{address} is a bridge of the bus", "name a device on it"
        )
    disks = seen.once(f"disks {address}", lambda system: pci.mounted_disks(system, address))
    if disks:
        raise HostError(
            resource.key,
            "a device whose disks nobody uses",
            f"{', '.join(disks)}",
            "unmount it, or name another device",
            "driver",
        )
    if wanted == VFIO and not device["group"]:
        raise HostError(
            resource.key,
            "an IOMMU for vfio-pci",
            f"{address} is in no IOMMU group",
            "turn it on in the firmware and with intel_iommu=on, or name uio_pci_generic",
            "driver",
        )
    if not seen.system.writable(f"{BUS}/drivers_probe"):
        raise HostError(
            resource.key,
            "devices that are the host's own",
            f"{BUS} cannot be written here",
            "take drivers away: this host shares its kernel with others; a lab of --backend vm "
            "has a kernel for each",
        )


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that gives a device back to the driver it had before fleet came."""
    before = entry.before or {}
    address = str(before.get("address") or _address(observation, entry.name, entry))
    device = _seen(observation).get(address)
    if device is None or device["driver"] == before.get("driver", device["driver"]):
        return []
    return _change(entry, address, device, str(before["driver"]), observation)


def apply(system: System, change: Change) -> None:
    """Give one device to its driver; raises HostError where that does not take it."""
    from fleet.host.kernel import binding
    from fleet.host.kernel.observation import Observation

    address = change.touches[0].partition(":")[2]
    device = pci.read(system)[address]
    require_free(system, change, device["handles"])
    links = Observation(system).links
    macs = [links[name]["perm_mac"] or links[name]["mac"] for name in device["devices"]]
    wanted = change.after or ""
    try:
        if macs:
            pci.remember(system, macs, address)
        override = wanted if wanted in _FOR_PROGRAMS else ""
        binding.bind(system, address, wanted, override)
    except OSError as error:
        raise HostError(
            change.key,
            f"{wanted or 'no driver'} to take {address}",
            str(error.strerror or error),
            "look at dmesg; the module has to be there: modinfo " + wanted,
            "driver",
        ) from error
