"""Static forwarding entries of a bridge port or a VXLAN (bridge(8), fdb).

A resource is a device's list. Learned entries, and those the kernel makes for a device's own
address, are nobody's and are left alone.
"""

from __future__ import annotations

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

    #: Where in an entry, what was expected, what is, and the remedy.
    Said = Iterator[tuple[str, str, str, str]]

if not ON_HOST:
    from fleet.host.fields import DeviceName, EthernetAddress, IPAddress, Uint16, VlanId

    #: What a resource is called.
    NAME = DeviceName

#: include/uapi/linux/neighbour.h
NUD_NOARP, NUD_PERMANENT, NUD_REACHABLE = 0x40, 0x80, 0x02
NTF_SELF, NTF_MASTER, NTF_EXT_LEARNED, NTF_OFFLOADED = 0x02, 0x04, 0x10, 0x20
_ENOENT, _EOPNOTSUPP = 2, 95
#: A VXLAN's entry for every address that has none.
_DEFAULT = "00:00:00:00:00:00"


@spec
class ForwardingEntry:
    """One entry; ``remote`` is the peer of a VXLAN, without it the device's master forwards."""

    macaddress: EthernetAddress = ""
    remote: IPAddress | None = None
    vlan: VlanId | None = None
    port: Uint16 | None = None


