"""What two snapshots differ in; pure.

Only what a revert would put right counts. What appears by itself, or is somebody else's to make,
is no difference: the kernel's link-local addresses, leases, a daemon's new routes, devices that
were not named.
"""

from __future__ import annotations

from fleet.host import wire
from fleet.host.reverting.snapshot_parts import KERNEL, LOCAL_TABLE, NOWHERE, has_switches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Record = dict[str, Any]
    Snapshot = dict[str, Any]
    Lists = tuple[list[Record], list[Record]]

#: RTPROT_UNSPEC, BOOT, STATIC: what people and fleet write.
OURS = (0, 3, 4)
_LINK_FIELDS = (
    "kind", "link", "master", "mac", "mtu", "txqlen", "group", "alias", "flags", "altnames",
)  # fmt: skip
PORT_STATE, STP = "1", "5"


def differences(snapshot: Snapshot, now: Snapshot) -> list[Record]:
    """Return what must change for ``now`` to be the snapshot.

    Each is ``{"namespace", "part", "name", "what", "expected", "actual"}``; an empty list says
    that they are equal, after the kernel's own normalisation.
    """
    return _differences(snapshot, now, "")


def _differences(snapshot: Snapshot, now: Snapshot, namespace: str) -> list[Record]:
    found: list[Record] = []

    def add(part: str, name: str, what: str, expected: Any, actual: Any) -> None:
        words = (namespace, part, name, what, expected, actual)
        keys = ("namespace", "part", "name", "what", "expected", "actual")
        found.append(dict(zip(keys, words)))

    for name in snapshot["devices"]:
        for what, (expected, actual) in link_differences(snapshot, now, name).items():
            add("links", name, what, expected, actual)
    for device in sorted({*snapshot["addresses"], *now["addresses"]}):
        missing, extra = address_differences(snapshot, now, device)
        for item in missing:
            add("addresses", device, address_key(item), item, None)
        for item in extra:
            add("addresses", device, address_key(item), None, item)
        if not missing and not extra:
            then, have = address_orders(snapshot, now, device)
            if then != have:
                add("addresses", device, "order", then, have)
    for part, compare in _LISTS.items():
        missing, extra = compare(snapshot, now)
        for item in missing:
            add(part, name_of(item), "", item, None)
        for item in extra:
            add(part, name_of(item), "", None, item)
    for part in ("sysctls", "files", "vlans", "traffic"):
        for name, (expected, actual) in map_differences(snapshot, now, part).items():
            add(part, name, "", expected, actual)
    for name, (then, have) in table_differences(snapshot, now).items():
        add("tables", name, "", then and then["text"], have and have["text"])
    if snapshot.get("settings"):
        from fleet.host.reverting.restore_settings import settings_differences

        for name, (before, after) in settings_differences(snapshot, now).items():
            add("settings", name, "", before, after)
    if snapshot.get("functions"):
        from fleet.host.reverting.restore_functions import function_differences

        for name, (before, after) in function_differences(snapshot, now).items():
            add("functions", name, "", before, after)
    if snapshot.get("drivers"):
        from fleet.host.reverting.restore_drivers import driver_differences

        for name, (before, after) in driver_differences(snapshot, now).items():
            add("drivers", name, "", before, after)
    if snapshot.get("mounts") or snapshot.get("modules"):
        from fleet.host.reverting import restore_mounts

        for name, (before, after) in restore_mounts.mount_differences(snapshot, now).items():
            add("mounts", name, "", before, after)
        for name, (before, after) in restore_mounts.module_differences(snapshot, now).items():
            add("modules", name, "", before, after)
    if snapshot.get("values"):
        from fleet.host.reverting.restore_values import value_differences

        for name, (before, after) in value_differences(snapshot, now).items():
            add("values", name, "", before, after)
    if has_switches(snapshot["scope"]):
        from fleet.host.reverting import restore_switches

        for name, back in restore_switches.switch_differences(snapshot, now).items():
            add("switches", name, "", back, None)
        for name, flows in restore_switches.flow_differences(snapshot, now).items():
            add("flows", name, "", *flows)
    if snapshot["scope"].get("networks"):
        from fleet.host.reverting.restore_networks import network_differences

        for name, (before, after) in network_differences(snapshot, now).items():
            add("networks", name, "", before, after)
    if snapshot["scope"].get("nwfilters"):
        from fleet.host.reverting.restore_networks import filter_differences

        for name, (before, after) in filter_differences(snapshot, now).items():
            add("nwfilters", name, "", before, after)
    if snapshot["scope"].get("guests"):
        from fleet.host.reverting.restore_guests import guest_differences

        for name, (before, after) in guest_differences(snapshot, now).items():
            add("guests", name, "", before, after)
    for name, inner in snapshot["namespaces"].items():
        there = now["namespaces"].get(name)
        if inner is None or there is None:
            if inner is not there:
                add("namespaces", name, "", inner is not None, there is not None)
        else:
            found += _differences(inner, there, name)
    return found


