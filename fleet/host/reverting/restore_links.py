"""Put devices back: names, existence, masters, attributes, bridge ports, flags."""

from __future__ import annotations

import os

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, nest, pack, pack_text, pack_u32
from fleet.host.kernel.raw_link import (
    DELLINK,
    DELLINKPROP,
    NEWLINK,
    NEWLINKPROP,
    UP,
    create_message,
    data_part,
    ipv6_part,
    lower_devices,
    passes_through,
    port_part,
    set_message,
    without_pairs,
)
from fleet.host.reverting.differences import link_differences, lost_guest, owned_since
from fleet.host.reverting.restore_sysctls import restore_sysctls
from fleet.host.reverting.restore_tap import drop_tap, restore_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]
    Snapshot = dict[str, Any]

NET_NS_FD = 28
#: A port of these is theirs to put back: openvswitch's by OVSDB.
_OTHERS_PORTS = ("openvswitch",)


def fetch_devices(step: Step) -> None:
    """Bring home devices that moved to another namespace of the snapshot."""
    family = [(step.system.at(""), step.root)] if step.then is not step.root else []
    for name, inner in step.root["namespaces"].items():
        if inner is not step.then and step.system.at(name).exists():
            family.append((step.system.at(name), inner))
    missing = [name for name, then in step.then["links"].items() if then and not _here(step, name)]
    if not missing or not family:
        return
    from fleet.host.reverting.snapshot_parts import read_links

    for there, before in family:
        links = read_links(there.netlink)
        for name in missing:
            then, have = step.then["links"][name], links.get(name)
            strange = before is None or before["links"].get(name) is None
            if have is not None and strange and have["kind"] == then["kind"]:
                step.attempt("links", name, _send_home, step, there, have)
    step.look()


def _here(step: Step, name: str) -> bool:
    return name in step.everything


def _send_home(step: Step, there: System, record: Record) -> None:
    with step.system.enter():
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there.netlink.request(NEWLINK, 0, set_message(record["index"], pack_u32(NET_NS_FD, home)))
    finally:
        os.close(home)


def restore_links(step: Step) -> None:
    """Make the devices of the snapshot what they were."""
    _rename(step)
    _delete(step)
    _create(step)
    order = _lower_first(step.then["links"])
    for name in order:
        _detach(step, name)
    for name in order:
        _set_data(step, name)
    for name in sorted(order, key=lambda name: step.then["links"][name]["number"]):
        _attach(step, name)
    step.look()
    restore_sysctls(step)
    # An upper device's MTU cannot exceed its lower one's: raise from below, then lower from above.
    for name in (*order, *reversed(order)):
        _set_mtu(step, name)
    for name in order:
        _set_attributes(step, name)
    for name in order:
        _set_flags(step, name)
    step.look()
    for name in order:
        _set_port(step, name)


def _differs(step: Step, name: str) -> Record:
    then = step.then["links"][name]
    if then is None or step.now["links"].get(name) is None:
        return {}
    return link_differences(step.then, step.now, name)


def _set(step: Step, name: str, *parts: bytes, flags: int = 0, change: int = 0) -> bool:
    message = set_message(step.indexes[name], *parts, flags=flags, change=change)
    return step.ask("links", name, NEWLINK, 0, bytes, message)


def _set_or_down(step: Step, name: str, *parts: bytes) -> bool:
    """Set what many drivers take only from a device that is down; flags are put back later."""
    if _set(step, name, *parts):
        return True
    if not step.everything[name]["flags"] & UP:
        return False
    _set(step, name, flags=0, change=UP)
    done = _set(step, name, *parts)
    _set(step, name, flags=UP, change=UP)
    return done


def _rename(step: Step) -> None:
    """A device that kept its index and lost its name was renamed; it is no new one."""
    by_index = {record["index"]: record for record in step.everything.values()}
    renamed = False
    for name, then in step.then["links"].items():
        have = by_index.get(then["index"]) if then else None
        if then is None or have is None or have["name"] == name or have["kind"] != then["kind"]:
            continue
        other = step.then["links"].get(have["name"])
        if other is not None and other["index"] == have["index"]:
            continue
        occupant = step.everything.get(name)
        if occupant is not None and occupant["index"] != have["index"]:
            aside = pack_text(3, f"aside{occupant['index']}")
            _set_or_down(step, name, aside)
        step.indexes[have["name"]] = have["index"]
        renamed = _set_or_down(step, have["name"], pack_text(3, name)) or renamed
    if renamed:
        step.look()


