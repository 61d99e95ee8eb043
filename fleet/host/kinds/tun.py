"""Tuns: IP devices whose other end is a process, such as a VPN's (ip-tuntap(8))."""

from __future__ import annotations

from fleet.host.links import tuntap
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import Account


@spec
class Tun(Link):
    """One persistent tun; ``owner`` and ``group`` are names or numbers of the host."""

    owner: Account | None = None
    group: Account | None = None
    multi_queue: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what only a tap has; the controller alone comes here."""
        if self.macaddress:
            raise ValueError("a tun has no MAC address: leave macaddress out, or write it as a tap")


SPEC = Tun


def names(observation: Observation) -> list[str]:
    """Return the names of all persistent tuns."""
    return tuntap.names(observation, "tun")


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a tun as intent would write it."""
    return tuntap.observe(observation, name, "tun")


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without what a new tun has."""
    return tuntap.lean(form)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a tun what its spec says."""
    return tuntap.diff(resource, entry, observation, decode(Tun, resource.spec), "tun")


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a tun that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a tun."""
    tuntap.apply(system, change, "tun")
