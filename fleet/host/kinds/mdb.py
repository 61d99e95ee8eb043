"""Permanent multicast groups of a bridge (bridge(8), mdb): which ports a group's frames leave by.

A resource is a bridge's list. Groups that snooping learned are nobody's and are left alone.
"""

from __future__ import annotations

from fleet.host.change import HostError
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
    from fleet.host.fields import DeviceName, MulticastGroup, VlanId

    #: What a resource is called.
    NAME = DeviceName

BRIDGE = "/usr/sbin/bridge"


@spec
class Group:
    """One group at one port: an IPv4 or IPv6 multicast address, or a group MAC address."""

    group: MulticastGroup = ""
    port: DeviceName = ""
    vlan: VlanId | None = None


@spec
class Groups:
    """The permanent groups of one bridge; entries that intent lacks are removed."""

    entries: tuple[Group, ...] = ()


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "entries"
SPEC = Groups


def _key(words: dict[str, Any]) -> tuple[str, str, int]:
    return words["group"], words["port"], words.get("vlan") or 0


def _found(observation: Observation, bridge: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    found = {}
    for item in observation.mdb:
        if item["bridge"] == bridge and item["permanent"]:
            words = {"group": item["group"], "port": item["dev"]}
            if item["vlan"]:
                words["vlan"] = item["vlan"]
            found[_key(words)] = words
    return found


def names(observation: Observation) -> list[str]:
    """Return the bridges that have permanent groups."""
    return sorted({item["bridge"] for item in observation.mdb if item["permanent"]})


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a bridge's permanent groups as intent would write them."""
    found = _found(observation, name)
    return {"entries": [found[key] for key in sorted(found)]} if found else None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change for each group that is missing or too many."""
    listed = encode(decode(Groups, resource.spec)).get("entries", ())
    link = observation.links.get(resource.name)
    if link is not None and link["kind"] != "bridge":
        kind = link["kind"] or "ethernet"
        raise HostError(resource.key, "a bridge", f"a device of kind {kind}", "name a bridge")
    wanted = {_key(words): words for words in listed}
    now = _found(observation, resource.name)
    steps = Steps(resource, resource.name)
    for key in sorted({*wanted, *now}):
        if (key in wanted) != (key in now):
            _step(steps, now.get(key), wanted.get(key))
    return steps.changes


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what br_mdb_add() refuses: a bridge that is down or does not snoop, what is no port."""
    bridge = resource.name
    if facts.kind(bridge) == "bridge" and facts.up(bridge) is False:
        yield facts.problem(
            resource, "entries", f"{bridge} up, for only then it takes groups", "it is down",
            "bring it up, which leaving activation-mode out does, or take away the groups",
        )  # fmt: skip
    snoops = (facts.spec(bridge).get("parameters") or {}).get("multicast_snooping")
    if snoops is None and facts.link(bridge):
        snoops = facts.link(bridge)["data"].get("multicast_snooping")
    if snoops is False:
        yield facts.problem(
            resource, "entries", f"multicast-snooping on {bridge}", "it is off",
            "turn multicast-snooping on, or take the groups away",
        )  # fmt: skip
    for index, item in enumerate((resource.spec or {}).get("entries") or ()):
        master = facts.master(facts.device(item["port"]))
        if master is not None and master != bridge:
            yield facts.problem(
                resource, f"entries[{index}].port", f"{item['port']} as a port of {bridge}",
                f"it is a port of {master}" if master else "it is no port",
                f"add {item['port']} to the interfaces of {bridge}, or take the group away",
            )  # fmt: skip


def _step(steps: Steps, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    port = (after or before or {})["port"]
    bridge = steps.device
    # The kernel takes a group for a port of a bridge that is up (br_mdb.c, br_mdb_add).
    needs = [f"port:{bridge}/{port}", f"up:{bridge}", f"up:{port}"]
    if after is not None:
        needs.append(f"device:{port}")
    provides = (f"no-groups:{bridge}",) if after is None else ()
    steps.add("entries", before, after, provides=provides, requires=needs, touches=(bridge, port))


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of the groups that fleet put."""
    steps = Steps(entry, entry.name)
    now = _found(observation, entry.name)
    kept = [_key(each) for each in (entry.before or {}).get("entries", ())]
    for words in encode(decode(Groups, entry.spec)).get("entries", ()):
        if _key(words) in now and _key(words) not in kept:
            _step(steps, words, None)
    return steps.changes


#: br_mdb.c and br_mdb_del(): the port has left its bridge, or its group has gone.
_GONE = ("not a bridge port", "different bridge", "No such file", "Cannot find device")


def apply(system: System, change: Change) -> None:
    """Put or remove one group."""
    from fleet.host.kernel.system import CommandError

    words = change.before if change.after is None else change.after
    argv = [BRIDGE, "mdb", "del" if change.after is None else "add", "dev", change.touches[0]]
    argv += ["port", words["port"], "grp", words["group"], "permanent"]
    if words.get("vlan"):
        argv += ["vid", str(words["vlan"])]
    try:
        system.run(argv)
    except CommandError as error:
        said = error.completed.err.strip() or str(error)
        if change.after is None and any(word in said for word in _GONE):
            return  # it went with the port
        raise HostError(
            change.key, f"group {words['group']} at {words['port']}", said[:300], "", "entries"
        ) from error