def _delete(step: Step) -> None:
    """Remove what was not there, and what is there under the name of another device."""
    known = {then["index"] for then in step.then["links"].values() if then}
    deleted = False
    for name, then in step.then["links"].items():
        have = step.now["links"].get(name)
        if have is None or not have["kind"] or name not in step.then["named"]:
            continue
        another = then is not None and have["index"] != then["index"] and _unlike(then, have)
        if then is not None and owned_since(then, have):
            deleted = step.attempt("links", name, drop_tap, step.system, have) or deleted
        elif (then is None and have["index"] not in known) or another:
            message = set_message(have["index"])
            deleted = step.ask("links", name, DELLINK, 0, bytes, message) or deleted
    if deleted:
        step.look()


#: Mode, fail_over_mac, ad_lacp_rate and ad_select: what only a bond without members takes
#: (drivers/net/bonding/bond_options.c, BOND_OPTFLAG_NOSLAVES and IFDOWN).
_OF_A_NEW_BOND = ("1", "13", "21", "22")


def _unlike(then: Record, have: Record) -> bool:
    """Say whether a device made anew cannot become what the old one was."""
    if then["kind"] != have["kind"] or then["netnsid"] != have["netnsid"]:
        return True
    if then["netnsid"] is None and then["link"] != have["link"]:
        return True
    if then["kind"] == "bond":
        return any(then["data"].get(key) != have["data"].get(key) for key in _OF_A_NEW_BOND)
    if then["kind"] in ("bridge", "macvlan"):
        return False
    return bool(then["data"] != have["data"])


def _create(step: Step) -> None:
    waiting = {
        name
        for name, then in step.then["links"].items()
        if then is not None and name not in step.everything and not lost_guest(step.then, then)
    }
    # A macvtap whose NIC went with it was no guest's to end.
    waiting |= {
        name
        for name, then in step.then["links"].items()
        if then and then["kind"] == "macvtap" and then["link"] in waiting
        if name not in step.everything
    }
    while waiting:
        made: set[str] = set()
        for name in sorted(waiting):
            then = step.then["links"][name]
            if lower_devices(then) & waiting or name not in waiting:
                continue
            if name in made:
                continue
            if _make(step, then):
                made |= {name, then["link"] if then["kind"] == "veth" else name}
        if not made:
            return
        waiting -= made
        step.look()


def _make(step: Step, then: Record) -> bool:
    name = then["name"]
    if then["kind"] == "tun":
        return step.attempt("links", name, restore_tap, step.system, then)
    if not then["kind"]:
        return False  # a NIC: only its driver can bring it back
    peer, where = _peer(step, then)
    # A bridge or a bond is made plain; what differs from its defaults is set one by one.
    plain = {**then, "data": {}} if then["kind"] == "bridge" else then
    if then["kind"] == "bond":
        plain = {**then, "data": {key: v for key, v in then["data"].items() if key == "1"}}
    space = step.system.at(where) if where else step.system
    home = -1
    try:
        if where:
            with space.enter():
                home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for form, index in _forms(plain):
            message = create_message(form, peer, index, step.indexes, home)
            flags = NLM_F_CREATE | NLM_F_EXCL
            if step.ask("links", name, NEWLINK, flags, bytes, message):
                return True
    finally:
        if home >= 0:
            os.close(home)
    return False


def _forms(record: Record) -> list[tuple[Record, int]]:
    """Return what to try: under its old index, so that numbers stay right; under any; and then
    without one attribute, for those that a kernel shows and does not take."""
    data = record["data"]
    less = [{**record, "data": {k: v for k, v in data.items() if k != key}} for key in data]
    return [(record, record["index"]), (record, 0), *((form, record["index"]) for form in less)]


def _peer(step: Step, then: Record) -> tuple[Record | None, str]:
    """Return a veth's other end and its namespace, empty for the same."""
    if then["kind"] != "veth":
        return None, ""
    if then["netnsid"] is None:
        return step.then["links"].get(then["link"]), ""
    others = {"": step.root, **step.root["namespaces"]}
    for name, inner in others.items():
        for record in (inner["links"] if inner and inner is not step.then else {}).values():
            if (
                record
                and record["kind"] == "veth"
                and record["index"] == then["link"]
                and record["link"] == then["index"]
            ):
                return record, name or "/proc/self/ns/net"
    return None, ""


