"""The parts of a snapshot: one dump of the kernel each, filtered to the devices that matter."""

from __future__ import annotations

import os
from _struct import Struct

from fleet.host.kernel import bridge_vlans
from fleet.host.kernel.link_attributes import dump_links
from fleet.host.kernel.link_attributes import header as link_header
from fleet.host.kernel.netlink import attribute_list, attributes, number, text_of
from fleet.host.kernel.raw import (
    attributes_of,
    neighbour_record,
    nexthop_record,
    route_record,
    rule_record,
)
from fleet.host.kernel.raw_link import link_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.kernel.netlink import Netlink
    from fleet.host.kernel.system import System

    Record = dict[str, Any]

AF_INET6, AF_BRIDGE = 10, 7
GETLINK, GETADDR, GETROUTE, GETNEIGH, GETRULE = 18, 22, 26, 30, 34
GETMDB, GETNEXTHOP = 86, 106
CLONED, LOCAL_TABLE = 0x200, 255
KERNEL = 2
#: RTN_BLACKHOLE, UNREACHABLE, PROHIBIT, THROW: they belong to no device.
NOWHERE = (6, 7, 8, 9)
NUD_PERMANENT, NUD_NOARP, NTF_SELF, NTF_PROXY, NTF_EXT_LEARNED = 0x80, 0x40, 0x02, 0x08, 0x10
NTF_ROUTER = 0x80
FOREVER = 0xFFFFFFFF
#: IFA_F_* that are written and stay: NODAD, OPTIMISTIC, HOMEADDRESS, MANAGETEMPADDR,
#: NOPREFIXROUTE, MCAUTOJOIN (net/ipv6/addrconf.c, inet6_rtm_newaddr).
ADDRESS_FLAGS = 0x2 | 0x4 | 0x10 | 0x100 | 0x200 | 0x400
TEMPORARY, DEPRECATED = 0x01, 0x20

_address = Struct("=BBBBi")
_cacheinfo = Struct("=IIII")
_mdb_entry = Struct("=iBBH")
#: Per-device keys, by directory of /proc/sys.
_PER_DEVICE = ("net/ipv4/conf", "net/ipv6/conf", "net/ipv4/neigh", "net/ipv6/neigh")
#: The same value in milliseconds has a key of its own; and a secret that cannot be read back.
_TWICE = ("retrans_time", "base_reachable_time", "stable_secret")


def has_switches(scope: Record) -> bool:
    """Say whether anything of Open vSwitch is touched: its modules are loaded only then."""
    return bool(scope.get("switches") or scope.get("flows"))


def read_links(netlink: Netlink) -> dict[str, Record]:
    payloads = dump_links(netlink)
    names = {}
    for payload in payloads:
        index = link_header.unpack_from(payload)[2]
        names[index] = text_of(attributes(payload, 16).get(3, b""))
    records = (link_record(payload, names) for payload in payloads)
    return {record["name"]: record for record in records}


def read_addresses(netlink: Netlink, names: dict[int, str], inside: set[str]) -> Record:
    found: Record = {}
    for _, payload in netlink.dump(GETADDR, bytes(8)):
        family, length, flags, scope, index = _address.unpack_from(payload)
        device = names.get(index, "")
        if device not in inside or family not in (2, 10):
            continue
        parts = attributes(payload, 8)
        flags = number(parts[8]) if 8 in parts else flags
        if family == 10 and flags & TEMPORARY:
            continue  # the kernel makes these from their parent, and nobody else can
        preferred = valid = FOREVER
        if len(parts.get(6, b"")) >= 16:
            preferred, valid, _, _ = _cacheinfo.unpack_from(parts[6])
        if flags & DEPRECATED:
            # inet_fill_ifaddr() says "forever" of a permanent one, whatever it was given.
            preferred = 0
        found.setdefault(device, []).append(
            {
                "family": family,
                "length": length,
                "scope": scope,
                "flags": flags & ADDRESS_FLAGS,
                "permanent": valid == FOREVER,
                "kernel": _kernels(family, parts),
                "attributes": attributes_of(payload, 8, {}, skip=(6, 8)),
                "local": parts.get(2, parts.get(1, b"")).hex(),
                "valid": valid,
                "preferred": preferred,
            }
        )
    return found


