"""VRFs (netplan ``vrfs``; Documentation/networking/vrf.rst, ip-link(8) type vrf)."""

from __future__ import annotations

from fleet.host.change import CREATE
from fleet.host.links.bridge_ports import diff_ports, ports_of
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, observe_link
from fleet.host.links.steps import Steps
from fleet.host.links.virtual import diff_virtual
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import DeviceName, TableNumber


@spec
class Vrf(Link):
    """One VRF, the routing table that is its own, and the devices whose traffic that table leads.

    The kernel moves a member's connected routes there; intent's other routes of a member, and of
    the VRF, are the table's too where they name none, as systemd-networkd and netplan have it.
    """

    #: The empty text says that it has to be named.
    table: TableNumber = ""  # type: ignore[assignment]
    interfaces: tuple[DeviceName, ...] | None = None


SPEC = Vrf

#: drivers/net/vrf.c, vrf_setup(): the largest IPv6 packet and its header; 65536 before Linux 5.16.
_MTUS = (65575, 65536)


def names(observation: Observation) -> list[str]:
    """Return the names of all VRFs."""
    return sorted(name for name, link in observation.links.items() if link["kind"] == "vrf")


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a VRF as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "vrf":
        return None
    words = observe_link(observation, name)
    return {"table": link["data"].get("table"), "interfaces": ports_of(observation, name), **words}


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without the MTU that a new VRF has."""
    from fleet.host.planning.lean import without

    mtu = form.get("mtu")
    return without(form, {"mtu": mtu}) if mtu in _MTUS else form


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a VRF what its spec says; another table makes it again."""
    wanted = decode(Vrf, resource.spec)
    link = observation.links.get(resource.name)
    changes = diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="vrf",
        fixed={"table": wanted.table},
        mutable={},
        now=link["data"] if link else {},
        capability="vrf",
    )
    again = any(change.action == CREATE for change in changes)
    steps = Steps(resource, resource.name)
    seen = observation
    if again and link is not None:
        from fleet.host.links.without import without

        seen = without(observation, {resource.name})
    diff_ports(steps, wanted.interfaces, None if again else entry, seen)
    return [*changes, *steps.changes]


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a VRF that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a VRF."""
    from fleet.host.links import vrf_apply

    vrf_apply.apply(system, change)
