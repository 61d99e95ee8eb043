"""Kernel parameters (sysctl(8), sysctl.d(5)): one resource a key, named with dots."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import Text


@spec
class Sysctl:
    """One key's value, as sysctl(8) prints it."""

    value: Text


SPEC = Sysctl

#: Keys whose change interrupts what is running: forwarding stops, IPv6 addresses go.
_INTERRUPTS = ("disable_ipv6", "ip_forward", "forwarding")


def names(observation: Observation) -> list[str]:
    """Return nothing: a host has a thousand keys, and only those that intent names matter."""
    return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a key's value, or None where this kernel has no such key."""
    value = observation.sysctl(name)
    return None if value is None else {"value": _words(value)}


def _words(value: str) -> str:
    # The kernel separates with tabs what people write with spaces (net.ipv4.tcp_rmem).
    return " ".join(value.split())


def parts_of(name: str) -> list[str]:
    """Return a key's path, by sysctl(8): where ``/`` separates, dots belong to the parts."""
    for character in name:
        if character == "/":
            return name.split("/")
        if character == ".":
            break
    return [part.replace("/", ".") for part in name.split(".")]


def device_of_key(name: str) -> str:
    """Return the device a key belongs to, empty for a key of the whole namespace."""
    parts = parts_of(name)
    if len(parts) > 4 and parts[0] == "net" and parts[2] in ("conf", "neigh"):
        return "" if parts[3] in ("all", "default") else parts[3]
    return ""


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that gives a key its value."""
    wanted = _words(decode(Sysctl, resource.spec).value)
    now = observation.sysctl(resource.name)
    device = device_of_key(resource.name)
    if now is None and observation.exists and (not device or device in observation.links):
        raise HostError(
            resource.key,
            "a kernel that has this key",
            "no such key",
            "correct the name, or load the module it belongs to (net.bridge.* is br_netfilter's)",
        )
    before = None if now is None else _words(now)
    if before == wanted:
        return []
    steps = Steps(resource)
    parts = parts_of(resource.name)
    # ip_forward and conf.all reset the devices' own values (devinet.c, inet_forward_change).
    wide = parts[-1] == "ip_forward" or (len(parts) > 4 and parts[3] in ("all", "default"))
    steps.add(
        "value",
        before,
        wanted,
        impact="blip" if parts[-1] in _INTERRUPTS and before is not None else "none",
        provides=("sysctl:wide",) if wide else (),
        requires=(() if wide else ("sysctl:wide",)) + ((f"device:{device}",) if device else ()),
        touches=(device,) if device else (),
    )
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return nothing: a key was there before fleet, and keeps its value."""
    return []


def apply(system: System, change: Change) -> None:
    """Write one key; raises HostError where the kernel refuses the value or shows another."""
    try:
        system.set_sysctl(change.name, change.after)
    except OSError as error:
        raise HostError(
            change.key,
            f"to write {change.after!r}",
            f"the kernel refuses it: {error.strerror}",
            "give a value this kernel takes; some keys are read-only inside a namespace",
            "value",
        ) from error
    now = _words(system.sysctl(change.name) or "")
    if now != change.after:
        raise HostError(
            change.key,
            repr(change.after),
            f"{now!r} after writing it",
            "write the value as the kernel shows it",
            "value",
        )