def table_differences(snapshot: Snapshot, now: Snapshot) -> dict[str, tuple[Any, Any]]:
    """Return the nftables tables that mean something else, as (then, now)."""
    found = {}
    for name, then in (snapshot.get("tables") or {}).items():
        have = (now.get("tables") or {}).get(name)
        if (then and then["meaning"]) != (have and have["meaning"]):
            found[name] = (then, have)
    return found


def name_of(item: Record) -> str:
    """Return what a message calls a record by: its devices, or its number."""
    return str(item.get("dev") or ",".join(item.get("devices") or ()) or item.get("id") or "")


# Devices


def link_differences(snapshot: Snapshot, now: Snapshot, name: str) -> Record:
    """Return what a device differs in, as {what: (expected, actual)}; ``exists`` alone for one."""
    then, have = snapshot["links"][name], now["links"].get(name)
    if then is None:
        present = have is not None and name in snapshot["named"]
        return {"exists": (False, True)} if present else {}
    if have is None:
        return {} if lost_guest(snapshot, then) else {"exists": (True, False)}
    found: Record = {}
    for field in _LINK_FIELDS:
        if field == "link" and then["netnsid"] is not None:
            continue  # an index of another namespace
        if then[field] != have[field]:
            found[field] = (then[field], have[field])
    if then["kind"] != have["kind"]:
        return found
    for field in ("data", "port", "ipv6"):
        if field == "port" and then["master"] != have["master"]:
            # They come with the port; but all are to be looked at once it is back.
            continue
        for key, value in then[field].items():
            if field == "port" and key == PORT_STATE and not _state_counts(snapshot, then, have):
                continue
            if have[field].get(key) != value:
                found[f"{field}.{key}"] = (value, have[field].get(key))
    for key in owned_since(then, have):
        found[f"data.{key}"] = (None, have["data"][key])
    return found


def owned_since(then: Record, have: Record) -> list[str]:
    """Return the owner and the group that a tap or tun has and did not have.

    IFLA_TUN_OWNER and IFLA_TUN_GROUP: the kernel cannot be told that it is nobody's any more.
    """
    if then["kind"] != "tun" or have["kind"] != "tun":
        return []
    return [key for key in ("1", "2") if key in have["data"] and key not in then["data"]]


def lost_guest(snapshot: Snapshot, then: Record) -> bool:
    """Say whether a device that is gone went with its guest: a tap that nobody named or keeps."""
    if then["name"] in snapshot["named"]:
        return False
    persistent = then["kind"] == "tun" and any(bytes.fromhex(then["data"].get("6", "")))
    return then["kind"] in ("tun", "macvtap") and not persistent


def _state_counts(snapshot: Snapshot, then: Record, have: Record) -> bool:
    """STP sets a port's state, and so does the link; without them it is an administrator's."""
    bridge = snapshot["links"].get(then["master"] or "")
    stp = bridge is None or any(bytes.fromhex(bridge["data"].get(STP, "00")))
    return not stp and bool(then["flags"] & 1) and bool(then["carrier"] and have["carrier"])


# Addresses


def address_key(item: Record) -> str:
    """Return what the kernel tells addresses of a device apart by."""
    peer = next((value for kind, value in item["attributes"] if kind == 1), "")
    return f"{item['family']}/{item['local']}/{item['length']}/{peer}"


def address_text(item: Record) -> str:
    """Return all of an address that stays the same while it lives."""
    fields = [item[key] for key in ("family", "length", "scope", "flags", "permanent")]
    return wire.dumps([*fields, item["preferred"] == 0, sorted(item["attributes"])])


def elapsed(snapshot: Snapshot, now: Snapshot) -> float:
    """Return seconds between two snapshots."""
    return max(0.0, float(now["at"] - snapshot["at"]))


def alive(item: Record, seconds: float) -> bool:
    """Say whether an address's lifetime has not run out after so many seconds."""
    return bool(item["permanent"] or item["valid"] > seconds)


def address_differences(snapshot: Snapshot, now: Snapshot, device: str) -> Lists:
    """Return the addresses of a device that are missing, and those that are too many."""
    if snapshot["links"].get(device) is None or now["links"].get(device) is None:
        return [], []
    seconds = elapsed(snapshot, now)
    then = [item for item in snapshot["addresses"].get(device, []) if alive(item, seconds)]
    have = now["addresses"].get(device, [])
    # Without carrier the kernel makes no link-local address: one that is there was made meanwhile.
    links = (snapshot["links"][device], now["links"][device])
    quiet = not any(link["carrier"] for link in links)
    present = {address_text(item) for item in have}
    wanted = {address_text(item) for item in then}
    keys = {address_key(item) for item in then}
    missing = [item for item in then if address_text(item) not in present]
    extra = [
        item
        for item in have
        if address_text(item) not in wanted
        and (address_key(item) in keys or (item["permanent"] and (quiet or not item["kernel"])))
    ]
    return missing, extra


