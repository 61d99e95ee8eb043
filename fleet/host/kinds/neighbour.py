"""Permanent neighbours of a device: ARP and NDP entries that never age (ip-neighbour(8)).

A resource is a device's list; entries that the kernel learned are nobody's and are left alone.
"""

from __future__ import annotations

from fleet.host.kernel import ip
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, encode, spec

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
    from fleet.host.fields import MAC, DeviceName, IPAddress

    #: What a resource is called.
    NAME = DeviceName

#: include/uapi/linux/neighbour.h
NUD_PERMANENT = 0x80
#: RFC 8200, 5: with less the kernel turns IPv6 off.
IPV6_MTU = 1280


@spec
class Neighbour:
    """One entry: the MAC address an IP address is always found at."""

    address: IPAddress = ""
    macaddress: MAC = ""


@spec
class Neighbours:
    """The permanent neighbours of one device; entries that intent lacks are removed."""

    entries: tuple[Neighbour, ...] = ()

    def __post_init__(self) -> None:
        """Refuse two places of one address; the controller alone comes here."""
        seen: dict[str, str] = {}
        for each in self.entries:
            if seen.setdefault(each.address, each.macaddress) != each.macaddress:
                raise ValueError(
                    f"{each.address} is at {seen[each.address]} and at {each.macaddress}"
                )


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "entries"
SPEC = Neighbours


def _found(observation: Observation, device: str) -> dict[str, str]:
    return {
        item["address"]: item["mac"]
        for item in observation.neighbours
        if item["dev"] == device and item["state"] & NUD_PERMANENT and item["mac"]
    }


def names(observation: Observation) -> list[str]:
    """Return the devices that have permanent neighbours."""
    held = (item["dev"] for item in observation.neighbours if item["state"] & NUD_PERMANENT)
    return sorted({name for name in held if _found(observation, name)})


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a device's permanent neighbours as intent would write them."""
    found = _found(observation, name)
    entries = [{"address": a, "macaddress": mac} for a, mac in sorted(found.items())]
    return {"entries": entries} if entries else None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change for each entry that is missing, different or too many."""
    device = device_of(observation, resource.name)
    wanted = {
        ip.normal(each.address): each.macaddress
        for each in decode(Neighbours, resource.spec).entries
    }
    now = _found(observation, device)
    steps = Steps(resource, device)
    for address in sorted({*wanted, *now}):
        before, after = now.get(address), wanted.get(address)
        if before != after:
            _step(steps, address, before, after)
    return steps.changes


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what makes the kernel refuse a neighbour, or forget it at once."""
    device = facts.device(resource.name)
    if facts.kind(device) == "tun":
        yield facts.problem(
            resource, "entries", "a device with MAC addresses", f"{device} is a tun",
            "take the neighbours away: what leaves a tun is for whoever holds it",
        )  # fmt: skip
    if facts.up(device) is False:
        yield facts.problem(
            resource, "entries", f"{device} up, for a device that is down has no neighbours",
            "it is down",
            "bring it up, which leaving activation-mode out does, or take away the neighbours",
        )  # fmt: skip
    mtu = facts.mtu(device)
    for index, item in enumerate((resource.spec or {}).get("entries") or ()):
        if ":" in item["address"] and mtu is not None and mtu < IPV6_MTU:
            yield facts.problem(
                resource, f"entries[{index}].address",
                f"an MTU of at least {IPV6_MTU} on {device}, for {item['address']}", str(mtu),
                "raise its mtu or take the IPv6 neighbours away",
            )  # fmt: skip


def _step(steps: Steps, address: str, before: str | None, after: str | None) -> None:
    def words(mac: str | None) -> dict[str, str] | None:
        return None if mac is None else {"address": address, "macaddress": mac}

    needs = (f"up:{steps.device}", f"mac:{steps.device}", f"port:{steps.device}")
    steps.add("entries", words(before), words(after), requires=needs)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of the entries that fleet put."""
    steps = Steps(entry, device_of(observation, entry.name))
    now = _found(observation, steps.device)
    kept = [each["address"] for each in (entry.before or {}).get("entries", ())]
    for each in encode(decode(Neighbours, entry.spec)).get("entries", ()):
        address = ip.normal(each["address"])
        if now.get(address) == each["macaddress"] and address not in kept:
            _step(steps, address, each["macaddress"], None)
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Set or remove one entry."""
    from pyroute2.netlink.exceptions import NetlinkError

    from fleet.host.links import link_apply

    words = change.before if change.after is None else change.after
    arguments: dict[str, Any] = {
        "dst": words["address"],
        "ifindex": link_apply.index_of(system, change.touches[0]),
        "family": 10 if ":" in words["address"] else 2,
    }
    if change.after is not None:
        arguments.update(lladdr=words["macaddress"], state=NUD_PERMANENT)
    try:
        system.route.neigh("del" if change.after is None else "replace", **arguments)
    except NetlinkError as error:
        if change.after is None and error.code == 2:
            return  # it went with an address or a state of the device
        raise link_apply.refused(change, error) from error
