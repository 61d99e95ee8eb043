"""Dummy devices (netplan ``dummy-devices``): a name with addresses, and nothing behind it."""

from __future__ import annotations

from fleet.host.change import CREATE
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, observe_link
from fleet.host.links.virtual import diff_virtual
from fleet.host.spec import decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry


@spec
class Dummy(Link):
    """One dummy device."""


SPEC = Dummy


def names(observation: Observation) -> list[str]:
    """Return the names of all dummy devices."""
    return sorted(name for name, link in observation.links.items() if link["kind"] == "dummy")


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a dummy device as intent would write it."""
    link = observation.links.get(name)
    return observe_link(observation, name) if link and link["kind"] == "dummy" else None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a dummy device what its spec says."""
    wanted = decode(Dummy, resource.spec)
    return diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="dummy",
        fixed={},
        mutable={},
        now={},
        capability="dummy",
    )


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a dummy device that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a dummy device."""
    from fleet.host.links import link_apply

    if change.action == CREATE:
        link_apply.make(system, change, "dummy")
    else:
        link_apply.apply(system, change)