def address_orders(snapshot: Snapshot, now: Snapshot, device: str) -> tuple[list[str], list[str]]:
    """Return the keys of the addresses that both have, in the order of each.

    One that somebody else added meanwhile has no place of its own in it.
    """
    items = snapshot["addresses"].get(device, [])
    then = [address_key(item) for item in items if not item.get("theirs")]
    have = [address_key(item) for item in now["addresses"].get(device, [])]
    return [key for key in then if key in have], [key for key in have if key in then]


# Lists of records


def _lists(
    snapshot: Snapshot, now: Snapshot, part: str, text: Callable[[Record], str]
) -> tuple[list[Record], list[Record]]:
    present = {text(item) for item in now[part]}
    wanted = {text(item) for item in snapshot[part]}
    missing = [item for item in snapshot[part] if text(item) not in present]
    extra = [item for item in now[part] if text(item) not in wanted]
    return missing, extra


def route_text(item: Record) -> str:
    """Return all of a route but its age."""
    return wire.dumps([item["header"], sorted(item["attributes"], key=wire.dumps)])


def _by_itself(item: Record) -> bool:
    """Say whether a kernel's route comes and goes with a device or an address by itself."""
    if item["table"] == LOCAL_TABLE:
        return True
    to = next((value for kind, value in item["attributes"] if kind == 1), "")
    return item["family"] == 10 and isinstance(to, str) and to.startswith(("fe8", "ff"))


def route_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return routes that are missing, and those that are too many."""
    seconds, inside = elapsed(snapshot, now), set(snapshot["devices"])
    missing, extra = _lists(snapshot, now, "routes", route_text)
    missing = [item for item in missing if item.get("expires", seconds + 1) > seconds]
    return missing, [
        item
        for item in extra
        if (inside.intersection(item["devices"]) or item["type"] in NOWHERE)
        and (item["protocol"] in OURS or (item["protocol"] == KERNEL and not _by_itself(item)))
    ]


def nexthop_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return nexthop objects that are missing or too many."""
    return _lists(snapshot, now, "nexthops", wire.dumps)


def rule_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return policy rules that are missing or too many; where order differs, those to move."""
    missing, extra = _lists(snapshot, now, "rules", wire.dumps)
    if missing or extra:
        return missing, extra
    then = [wire.dumps(item) for item in snapshot["rules"]]
    have = [wire.dumps(item) for item in now["rules"]]
    if then == have:
        return [], []
    same = 0
    while same < min(len(then), len(have)) and then[same] == have[same]:
        same += 1
    priority = (snapshot["rules"][same:] or now["rules"][same:])[0]["priority"]
    return (
        [item for item in snapshot["rules"][same:] if item["priority"] == priority],
        [item for item in now["rules"][same:] if item["priority"] == priority],
    )


def neighbour_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return permanent neighbours and proxies that are missing or too many."""
    return _lists(snapshot, now, "neighbours", wire.dumps)


def fdb_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return static forwarding entries that are missing or too many."""
    missing, extra = _lists(snapshot, now, "fdb", wire.dumps)
    own = {link["mac"] for link in snapshot["links"].values() if link}
    return missing, [item for item in extra if not item["bridge"] or item["mac"] not in own]


def mdb_differences(snapshot: Snapshot, now: Snapshot) -> Lists:
    """Return permanent multicast groups that are missing or too many."""
    return _lists(snapshot, now, "mdb", wire.dumps)


_LISTS = {
    "routes": route_differences,
    "nexthops": nexthop_differences,
    "rules": rule_differences,
    "neighbours": neighbour_differences,
    "fdb": fdb_differences,
    "mdb": mdb_differences,
}


def map_differences(snapshot: Snapshot, now: Snapshot, part: str) -> Record:
    """Return what differs in a part that is a mapping, as {name: (expected, actual)}."""
    found: Record = {}
    for name in sorted({*snapshot[part], *now[part]}):
        expected, actual = snapshot[part].get(name), now[part].get(name)
        if expected == actual:
            continue
        if part == "sysctls" and (name not in snapshot[part] or _of_missing(now, name)):
            continue
        if part == "vlans" and now["links"].get(name) is None:
            continue
        if part == "traffic" and now["links"].get(name.rpartition("/")[0]) is None:
            continue
        found[name] = (expected, actual)
    return found


def _of_missing(now: Snapshot, name: str) -> bool:
    """Say whether a key belongs to a device that is not there, which is a difference itself."""
    parts = name.split("/")
    return len(parts) == 5 and parts[3] in now["links"] and now["links"][parts[3]] is None
