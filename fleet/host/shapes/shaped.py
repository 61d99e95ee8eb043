"""What a limit or a set of classes is in the kernel: records of it, their meaning, and words.

The meaning leaves out what changes nothing: handles, quanta, and the rounding of the kernel, which
keeps a burst as the time it takes (net/sched/sch_tbf.c; 64 ns a tick, include/net/pkt_sched.h).
"""

from __future__ import annotations

from _struct import Struct, pack, unpack_from

from fleet.host.kernel.netlink import attributes, number
from fleet.host.kernel.netlink import pack as attribute
from fleet.host.kernel.traffic import HTB_INIT, HTB_PARMS, ROOT, U32_ACT, U32_CLASSID, U32_SEL
from fleet.host.shapes.packets import ALL, families, keys_of, match_words, selector, selectors
from fleet.host.shapes.rates import (
    bytes_per_second,
    microseconds,
    rate_words,
    size,
    size_words,
    time_words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from fleet.host.shapes.packets import Key

    Record = dict[str, Any]
    Words = dict[str, Any]

#: Whose root discipline it is: ours.
HANDLE = 0xF1EE0000
TICK = 64
#: The class that all others borrow from, and the first of those.
INNER, FIRST = 1, 0x10
#: Of a discipline: a hundredth of a second, but several full frames; of a class: 4 ms.
LEAST_BURST, LEAST_CLASS_BURST, LATENCY = 16384, 3200, 50_000
TBF_PARMS, RATE64, CEIL64, TBF_RATE64 = 1, 6, 7, 4

#: struct tc_ratespec: cell_log, linklayer (1 is Ethernet), overhead, cell_align, mpu, rate.
_rate = Struct("=BBHhHI")


def _spec(rate: int) -> bytes:
    return _rate.pack(0, 1, 0, 0, 0, min(rate, 0xFFFFFFFF))


def ticks(burst: int, rate: int) -> int:
    """Return how long a burst takes at a rate, as the kernel counts."""
    return burst * 10**9 // rate // TICK


# What is wanted


def limit_of(words: Words) -> tuple[int, int, int]:
    """Return a limit's bytes per second, burst in bytes and latency in microseconds."""
    rate = bytes_per_second(words["rate"])
    burst = size(words["burst"]) if words.get("burst") else max(rate // 100, LEAST_BURST)
    latency = microseconds(words["latency"]) if words.get("latency") else LATENCY
    return rate, burst, latency


def tbf(words: Words) -> list[Record]:
    """Return the records of a limit."""
    rate, burst, latency = limit_of(words)
    limit = rate * latency // 10**6 + burst
    parms = _spec(rate) + bytes(12) + pack("=III", limit, ticks(burst, rate), 0)
    options = attribute(TBF_PARMS, parms)
    if rate > 0xFFFFFFFF:
        options += attribute(TBF_RATE64, pack("=Q", rate))
    return [_record("qdisc", "tbf", HANDLE, ROOT, options)]


def _record(sort: str, kind: str, handle: int, parent: int, options: bytes) -> Record:
    return {
        "object": sort, "kind": kind, "handle": handle, "parent": parent, "options": options.hex(),
    }  # fmt: skip


def htb(words: Words) -> list[Record]:
    """Return the records of classes: each may use what the others leave, up to its ceil."""
    classes = words["classes"]
    minors = {item["name"]: FIRST + place for place, item in enumerate(classes)}
    default = minors.get(words.get("default") or "", 0)
    root = attribute(HTB_INIT, pack("=IIIII", 3, 10, default, 0, 0))
    root += attribute(5, pack("=I", 1000))  # TCA_HTB_DIRECT_QLEN
    rates = [_rates(item) for item in classes]
    whole = max(sum(rate for rate, _ in rates), *(ceil for _, ceil in rates))
    inner = HANDLE | INNER
    records = [
        _record("qdisc", "htb", HANDLE, ROOT, root),
        _record("class", "htb", inner, ROOT, _class(whole, whole, None, 0)),
    ]
    for item, (rate, ceil) in zip(classes, rates):
        burst = size(item["burst"]) if item.get("burst") else None
        options = _class(rate, ceil, burst, item.get("priority") or 0)
        records.append(_record("class", "htb", HANDLE | minors[item["name"]], inner, options))
    place = 0
    for item in classes:
        for protocol, keys in selectors(item.get("match")):
            place += 1
            records.append(_filter(place, protocol, keys, HANDLE | minors[item["name"]]))
    return records


def _rates(item: Words) -> tuple[int, int]:
    rate = bytes_per_second(item["rate"])
    return rate, bytes_per_second(item["ceil"]) if item.get("ceil") else rate


def _class(rate: int, ceil: int, burst: int | None, priority: int) -> bytes:
    burst = burst or max(rate // 250, LEAST_CLASS_BURST)
    cburst = max(ceil // 250, LEAST_CLASS_BURST)
    quantum = max(1514, min(rate // 10, 200_000))
    numbers = pack("=IIIII", ticks(burst, rate), ticks(cburst, ceil), quantum, 0, priority)
    options = attribute(HTB_PARMS, _spec(rate) + _spec(ceil) + numbers)
    for kind, value in ((RATE64, rate), (CEIL64, ceil)):
        if value > 0xFFFFFFFF:
            options += attribute(kind, pack("=Q", value))
    return options


def _filter(place: int, protocol: int, keys: Iterable[Key], flow: int) -> Record:
    options = [[U32_SEL, selector(keys).hex()], [U32_CLASSID, pack("=I", flow).hex()]]
    return u32_filter(HANDLE, place, protocol, options)


def u32_filter(parent: int, preference: int, protocol: int, options: list[list[Any]]) -> Record:
    """Return the record of the first filter of a preference."""
    info = preference << 16 | number(protocol.to_bytes(2, "big"))
    return {
        "object": "filter", "kind": "u32", "handle": 0x800, "parent": parent, "info": info,
        "chain": 0, "options": options,
    }  # fmt: skip


def ingress(target: str) -> list[Record]:
    """Return the records that send all that comes in through another device."""
    options: list[Any] = [
        [U32_SEL, selector([(0, 0, 0)]).hex()],
        # TC_ACT_STOLEN, TCA_EGRESS_REDIR.
        [U32_ACT, {"actions": [{"kind": "mirred", "rest": [], "options": [
            [2, pack("=IIiiii", 0, 0, 4, 0, 0, 1).hex(), {"dev": target}]]}]}],
    ]  # fmt: skip
    qdisc = _record("qdisc", "ingress", 0xFFFF0000, 0xFFFFFFF1, b"")
    return [qdisc, u32_filter(0xFFFF0000, 0xF1EE, ALL, options)]


# What is there


def _rate_at(payload: bytes, offset: int, wide: bytes) -> int:
    return number(wide) if wide else int(unpack_from("=I", payload, offset + 8)[0])


def meaning(records: list[Record]) -> Words | None:
    """Return what the egress side of a device does, None where this module cannot tell."""
    if not records:
        return None
    kind = records[0]["kind"]
    if kind == "tbf" and len(records) == 1:
        return _tbf_meaning(records[0])
    return _htb_meaning(records) if kind == "htb" else None


def _tbf_meaning(record: Record) -> Words | None:
    parts = attributes(bytes.fromhex(record["options"] or ""))
    parms = parts.get(TBF_PARMS, b"")
    if len(parms) < 36 or unpack_from("=I", parms, 20)[0]:
        return None
    rate = _rate_at(parms, 0, parts.get(TBF_RATE64, b""))
    limit, buffer, _ = unpack_from("=III", parms, 24)
    burst = buffer * TICK * rate / 10**9
    latency = (limit - burst) * 10**6 / rate
    return {"kind": "tbf", "rate": rate, "burst": burst, "latency": latency}


def _htb_meaning(records: list[Record]) -> Words | None:
    root = records[0]
    classes = [record for record in records[1:] if record["object"] == "class"]
    inner = [record for record in classes if record["parent"] == ROOT]
    if len(inner) != 1 or any(r["object"] == "qdisc" for r in records[1:]):
        return None
    top = inner[0]["handle"]
    leaves: dict[int, tuple[Any, ...]] = {}
    for record in classes:
        if record is not inner[0]:
            if record["parent"] != top:
                return None
            leaves[record["handle"]] = _class_meaning(record)
    parts = attributes(bytes.fromhex(root["options"] or ""))
    default = root["handle"] | unpack_from("=I", parts.get(HTB_INIT, bytes(20)), 8)[0]
    flows: list[tuple[int, frozenset[Key], int]] = []
    filters = [record for record in records if record["object"] == "filter"]
    for record in sorted(filters, key=lambda item: item["info"] >> 16):
        flow = _flow(record, root["handle"])
        if flow is None or flow[2] not in leaves:
            return None
        flows.append(flow)
    return {
        "kind": "htb", "whole": _class_meaning(inner[0])[:2], "leaves": leaves, "flows": flows,
        "default": default if default in leaves else None,
    }  # fmt: skip


def _class_meaning(record: Record) -> tuple[Any, ...]:
    parts = attributes(bytes.fromhex(record["options"]))
    parms = parts.get(HTB_PARMS, bytes(44))
    buffer, _, _, _, priority = unpack_from("=IIIII", parms, 24)
    rate = _rate_at(parms, 0, parts.get(RATE64, b""))
    ceil = _rate_at(parms, 12, parts.get(CEIL64, b""))
    return rate, ceil, priority, buffer * TICK * rate / 10**9


def _flow(record: Record, root: int) -> tuple[int, frozenset[Key], int] | None:
    """Return a filter's EtherType, keys and class, None for one that does more than that."""
    options = {item[0]: item[1] for item in record["options"]}
    if record["kind"] != "u32" or record["parent"] != root or record["chain"]:
        return None
    if set(options) != {U32_SEL, U32_CLASSID} or record["handle"] >> 12:
        return None
    protocol = int.from_bytes(int(record["info"] & 0xFFFF).to_bytes(2, _order()), "big")
    flow = number(bytes.fromhex(options[U32_CLASSID]))
    keys = keys_of(bytes.fromhex(options[U32_SEL]))
    return None if keys is None else (protocol, frozenset(k for k in keys if k[0]), flow)


def _order() -> Any:
    import sys

    return sys.byteorder


def target(records: list[Record]) -> str | None:
    """Return the device that all that comes in is sent through; empty where nothing is set up,
    None where something else is."""
    if not records:
        return ""
    if len(records) == 1 and records[0]["kind"] == "ingress":
        return ""
    if len(records) != 2 or records[0]["kind"] != "ingress" or records[1]["kind"] != "u32":
        return None
    options = {item[0]: item[1] for item in records[1]["options"]}
    protocol = int(records[1]["info"] & 0xFFFF).to_bytes(2, _order())
    keys = keys_of(bytes.fromhex(options.get(U32_SEL, "00" * 16)))
    actions = options.get(U32_ACT, {}).get("actions", ())
    if protocol != b"\0\3" or keys is None or any(key[0] for key in keys) or len(actions) != 1:
        return None
    for part in actions[0]["options"]:
        whither = part[2] if actions[0]["kind"] == "mirred" and part[0] == 2 else None
        redirects = unpack_from("=i", bytes.fromhex(part[1]).ljust(24, b"\0"), 20)[0] == 1
        if redirects and isinstance(whither, dict):
            return str(whither["dev"])
    return None


# Comparing and saying


def _near(one: float, other: float, slack: float) -> bool:
    return abs(one - other) <= slack + max(one, other) / 500


def same_limit(wanted: Words, now: Words | None, own: bool) -> bool:
    """Say whether a tbf does what a limit says; one of somebody else's has its own defaults."""
    if now is None or now["kind"] != "tbf":
        return False
    rate, burst, latency = limit_of(wanted)
    return bool(
        now["rate"] == rate
        and (_near(now["burst"], burst, 2 + rate / 10**7) or not (own or wanted.get("burst")))
        and (_near(now["latency"], latency, 200) or not (own or wanted.get("latency")))
    )


def same_classes(wanted: Words, now: Words | None, own: bool) -> bool:
    """Say whether an htb tree does what classes say, whatever their numbers are."""
    if now is None or now["kind"] != "htb":
        return False
    want = meaning(htb(wanted))
    bursts = own or any(item.get("burst") for item in wanted["classes"])
    if want is None:
        return False
    known = want["leaves"].values()
    return bool(_plain(want, bursts, known) == _plain(now, bursts, known))


def _plain(htb_meaning: Words, bursts: bool, known: Iterable[Any]) -> Any:
    """Return what can be compared; a burst that is near one of the known ones is that."""
    leaves: dict[int, Any] = {}
    for handle, leaf in htb_meaning["leaves"].items():
        alike = (k for k in known if k[:3] == leaf[:3] and _near(k[3], leaf[3], 2 + leaf[0] / 1e7))
        leaves[handle] = next(alike, leaf) if bursts else leaf[:3]
    flows: dict[int, list[Any]] = {}
    for protocol, keys, handle in htb_meaning["flows"]:
        flows.setdefault(protocol, []).append((sorted(keys), leaves[handle]))
    default = leaves.get(htb_meaning["default"])
    return htb_meaning["whole"], sorted(leaves.values()), flows, default


def _tidy(number_of_bytes: float) -> int:
    """Return the round number that the kernel's rounding made this of."""
    for unit in (1024, 100, 1):
        near = round(number_of_bytes / unit) * unit
        if near and abs(near - number_of_bytes) <= max(1.0, number_of_bytes / 2000):
            return near
    return max(1, round(number_of_bytes))


def limit_words(now: Words) -> Words:
    """Return a tbf as intent writes it."""
    latency = max(1, round(now["latency"]))
    if abs(latency - round(latency, -3)) <= 10:
        latency = round(latency, -3)
    return {
        "rate": rate_words(now["rate"]),
        "burst": size_words(_tidy(now["burst"])),
        "latency": time_words(max(1, latency)),
    }


def lean_limit(now: Words) -> Words:
    """Return a tbf as intent writes it, without what fleet itself would give such a limit."""
    words = limit_words(now)
    for key in ("burst", "latency"):
        less = {k: v for k, v in words.items() if k != key}
        if same_limit(less, now, own=True):
            words = less
    return words


def lean_classes(now: Words, own: bool) -> Words | None:
    """Return an htb tree as intent writes it, with the bursts that somebody gave its classes."""
    if own:
        return class_words(now, lambda rate: max(rate // 250, LEAST_CLASS_BURST))
    # tc(8) gives a class one frame (q_htb.c: rate / hz, and an mtu of 1600).
    words = class_words(now, lambda rate: 1600 + rate // 10**9)
    if words is None or not any(item.get("burst") for item in words["classes"]):
        return words
    return class_words(now, lambda rate: 0)


def class_words(now: Words, usual: Callable[[int], int] | None = None) -> Words | None:
    """Return an htb tree as intent writes it, None where it has no words for it.

    The kernel knows no names: they are numbers. Order is that of the filters. ``usual`` is the
    burst that goes without saying for a rate; without it none is said.
    """
    leaves: dict[int, Any] = now["leaves"]
    matches: dict[int, Words] = {}
    seen: dict[int, list[int]] = {}
    for protocol, keys, handle in now["flows"]:
        match = match_words(protocol, keys)
        if match is None or matches.get(handle, match) != match:
            return None
        matches[handle] = match
        seen.setdefault(handle, []).append(protocol)
    for handle, match in matches.items():
        if sorted(seen[handle]) != families({k.replace("-", "_"): v for k, v in match.items()}):
            return None  # intent's words would also match the other family
    whole = max(sum(leaf[0] for leaf in leaves.values()), *(leaf[1] for leaf in leaves.values()), 1)
    if not leaves or now["whole"] != (whole, whole):
        return None
    found: Words = {"classes": []}
    order = [*matches, *(handle for handle in sorted(leaves) if handle not in matches)]
    for handle in order:
        rate, ceil, priority, burst = leaves[handle]
        words: Words = {"name": f"class-{handle & 0xFFFF:x}", "rate": rate_words(rate)}
        if ceil != rate:
            words["ceil"] = rate_words(ceil)
        if usual is not None and not _near(burst, usual(rate), 2 + rate / 10**7):
            words["burst"] = size_words(_tidy(burst))
        if priority:
            words["priority"] = priority
        if handle in matches:
            words["match"] = matches[handle]
        if handle == now["default"]:
            found["default"] = words["name"]
        elif handle not in matches:
            return None  # nothing gets there
        found["classes"].append(words)
    return found
