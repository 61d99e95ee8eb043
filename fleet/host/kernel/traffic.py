"""Traffic control as records: queueing disciplines, classes and filters, as they would be sent.

The records of one side of a device (``eth0/egress``, ``eth0/ingress``) come in the order in which
they are made. Counters and what the kernel adds by itself are taken off, so that two sides that
are equal are the same plain data. A default discipline has no handle and is no record.
"""

from __future__ import annotations

from _struct import Struct

from fleet.host.kernel.netlink import NESTED, attribute_list, attributes, number, pack, text_of
from fleet.host.kernel.raw import bytes_of, reference, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from fleet.host.kernel.netlink import Netlink

    Record = dict[str, Any]
    Sides = dict[str, list[Record]]

NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWCLASS, GETCLASS = 40, 42
NEWFILTER, GETFILTER, NEWACTION = 44, 46, 48
#: include/uapi/linux/pkt_sched.h
ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
INGRESS_HANDLE, CLSACT_PARENTS = 0xFFFF0000, (0xFFFFFFF2, 0xFFFFFFF3)
TCA_KIND, TCA_OPTIONS, TCA_CHAIN = 1, 2, 11
#: Disciplines whose classes are somebody's; those of the others come with them.
CLASSFUL = ("htb", "hfsc", "drr", "qfq")
HTB_INIT, HTB_PARMS = 2, 1
U32_CLASSID, U32_HASH, U32_DIVISOR, U32_SEL, U32_ACT, U32_MARK, U32_FLAGS = 1, 2, 4, 5, 7, 10, 11
#: A classifier's attributes: its actions, its flags, and what it counts or pads.
_CLASSIFIERS = {
    "u32": (U32_ACT, U32_FLAGS, (9, 12)),
    "matchall": (2, 3, (4, 5)),
    "basic": (3, 0, (5, 6)),
    "fw": (4, 0, ()),
}
#: TCA_CLS_FLAGS_SKIP_HW and SKIP_SW: what is written; the others are answers.
_FLAGS_WRITTEN = 0x3

message = Struct("=BxxxiIII")


def read_traffic(
    netlink: Netlink, names: dict[int, str], inside: Collection[str] | None = None
) -> Sides:
    """Return what somebody set, by ``device/side``; of all devices where ``inside`` is None."""
    own: dict[int, list[Record]] = {}
    for _, payload in netlink.dump(GETQDISC, bytes(20)):
        _, index, handle, parent, _ = message.unpack_from(payload)
        if handle and index in names and (inside is None or names[index] in inside):
            own.setdefault(index, []).append(_qdisc(payload, handle, parent))
    found: Sides = {}
    for index, qdiscs in own.items():
        ingress = [record for record in qdiscs if record["handle"] == INGRESS_HANDLE]
        egress = [record for record in qdiscs if record["handle"] != INGRESS_HANDLE]
        if egress:
            classes = _classes(netlink, index) if _classful(egress) else []
            parents = [record["handle"] for record in (*egress, *classes)]
            filters = _filters(netlink, index, parents, names)
            found[f"{names[index]}/egress"] = [*_by_parent(egress, classes), *filters]
        if ingress:
            clsact = ingress[0]["kind"] == "clsact"
            parents = list(CLSACT_PARENTS) if clsact else [INGRESS_HANDLE]
            filters = _filters(netlink, index, parents, names)
            found[f"{names[index]}/ingress"] = [*ingress, *filters]
    return found


def _classful(qdiscs: list[Record]) -> bool:
    return any(record["kind"] in CLASSFUL for record in qdiscs)


def _qdisc(payload: bytes, handle: int, parent: int) -> Record:
    parts = attributes(payload, 20)
    kind, options = text_of(parts.get(TCA_KIND, b"")), parts.get(TCA_OPTIONS)
    if kind == "htb" and options is not None:
        options = b"".join(pack(key, _htb(key, value)) for key, value in attribute_list(options))
    return {
        "object": "qdisc",
        "kind": kind,
        "handle": handle,
        "parent": parent,
        "options": None if options is None else options.hex(),
    }


def _htb(key: int, value: bytes) -> bytes:
    """htb shows its version whole and takes its upper half; its last number is a counter."""
    if key != HTB_INIT:
        return value
    return u32(number(value[:4]) >> 16) + value[4:16] + bytes(4)