@spec
class Forwarding:
    """The static entries of one device; entries that intent lacks are removed."""

    entries: tuple[ForwardingEntry, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no device keeps; the controller alone comes here."""
        seen: dict[tuple[str, int | None], str | None] = {}
        for each in self.entries:
            mac, place = each.macaddress, (each.macaddress, each.vlan)
            if mac == _DEFAULT and not each.remote:
                raise ValueError(f"{mac} stands for all other addresses, and only of a VXLAN")
            several = mac == _DEFAULT or int(mac[:2], 16) & 1
            if seen.setdefault(place, each.remote) != each.remote and not several:
                # vxlan_fdb_update(): only what goes to many may have many peers.
                raise ValueError(f"{mac} is at {seen[place]} and at {each.remote}: keep one")


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "entries"
SPEC = Forwarding


def _key(words: dict[str, Any]) -> tuple[str, str | None, int | None]:
    return (words["macaddress"], words.get("remote"), words.get("vlan"))


def _found(observation: Observation, device: str) -> dict[Any, dict[str, Any]]:
    link = observation.links.get(device)
    if link is None:
        return {}
    found: dict[Any, dict[str, Any]] = {}
    for item in observation.fdb:
        if item["dev"] != device or not item["mac"] or item["flags"] & NTF_EXT_LEARNED:
            continue
        if not item["state"] & (NUD_NOARP | NUD_PERMANENT):
            continue
        words = {"macaddress": item["mac"]}
        if link["kind"] == "vxlan" and not item["master"]:
            if item["address"] is None or item["address"] == link["data"].get("group"):
                continue  # the default entry is the tunnel's remote
            words["remote"] = item["address"]
            if item["port"]:
                words["port"] = item["port"]
        elif item["master"] is None or not item["state"] & NUD_NOARP:
            continue  # NUD_PERMANENT is a local entry: the kernel's, for the port's own address
        if item["vlan"]:
            words["vlan"] = item["vlan"]
        found[_key(words)] = words
    return found


def names(observation: Observation) -> list[str]:
    """Return the devices that have static entries."""
    devices = sorted({item["dev"] for item in observation.fdb})
    return [name for name in devices if _found(observation, name)]


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a device's static entries as intent would write them."""
    found = _found(observation, name)
    entries = [found[key] for key in sorted(found, key=repr)]
    return {"entries": entries} if entries else None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change for each entry that is missing, different or too many."""
    device = device_of(observation, resource.name)
    listed = encode(decode(Forwarding, resource.spec)).get("entries", ())
    wanted = {_key(words): words for words in listed}
    now = _found(observation, device)
    steps = Steps(resource, device)
    for key in sorted({*wanted, *now}, key=repr):
        if now.get(key) != wanted.get(key):
            _step(steps, now.get(key), wanted.get(key), observation)
    return steps.changes


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what br_fdb_add() and vxlan_fdb_add() refuse."""
    device = facts.device(resource.name)
    for index, item in enumerate((resource.spec or {}).get("entries") or ()):
        check = _unfit_remote if item.get("remote") else _unfit_port
        for what, expected, actual, remedy in check(resource, facts, device, item):
            yield facts.problem(resource, f"entries[{index}].{what}", expected, actual, remedy)


def _unfit_remote(resource: Resource, facts: Facts, device: str, item: dict[str, Any]) -> Said:
    kind, remote = facts.kind(device), item["remote"]
    if kind not in (None, "tunnel"):
        actual, remedy = f"{device} is {facts.said(device)}", "leave remote out, or name a tunnel"
        yield "remote", "a VXLAN, for only those have peers", actual, remedy
    spec, data = facts.spec(device), facts.link(device).get("data") or {}
    other = spec.get("remote") or spec.get("local") or data.get("group") or data.get("local")
    if other and (":" in str(other)) != (":" in remote):
        remedy = "name a peer of the tunnel's own address family"
        yield "remote", f"a peer of the family of {other}", remote, remedy


def _unfit_port(resource: Resource, facts: Facts, device: str, item: dict[str, Any]) -> Said:
    master, mac = facts.master(device), item["macaddress"]
    if facts.kind(device) == "bridge":
        remedy = f"write the entry under the port of {device} that leads there"
        yield "macaddress", "a port of a bridge", f"{device} is a bridge", remedy
        return
    if master == "":
        remedy = f"add {device} to the interfaces of a bridge"
        remedy += ", or name the entry's remote" if facts.kind(device) == "tunnel" else ""
        yield "macaddress", "a port of a bridge", f"{device} is no port", remedy
    if not master:
        return
    filtering = (facts.spec(master).get("parameters") or {}).get("vlan_filtering")
    if filtering is None:
        filtering = (facts.link(master).get("data") or {}).get("vlan_filtering")
    if item.get("vlan") and (filtering is False or (filtering is None and facts.absent(master))):
        remedy = f"leave vlan out, or turn vlan-filtering of {master} on"
        yield "vlan", f"VLAN filtering on {master}", "it is off", remedy
    for name in (device, master):
        if mac == (facts.spec(name).get("macaddress") or facts.link(name).get("mac")):
            remedy = "leave the entry out: the bridge has one for it by itself"
            yield "macaddress", "an address behind the port", f"{mac} is that of {name}", remedy
    for other in facts.of("fdb"):
        port = facts.device(other.name)
        listed = (other.spec or {}).get("entries") or ()
        same = any((e["macaddress"], e.get("vlan")) == (mac, item.get("vlan")) for e in listed)
        if other.name < resource.name and same and facts.master(port) == master:
            actual = f"fdb/{other.name} has it too, and both are ports of {master}"
            yield "macaddress", f"{mac} at one port", actual, "take it off one of them"


def _step(
    steps: Steps,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    observation: Observation,
) -> None:
    # The entry lives in the bridge: it can be made once the device is a port, and goes with it.
    needs = [f"up:{steps.device}"]
    bridges = [n for n, link in observation.links.items() if link["kind"] == "bridge"]
    needs += [f"port:{bridge}/{steps.device}" for bridge in bridges]
    needs.append(f"joined:{steps.device}")
    # br_fdb_add(): a bridge has one entry for an address, so it leaves one port before the next.
    provides: tuple[str, ...] = ()
    if after is None and before is not None:
        provides = (f"no-entry:{before['macaddress']}",)
    elif after is not None and before is None:
        needs.append(f"no-entry:{after['macaddress']}")
    steps.add("entries", before, after, provides=provides, requires=needs)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of the entries that fleet put."""
    steps = Steps(entry, device_of(observation, entry.name))
    now = _found(observation, steps.device)
    kept = [_key(each) for each in (entry.before or {}).get("entries", ())]
    for words in encode(decode(Forwarding, entry.spec)).get("entries", ()):
        if _key(words) in now and _key(words) not in kept:
            _step(steps, words, None, observation)
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Set or remove one entry."""
    from pyroute2.netlink.exceptions import NetlinkError

    from fleet.host.links import link_apply

    index = link_apply.index_of(system, change.touches[0])
    try:
        if change.before is not None:
            # Another port of the same peer would be a second entry beside the first.
            system.route.fdb("del", **_message(index, change.before))
        if change.after is not None:
            action = "append" if change.after.get("remote") else "add"
            system.route.fdb(action, **_message(index, change.after))
    except NetlinkError as error:
        if change.after is None and error.code in (_ENOENT, _EOPNOTSUPP):
            return  # it went with the port that the device no longer is
        raise link_apply.refused(change, error) from error


def _message(index: int, words: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "lladdr": words["macaddress"],
        "ifindex": index,
        "flags": NTF_SELF if words.get("remote") else NTF_MASTER,
        # bridge(8): "static" is NUD_NOARP with NUD_REACHABLE, for a vxlan "permanent".
        "state": NUD_PERMANENT if words.get("remote") else NUD_NOARP | NUD_REACHABLE,
    }
    for word, name in (("remote", "dst"), ("vlan", "vlan"), ("port", "port")):
        if words.get(word) is not None:
            arguments[name] = words[word]
    return arguments