def _kernels(family: int, parts: dict[int, bytes]) -> bool:
    """Say whether an address is one that the kernel makes by itself when a device comes up."""
    own = parts.get(2, parts.get(1, b""))
    if 11 in parts:
        return number(parts[11]) in (1, 3)  # IFAPROT_KERNEL_LO, IFAPROT_KERNEL_LL
    return family == 10 and own[:1] == b"\xfe" and own[1] & 0xC0 == 0x80


def read_sources(addresses: Record) -> set[str]:
    return {item["local"] for items in addresses.values() for item in items}


def read_routes(
    netlink: Netlink, names: dict[int, str], inside: set[str], sources: set[str], ids: set[int]
) -> list[Record]:
    found = []
    for _, payload in netlink.dump(GETROUTE, bytes(12)):
        if payload[0] not in (2, 10) or number(payload[8:12]) & CLONED:
            continue
        if payload[0] == AF_INET6 and payload[4] == LOCAL_TABLE and payload[5] == KERNEL:
            continue  # they come and go with their addresses and with duplicate detection
        record = route_record(payload, names)
        values = {kind: value for kind, value in record["attributes"] if isinstance(value, str)}
        if (
            inside.intersection(record["devices"])
            or record["type"] in NOWHERE
            or values.get(7) in sources
            or (30 in values and number(bytes.fromhex(values[30])) in ids)
        ):
            found.append(record)
    return found


def read_nexthops(netlink: Netlink, names: dict[int, str], inside: set[str]) -> list[Record]:
    try:
        records = [nexthop_record(p, names) for _, p in netlink.dump(GETNEXTHOP, bytes(8))]
    except OSError:
        return []  # Linux before 5.3 has none
    ids = {record["id"] for record in records if inside.intersection(record["devices"])}
    return [
        record for record in records if record["id"] in ids or ids.intersection(record["members"])
    ]


def read_rules(netlink: Netlink) -> list[Record]:
    messages = netlink.dump(GETRULE, bytes(12))
    return [rule_record(payload) for _, payload in messages if payload[0] in (2, 10)]


def read_neighbours(netlink: Netlink, names: dict[int, str], inside: set[str]) -> list[Record]:
    heads = [bytes(12), bytes(10) + bytes((NTF_PROXY, 0))]
    records = [
        neighbour_record(payload, names)
        for head in heads
        for _, payload in netlink.dump(GETNEIGH, head)
    ]
    return [
        record
        for record in records
        if record["dev"] in inside
        and record["family"] in (2, 10)
        and (record["state"] & NUD_PERMANENT or record["flags"] & NTF_PROXY)
    ]


def read_fdb(
    netlink: Netlink, names: dict[int, str], inside: set[str], links: dict[str, Record]
) -> list[Record]:
    head = bytes((AF_BRIDGE,)) + bytes(11)
    macs = {record["mac"] for record in links.values() if record["mac"].strip("0")}
    found = []
    for _, payload in netlink.dump(GETNEIGH, head):
        record = neighbour_record(payload, names)
        if record["dev"] not in inside or record["flags"] & NTF_EXT_LEARNED:
            continue
        if not record["state"] & (NUD_PERMANENT | NUD_NOARP):
            continue  # learned
        if record["bridge"] and record["mac"] in macs:
            continue  # a device's own address, which the kernel enters
        if links[record["dev"]]["kind"] != "vxlan" and not record["bridge"]:
            continue  # filters of the NIC itself, which the stack above it keeps
        found.append(record)
    return found