def _classes(netlink: Netlink, index: int) -> list[Record]:
    found = []
    for _, payload in netlink.dump(GETCLASS, message.pack(0, index, 0, 0, 0)):
        _, _, handle, parent, _ = message.unpack_from(payload)
        parts = attributes(payload, 20)
        kind = text_of(parts.get(TCA_KIND, b""))
        if kind not in CLASSFUL or not handle & 0xFFFF:
            continue
        options = parts.get(TCA_OPTIONS, b"")
        if kind == "htb":
            # The level follows from where the class is.
            options = b"".join(
                pack(key, value[:36] + bytes(4) + value[40:] if key == HTB_PARMS else value)
                for key, value in attribute_list(options)
            )
        found.append(
            {
                "object": "class",
                "kind": kind,
                "handle": handle,
                "parent": parent,
                "options": options.hex(),
            }
        )
    return sorted(found, key=lambda record: record["handle"])


def _by_parent(qdiscs: list[Record], classes: list[Record]) -> list[Record]:
    """Return disciplines and classes so that each comes after what it hangs on."""
    waiting, made = [*qdiscs, *classes], {ROOT}
    ordered: list[Record] = []
    while waiting:
        ready = [record for record in waiting if _hangs_on(record) in made]
        if not ready:
            return ordered + waiting
        ordered += ready
        made |= {record["handle"] for record in ready}
        waiting = [record for record in waiting if record not in ready]
    return ordered


def _hangs_on(record: Record) -> int:
    if record["object"] == "class" and record["parent"] == ROOT:
        return int(record["handle"] & 0xFFFF0000)
    return int(record["parent"])


def _filters(
    netlink: Netlink, index: int, parents: Iterable[int], names: dict[int, str]
) -> list[Record]:
    found: list[Record] = []
    for parent in parents:
        tables: list[tuple[int, Record]] = []
        for _, payload in netlink.dump(GETFILTER, message.pack(0, index, 0, parent, 0)):
            _, _, handle, _, info = message.unpack_from(payload)
            if handle:
                tables.append((handle, _filter(payload, handle, parent, info, names)))
        found += _in_order(tables)
    return found


def _in_order(items: list[tuple[int, Record]]) -> list[Record]:
    """Leave u32's own tables out, number their nodes anew, and sort as they were made.

    The table that comes with a u32 filter is the oldest of its preference and the last to be
    shown; its number counts on for each further preference (net/sched/cls_u32.c, u32_init).
    """
    own: dict[tuple[int, int], int] = {}
    for handle, record in items:
        if _is_table(record):
            own[record["info"], record["chain"]] = handle
    keyed: list[tuple[tuple[int, int, int], Record]] = []
    for place, (handle, record) in enumerate(items):
        root = own.get((record["info"], record["chain"]), 0)
        if record["kind"] != "u32":
            keyed.append(((0, 0, place), record))
        elif _is_table(record):
            if handle != root:
                keyed.append(((root, 0, -place), record))
        else:
            keep = [item for item in record["options"] if item[0] != U32_HASH]
            if handle & 0xFFF00000 == root:
                record = {**record, "handle": handle & 0xFFF, "options": keep}
            keyed.append(((root, 1, place), record))
    return [record for _, record in sorted(keyed, key=lambda item: item[0])]


def _is_table(record: Record) -> bool:
    divided = any(item[0] == U32_DIVISOR for item in record["options"])
    return record["kind"] == "u32" and not record["handle"] & 0xFFFFF and divided


def _filter(payload: bytes, handle: int, parent: int, info: int, names: dict[int, str]) -> Record:
    parts = attributes(payload, 20)
    kind = text_of(parts.get(TCA_KIND, b""))
    act, flags, counted = _CLASSIFIERS.get(kind, (0, 0, ()))
    options: list[list[Any]] = []
    for key, value in attribute_list(parts.get(TCA_OPTIONS, b"")):
        if key in counted:
            continue
        if act and key == act:
            actions = [_action(inner, names) for _, inner in attribute_list(value)]
            options.append([key, {"actions": actions}])
        elif flags and key == flags:
            if number(value) & _FLAGS_WRITTEN:
                options.append([key, u32(number(value) & _FLAGS_WRITTEN).hex()])
        elif kind == "u32" and key == U32_MARK:
            options.append([key, (value[:8] + bytes(4)).hex()])
        else:
            options.append([key, value.hex()])
    return {
        "object": "filter",
        "kind": kind,
        "handle": handle,
        "parent": parent,
        "info": info,
        "chain": number(parts.get(TCA_CHAIN, b"")),
        "options": options,
    }


