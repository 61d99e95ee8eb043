"""Put back what lives on devices: parameters, addresses, routes, rules, neighbours and the like."""

from __future__ import annotations

import os

from fleet.host.kernel.bridge_vlans import vlans_message
from fleet.host.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, pack
from fleet.host.kernel.raw import (
    Unknown,
    neighbour_message,
    nexthop_message,
    route_message,
    rule_message,
    u32,
)
from fleet.host.kernel.raw_link import DELLINK, SETLINK
from fleet.host.reverting import differences as diff
from fleet.host.reverting.restore_addresses import restore_addresses
from fleet.host.reverting.restore_sysctls import restore_sysctls
from fleet.host.reverting.restore_traffic import restore_traffic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

NEWROUTE, DELROUTE, NEWNEIGH, DELNEIGH, NEWRULE, DELRULE = 24, 25, 28, 29, 32, 33
NEWMDB, DELMDB, NEWNEXTHOP, DELNEXTHOP = 84, 85, 104, 105
AF_BRIDGE = 7


def restore_layers(step: Step) -> None:
    """Make everything on the devices what it was, from the bottom up."""
    restore_sysctls(step)
    _settings(step)
    restore_traffic(step)
    restore_addresses(step)
    step.look()
    _routes(step)
    _both(step, "rules", diff.rule_differences, (NEWRULE, DELRULE), rule_message, NLM_F_CREATE)

    def neighbour(item: Record) -> bytes:
        return neighbour_message(item, step.indexes)

    def group(item: Record) -> bytes:
        return _mdb_message(item, step.indexes)

    put = NLM_F_CREATE | NLM_F_REPLACE
    kinds = (NEWNEIGH, DELNEIGH)
    _both(step, "neighbours", diff.neighbour_differences, kinds, neighbour, put)
    _vlans(step)
    _both(step, "fdb", diff.fdb_differences, kinds, neighbour, _fdb_flags)
    _both(step, "mdb", diff.mdb_differences, (NEWMDB, DELMDB), group, NLM_F_CREATE)
    _tables(step)
    _files(step)


def take_groups(step: Step) -> None:
    """Take multicast groups away that are too much while their bridges are still up: from one
    that is down none can be taken (net/bridge/br_mdb.c, br_mdb_parse)."""
    for item in diff.mdb_differences(step.then, step.now)[1]:
        step.ask(
            "mdb", diff.name_of(item), DELMDB, 0, lambda it: _mdb_message(it, step.indexes), item
        )


def _both(
    step: Step,
    part: str,
    compare: Callable[[Record, Record], diff.Lists],
    kinds: tuple[int, int],
    message: Callable[[Record], bytes],
    flags: int | Callable[[Record], int],
) -> None:
    """Take away what is too much, then add what is missing."""
    missing, extra = compare(step.then, step.now)
    for item in extra:
        step.ask(part, diff.name_of(item), kinds[1], 0, message, item)
    for item in missing:
        how = flags if isinstance(flags, int) else flags(item)
        step.ask(part, diff.name_of(item), kinds[0], how, message, item)


def _fdb_flags(item: Record) -> int:
    # A vxlan sends what has no entry, and groups, to a list of hosts, which is not replaced but
    # added to (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_update_existing).
    mac = bytes.fromhex(item["mac"])
    several = not any(mac) or mac[0] & 1
    return NLM_F_CREATE | (NLM_F_APPEND if several and not item["bridge"] else NLM_F_REPLACE)


def _routes(step: Step) -> None:
    """Routes and nexthop objects; a route through a gateway waits for the one that reaches it."""
    missing, extra = diff.route_differences(step.then, step.now)
    objects, strange = diff.nexthop_differences(step.then, step.now)
    seconds = diff.elapsed(step.then, step.now)

    def message(item: Record) -> bytes:
        return route_message(item, step.indexes, seconds)

    for item in extra:
        step.ask("routes", diff.name_of(item), DELROUTE, 0, message, item)
    for item in sorted(strange, key=lambda i: not i["members"]):
        gone = bytes(8) + pack(1, u32(item["id"]))
        step.ask("nexthops", diff.name_of(item), DELNEXTHOP, 0, bytes, gone)
    for item in sorted(objects, key=lambda i: bool(i["members"])):
        flags = NLM_F_CREATE | NLM_F_REPLACE
        step.ask(
            "nexthops",
            diff.name_of(item),
            NEWNEXTHOP,
            flags,
            nexthop_message,
            item,
            step.indexes,
        )
    waiting = missing
    while waiting:
        left = [item for item in waiting if not _add_route(step, item, message)]
        if len(left) == len(waiting):
            return
        waiting = left