def read_mdb(netlink: Netlink, names: dict[int, str], inside: set[str]) -> list[Record]:
    """Return permanent multicast groups: struct br_mdb_entry {port, state, flags, vid, ...}."""
    found = []
    try:
        messages = netlink.dump(GETMDB, bytes((AF_BRIDGE,)) + bytes(7))
    except OSError:
        return []  # a kernel without IGMP snooping
    for _, payload in messages:
        bridge = names.get(number(payload[4:8]), "")
        for _, table in attribute_list(attributes(payload, 8).get(1, b"")):
            for _, entry in attribute_list(table):
                port, state, _, _ = _mdb_entry.unpack_from(entry)
                device = names.get(port, "")
                if state == 1 and (device in inside or bridge in inside):
                    body = bytearray(entry[:28])
                    body[0:4], body[5] = bytes(4), 0
                    found.append({"bridge": bridge, "dev": device, "entry": bytes(body).hex()})
    return found


def read_vlans(netlink: Netlink, names: dict[int, str], inside: set[str]) -> Record:
    """Return the VLANs of bridges and ports, as PVID and untagged flags by VLAN id."""
    return {
        device: {str(vid): flags for vid, flags in vlans.items()}
        for device, vlans in bridge_vlans.read_vlans(netlink, names).items()
        if device in inside
    }


def read_wide_leaves(sysctls: Iterable[str]) -> set[tuple[str, str]]:
    """Return the per-device keys that a key of the whole namespace resets on every device.

    net/ipv4/devinet.c, inet_forward_change and devinet_conf_proc; net/ipv6/addrconf.c.
    """
    found = set()
    for name in sysctls:
        parts = (name if "/" in name.partition(".")[0] else name.replace(".", "/")).split("/")
        if parts[-1] == "ip_forward":
            found |= {("net/ipv4/conf", "forwarding"), ("net/ipv4/conf", "accept_redirects")}
        elif len(parts) == 5 and parts[3] in ("all", "default"):
            found.add(("/".join(parts[:3]), parts[4]))
    return found


def read_sysctls(
    system: System,
    extra: Iterable[str],
    devices: Iterable[str],
    wide: set[tuple[str, str]],
    links: dict[str, Record],
) -> Record:
    found: Record = {name: system.sysctl(name) for name in extra}
    base = system.root + "/proc/sys/"
    with system.enter():
        for directory in _PER_DEVICE:
            leaves: list[str] = []
            for device in devices:
                if device not in links:
                    continue
                place = f"{directory}/{device}"
                leaves = leaves or _settable(base + place)
                for leaf in leaves:
                    found[f"{place}/{leaf}"] = _value(f"{base}{place}/{leaf}")
        for directory, leaf in sorted(wide):
            for device in ("all", "default", *sorted(links)):
                place = f"{directory}/{device}/{leaf}"
                found[place] = _value(base + place)
    return found


def settable_keys(system: System) -> list[str]:
    """Return the keys of a whole namespace that can be written; those of devices are not in it."""
    found = []
    with system.enter():
        base = system.root + "/proc/sys/"
        waiting = ["net"]
        while waiting:
            place = waiting.pop()
            for name in _listed(base + place):
                path = f"{place}/{name}"
                if place in _PER_DEVICE and name not in ("all", "default"):
                    continue
                mode = os.stat(base + path).st_mode
                if mode & 0o170000 == 0o040000:
                    waiting.append(path)
                elif mode & 0o200 and mode & 0o400 and name not in _TWICE:
                    found.append(path)
    return sorted(found)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _settable(directory: str) -> list[str]:
    try:
        leaves = os.listdir(directory)
        return sorted(
            leaf
            for leaf in leaves
            if leaf not in _TWICE and os.stat(f"{directory}/{leaf}").st_mode & 0o200
        )
    except OSError:
        return []


def _value(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 4096).decode("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_file(system: System, path: str) -> Record | None:
    place = system.root + path
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found: Record = {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}
    if status.st_mode & 0o170000 == 0o120000:
        return {**found, "link": os.readlink(place)}
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as stream:
        return {**found, "data": stream.read().hex()}