def _lower_first(links: dict[str, Record | None]) -> list[str]:
    """Return the devices that were, each after those it stands on and a bridge after its ports."""
    done: list[str] = []
    todo = sorted(name for name, then in links.items() if then)
    while todo:
        for name in todo:
            then = links[name]
            needs = lower_devices(then) if then else set()
            needs |= {n for n in todo if (links[n] or {}).get("master") == name}
            if not needs & set(todo) - {name}:
                break
        else:
            return done + todo
        done.append(name)
        todo.remove(name)
    return done


def _detach(step: Step, name: str) -> None:
    master = _differs(step, name).get("master")
    if master and master[1] and step.everything[name]["slave"] not in _OTHERS_PORTS:
        _set(step, name, pack_u32(10, 0))


def _attach(step: Step, name: str) -> None:
    master = _differs(step, name).get("master")
    then = step.then["links"][name]
    if not master or not master[0] or master[0] not in step.indexes:
        return
    if then["slave"] not in _OTHERS_PORTS:
        _set_or_down(step, name, pack_u32(10, step.indexes[master[0]]))


def _keys(differing: Record, field: str) -> list[str]:
    start = field + "."
    return [what[len(start) :] for what in differing if what.startswith(start)]


def _set_data(step: Step, name: str) -> None:
    """Set the kind's own attributes: together, and where the kernel refuses that, one by one."""
    then, keys = step.then["links"][name], _keys(_differs(step, name), "data")
    if not keys:
        return
    if then["kind"] == "tun":
        step.attempt("links", name, restore_tap, step.system, then)
        return
    if then["kind"] == "vlan":
        then = without_pairs(then, step.now["links"][name])
    # STP on refuses delays that STP off allows: whichever goes first, the second round fits.
    for group in (keys, *([key] for key in keys), *([key] for key in reversed(keys))):

        def message(group: list[str] = group) -> bytes:
            return set_message(step.indexes[name], data_part(then, group, step.indexes))

        if step.ask("links", name, NEWLINK, 0, message) and group is keys:
            return


def _set_mtu(step: Step, name: str) -> None:
    if "mtu" in _differs(step, name):
        _set_or_down(step, name, pack_u32(4, step.then["links"][name]["mtu"]))


def _set_attributes(step: Step, name: str) -> None:
    differing, then = _differs(step, name), step.then["links"][name]
    if "mac" in differing and then["mac"] and not _given_from_above(step, name):
        _set_or_down(step, name, pack(1, bytes.fromhex(then["mac"])))
    if "txqlen" in differing:
        _set(step, name, pack_u32(13, then["txqlen"]))
    if "group" in differing:
        _set(step, name, pack_u32(27, then["group"]))
    if "alias" in differing:
        # An empty alias is no alias (net/core/rtnetlink.c, dev_set_alias).
        alias = then["alias"].encode("utf-8", "surrogateescape")
        _set(step, name, pack(20, alias or b"\0"))
    if _keys(differing, "ipv6"):
        _set(step, name, ipv6_part(then))
    if "altnames" in differing:
        have, wanted = step.now["links"][name]["altnames"], then["altnames"]
        same = 0
        while same < min(len(have), len(wanted)) and have[same] == wanted[same]:
            same += 1
        for kind, flags, words in (
            (DELLINKPROP, 0, have[same:]),
            (NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, wanted[same:]),
        ):
            for word in words:
                message = set_message(step.indexes[name], nest(52, pack_text(53, word)))
                step.ask("links", name, kind, flags, bytes, message)


def _given_from_above(step: Step, name: str) -> bool:
    """Say whether a device has its MAC address from one in passthru mode, as it had it before.

    Given the address directly it would keep it when that one goes (drivers/net/macvlan.c,
    macvlan_sync_address, perm_addr).
    """
    records = (step.then["links"].get(n) for n in step.everything)
    above = [record for record in records if record and record["link"] == name]
    return any(passes_through(record) for record in above)


def _set_flags(step: Step, name: str) -> None:
    then = step.then["links"][name]
    if name not in step.everything:
        return
    have = step.flags_of(name)
    if have != then["flags"]:
        _set(step, name, flags=then["flags"], change=then["flags"] ^ have)


def _set_port(step: Step, name: str) -> None:
    then, keys = step.then["links"][name], _keys(_differs(step, name), "port")
    if not keys:
        return
    for group in (keys, *([key] for key in keys)):

        def message(group: list[str] = group) -> bytes:
            return set_message(step.indexes[name], port_part(then, group, step.indexes))

        if step.ask("links", name, NEWLINK, 0, message) and group is keys:
            return