def _add_route(step: Step, item: Record, message: Callable[[Record], bytes]) -> bool:
    # Two devices may have a route to one subnet: for IPv4 that must be asked for. For IPv6 it
    # would join them to one multipath route.
    flags = NLM_F_CREATE | (NLM_F_APPEND if item["family"] == 2 else 0)
    return step.ask("routes", diff.name_of(item), NEWROUTE, flags, message, item)


def _mdb_message(item: Record, indexes: dict[str, int]) -> bytes:
    for device in (item["bridge"], item["dev"]):
        if device not in indexes:
            raise Unknown(device)
    entry = u32(indexes[item["dev"]]) + bytes.fromhex(item["entry"])[4:]
    head = bytes((AF_BRIDGE, 0, 0, 0)) + u32(indexes[item["bridge"]])
    return head + pack(1, entry)


def _vlans(step: Step) -> None:
    for device, (then, now) in diff.map_differences(step.then, step.now, "vlans").items():
        link = step.now["links"].get(device)
        if link is None or device not in step.indexes:
            continue
        own = link["kind"] == "bridge" and not link["slave"]
        wanted = {int(vid): flags for vid, flags in (then or {}).items()}
        present = {int(vid): flags for vid, flags in (now or {}).items()}
        changed = {vid: flags for vid, flags in wanted.items() if present.get(vid) != flags}
        gone = {vid: 0 for vid in present if vid not in wanted}
        for kind, vlans in ((SETLINK, changed), (DELLINK, gone)):
            if vlans and not _send_vlans(step, device, kind, vlans, own):
                for vid, flags in vlans.items():
                    _send_vlans(step, device, kind, {vid: flags}, own)


def _send_vlans(step: Step, device: str, kind: int, vlans: dict[int, int], own: bool) -> bool:
    return step.ask("vlans", device, kind, 0, vlans_message, step.indexes[device], vlans, own)


def _settings(step: Step) -> None:
    if step.then.get("settings"):
        from fleet.host.reverting.restore_settings import restore_settings

        restore_settings(step)
        step.look()  # queues may have come, each with files of its own
    if step.then.get("values"):
        from fleet.host.reverting.restore_values import restore_values

        restore_values(step)
    if step.then.get("mounts") or step.then.get("modules"):
        from fleet.host.reverting.restore_mounts import restore_mounts

        restore_mounts(step)


def _tables(step: Step) -> None:
    """nftables tables go back in one transaction, or each by itself where that is refused."""
    changed = diff.table_differences(step.then, step.now)
    if not changed:
        return
    from fleet.host.tables.ruleset import put_back

    pictures = {name: then for name, (then, _) in changed.items()}
    if len(pictures) > 1 and step.attempt("tables", "", put_back, step.system, pictures):
        return
    for name, then in pictures.items():
        step.attempt("tables", name, put_back, step.system, {name: then})


def _files(step: Step) -> None:
    """Files come last, and each on its own: a full or broken disk keeps nothing else back."""
    for path, (expected, _) in diff.map_differences(step.then, step.now, "files").items():
        place = step.system.root + path
        step.attempt("files", path, _write_file, place, expected)


def _write_file(place: str, wanted: Record | None) -> None:
    if wanted is None:
        os.unlink(place)
        return
    beside = f"{place}.fleet-{os.getpid()}"
    if "link" in wanted:
        os.symlink(wanted["link"], beside)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(bytes.fromhex(wanted["data"]))
        os.chmod(beside, wanted["mode"])
    os.chown(beside, wanted["uid"], wanted["gid"], follow_symlinks=False)
    os.rename(beside, place)
