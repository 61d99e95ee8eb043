"""Macvlan devices: further MAC addresses on a NIC (ip-link(8), type macvlan)."""

from __future__ import annotations

from fleet.host.links import macvlan
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change, Problem, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import DeviceName


@spec
class Macvlan(Link):
    """One macvlan on a lower device."""

    link: DeviceName = ""
    mode: Literal["private", "vepa", "bridge", "passthru", "source"] = "bridge"


SPEC = Macvlan


def names(observation: Observation) -> list[str]:
    """Return the names of all macvlans whose NIC is in this namespace."""
    return sorted(name for name in observation.links if observe(observation, name) is not None)


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a macvlan as intent would write it."""
    return macvlan.observe(observation, name, "macvlan")


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without what a new macvlan has."""
    return macvlan.lean(form, observation, name)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a macvlan what its spec says."""
    return macvlan.diff(resource, entry, observation, decode(Macvlan, resource.spec), "macvlan")


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what the kernel refuses of a macvlan."""
    return macvlan.unfit(resource, facts)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a macvlan that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a macvlan."""
    macvlan.apply(system, change, "macvlan")