def _action(payload: bytes, names: dict[int, str]) -> Record:
    """Return an action without what it counts: TCA_ACT_KIND, OPTIONS, COOKIE, FLAGS, HW_STATS."""
    parts = attributes(payload)
    kind = text_of(parts.get(1, b""))
    options: list[list[Any]] = []
    for key, value in attribute_list(parts.get(2, b"")):
        if kind == "police":
            if key == 1:  # struct tc_police: refcnt and bindcnt before the last number
                options.append([key, (value[:44] + bytes(8) + value[52:]).hex()])
            elif key not in (8, 9):
                options.append([key, value.hex()])
        elif key == 2:  # tc_gen: index, capab, action, refcnt, bindcnt
            body = value[:12] + bytes(8) + value[20:]
            if kind == "mirred":
                options.append([key, body[:24].hex(), reference(body[24:28], names)])
            else:
                options.append([key, body.hex()])
        elif key not in (1, 3):  # the times, and padding
            options.append([key, value.hex()])
    rest = [[key, parts[key].hex()] for key in (6, 7, 8) if key in parts]
    return {"kind": kind, "options": options, "rest": rest}


# Sending


def request_of(record: Record, index: int, indexes: dict[str, int]) -> tuple[int, bytes]:
    """Return the message that makes what a record says; raises Unknown."""
    kind = pack(TCA_KIND, record["kind"].encode("ascii") + b"\0")
    if record["object"] == "filter":
        head = message.pack(0, index, record["handle"], record["parent"], record["info"])
        chain = pack(TCA_CHAIN, u32(record["chain"])) if record["chain"] else b""
        options = b"".join(_option(item, indexes) for item in record["options"])
        return NEWFILTER, head + kind + chain + pack(TCA_OPTIONS | NESTED, options)
    head = message.pack(0, index, record["handle"], record["parent"], 0)
    if record["options"] is None:
        return _type(record), head + kind
    return _type(record), head + kind + pack(TCA_OPTIONS, bytes.fromhex(record["options"]))


def _type(record: Record) -> int:
    return NEWCLASS if record["object"] == "class" else NEWQDISC


def _option(item: list[Any], indexes: dict[str, int]) -> bytes:
    key, value = item[0], item[1]
    if not isinstance(value, dict):
        return pack(key, bytes.fromhex(value))
    return pack(key | NESTED, _pack_actions(value["actions"], indexes))


def _pack_actions(recorded: list[Record], indexes: dict[str, int]) -> bytes:
    actions = b""
    for place, action in enumerate(recorded, 1):
        inner = b""
        for part in action["options"]:
            body = bytes.fromhex(part[1])
            inner += pack(part[0], body + bytes_of(part[2], indexes) if len(part) > 2 else body)
        rest = b"".join(pack(kind, bytes.fromhex(text)) for kind, text in action["rest"])
        name = pack(1, action["kind"].encode("ascii") + b"\0")
        actions += pack(place | NESTED, name + pack(2 | NESTED, inner) + rest)
    return actions


def actions_of(record: Record, indexes: dict[str, int]) -> bytes:
    """Return the payload of a RTM_NEWACTION with a filter's actions, empty where it has none."""
    for item in record["options"] if record["object"] == "filter" else ():
        if isinstance(item[1], dict):
            # struct tcamsg, and TCA_ACT_TAB.
            return bytes(4) + pack(1 | NESTED, _pack_actions(item[1]["actions"], indexes))
    return b""


def removal(side: str, index: int) -> bytes:
    """Return the payload of a RTM_DELQDISC that gives a side its default back."""
    if side == "ingress":
        return message.pack(0, index, INGRESS_HANDLE, INGRESS, 0)
    return message.pack(0, index, 0, ROOT, 0)


def goes_first(now: list[Record], wanted: list[Record]) -> bool:
    """Say whether a side has to be taken away before what is wanted can be made.

    A tbf alone is changed as it is; everything else is refused, or keeps what hangs on it.
    """
    if not now:
        return False
    alone = len(now) == len(wanted) == 1 and now[0]["handle"] == wanted[0]["handle"]
    return not (alone and now[0]["kind"] == wanted[0]["kind"] == "tbf")
