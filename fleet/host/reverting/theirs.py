"""What somebody else changed while a transaction was open: a revert must leave it.

While fleet is not at it, between two changes and from the last one on, whatever moves is another's
doing. So the applier looks after each change and again before the next, and a revert looks once
more before it begins. What was added stays, and so does a value that fleet itself had left alone;
what was there before comes back whoever took it away, for that may be the way in.
"""

from __future__ import annotations

from fleet.host import wire
from fleet.host.reverting import snapshot_parts as parts
from fleet.host.reverting.differences import address_key, name_of, route_text
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from fleet.host.kernel.system import System

    Record = dict[str, Any]
    Snapshot = dict[str, Any]

SEEN, THEIRS = "seen", "theirs"
KERNEL, UP = 2, 0x1
_LISTS: dict[str, Callable[[Record], str]] = {
    "routes": route_text, "rules": wire.dumps, "neighbours": wire.dumps, "fdb": wire.dumps,
}  # fmt: skip
#: A device's own words, and what only a device that the plan does not name keeps.
_WORDS, _OTHERS_WORDS = ("alias", "txqlen", "group", "altnames"), ("mtu", "flags")
_PORT_STATE = "1"
#: So many kernel parameters are read between any two changes.
_FEW = 500


class Watch:
    """The applier's looks at a host; what it finds lies in the transaction's /run directory.

    All of it is best effort: a full /run keeps no change and no revert back.
    """

    def __init__(self, system: System, live: str, snapshot: Snapshot) -> None:
        self._system, self._live, self._snapshot = system, live, snapshot
        self._seen: Snapshot = snapshot  # until the first change: as it was when it was armed
        self._theirs: Record = {}
        _store(live, SEEN, snapshot)

    def begin(self) -> None:
        """A change of fleet's own begins: what was added since the last one is another's."""
        now = _look(self._system, self._snapshot)
        found = changed(self._snapshot, self._seen, now, self._theirs)
        if found != self._theirs:
            self._theirs = found
            _store(self._live, THEIRS, found)
        _forget(self._live, SEEN)

    def end(self, last: bool) -> None:
        """The change has been made, and nothing of fleet's moves until the next begins.

        Where there are many kernel parameters they are read after the last change only: reading
        takes long, and the wait for a confirmation is the time when somebody may touch them.
        """
        before = self._snapshot
        self._seen = (
            capture(self._system, before["scope"], before) if last else _look(self._system, before)
        )
        _store(self._live, SEEN, self._seen)

    def lost(self) -> list[str]:
        """Return what others added meanwhile and fleet's own changes took along, in words."""
        found = []
        for part in ("routes", "rules", "neighbours"):
            text = _LISTS[part]
            have = {text(item) for item in self._seen[part]}
            gone = [i for i in self._theirs.get(part, ()) if text(i) not in have]
            gone = [i for i in gone if i.get("protocol") != KERNEL]
            found += [f"{part}: one of {name_of(item) or 'the host'}" for item in gone]
        for device, items in (self._theirs.get("addresses") or {}).items():
            have = {address_key(item) for item in self._seen["addresses"].get(device, ())}
            found += [
                f"addresses: {address_key(item)} of {device}"
                for item in items if address_key(item) not in have
            ]  # fmt: skip
        return found


def _look(system: System, before: Snapshot) -> Snapshot:
    """Return those parts of a snapshot that are read fast, all of them where they are few."""
    if len(before["sysctls"]) <= _FEW and not before["namespaces"]:
        return capture(system, before["scope"], before)
    netlink, inside = system.netlink, set(before["devices"])
    links = parts.read_links(netlink)
    names = {record["index"]: name for name, record in links.items()}
    sources = set(before["sources"])
    ids = {record["id"] for record in before["nexthops"]}
    return {
        "links": {name: links.get(name) for name in before["devices"]},
        "addresses": parts.read_addresses(netlink, names, inside),
        "routes": parts.read_routes(netlink, names, inside, sources, ids),
        "rules": parts.read_rules(netlink) if before["rules"] else [],
        "neighbours": parts.read_neighbours(netlink, names, inside),
        "fdb": parts.read_fdb(netlink, names, inside, links),
        "sysctls": {},
        "namespaces": {
            name: _look(system.at(name), inner) if system.at(name).exists() else None
            for name, inner in before["namespaces"].items() if inner is not None
        },
    }  # fmt: skip


def allow_for(system: System, live: str, snapshot: Snapshot) -> Snapshot:
    """Return the snapshot that a revert goes back to: what was before, with what is others'.

    What was found is stored first, so that who takes a revert over finds it too.
    """
    theirs, seen = _load(live, THEIRS), _load(live, SEEN)
    now = capture(system, snapshot["scope"], snapshot)
    # Cut off within a change, nobody can tell whose an addition since then is.
    theirs = changed(snapshot, seen or now, now, theirs)
    if theirs:
        _store(live, THEIRS, theirs)
    _forget(live, SEEN)
    return merge(snapshot, theirs) if theirs else snapshot


def kept(live: str) -> tuple[Snapshot, Record]:
    """Return what a host was after fleet's last change, and what was others' in it by then.

    Raises ValueError where /run does not have it, for the host has booted or /run was full.
    """
    seen = _load(live, SEEN)
    if not seen:
        raise ValueError("/run has no picture of it")
    return seen, _load(live, THEIRS)


def _store(live: str, name: str, value: Record) -> None:
    try:
        files.replace(f"{live}/{name}", files.seal(wire.dumps(value)), sync=False)
    except OSError:
        _forget(live, name)


def _load(live: str, name: str) -> Record:
    try:
        found = wire.loads(files.unseal(files.read(f"{live}/{name}")))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _forget(live: str, name: str) -> None:
    try:
        files.remove(f"{live}/{name}")
    except OSError:
        pass  # it was never stored


def changed(then: Snapshot, seen: Snapshot, now: Snapshot, known: Record) -> Record:
    """Return what is others' in ``now``: what they changed since ``seen``, and of ``known`` what
    is still there. ``then`` is how it all was before fleet began."""
    found: Record = {}
    for part, text in _LISTS.items():
        items = _additions(then[part], seen[part], now[part], known.get(part, ()), text)
        found[part] = [i for i in items if part != "routes" or i["protocol"] != KERNEL]
    found["addresses"] = _addresses(then, seen, now, known)
    found["routes"] += [
        item
        for item in now["routes"]
        if item["protocol"] == KERNEL and _of_addresses(item, found["addresses"])
    ]
    found["sysctls"] = dict(known.get("sysctls") or {})
    for name, value in then["sysctls"].items():
        last, have = seen["sysctls"].get(name), now["sysctls"].get(name)
        if None in (last, have) or have == last or _follows(name, have, now):
            continue
        if last in (value, found["sysctls"].get(name)):
            found["sysctls"][name] = have
    found["sysctls"].update(_untouched(then, now))
    found["links"] = _links(then, seen, now, known.get("links") or {})
    found["namespaces"] = _namespaces(then, seen, now, known.get("namespaces") or {})
    return {part: value for part, value in found.items() if value}


def _follows(name: str, value: str, now: Snapshot) -> bool:
    """Say whether a parameter is only what its device's MTU makes it (net/ipv6/addrconf.c,
    NETDEV_CHANGEMTU): where that goes back, it goes along."""
    words = name.split("/")
    if words[1:3] != ["ipv6", "conf"] or words[-1] != "mtu":
        return False
    link = now["links"].get(words[3])
    return link is not None and str(link["mtu"]) == value


def _untouched(then: Snapshot, now: Snapshot) -> Record:
    """Return a device's IPv4 parameters that nothing of fleet's can have changed.

    IPv6's go back to their defaults with an MTU below 1280 (net/ipv6/addrconf.c, addrconf_notify),
    and all of them with a device that is made again.
    """
    wide = parts.read_wide_leaves(then["scope"].get("sysctls") or ())
    own = {name.replace(".", "/") for name in then["scope"].get("sysctls") or ()}
    found = {}
    for name, value in then["sysctls"].items():
        words, have = name.split("/"), now["sysctls"].get(name)
        if have in (None, value) or len(words) != 5 or words[1] != "ipv4" or name in own:
            continue
        was, here = then["links"].get(words[3]), now["links"].get(words[3])
        if ("/".join(words[:3]), words[4]) in wide or was is None or here is None:
            continue
        if was["index"] == here["index"]:
            found[name] = have
    return found


def _additions(
    then: Sequence[Record],
    seen: Sequence[Record],
    now: Sequence[Record],
    known: Sequence[Record],
    text: Callable[[Record], str],
) -> list[Record]:
    """Return what is new in ``now``, and what is known and was not taken away again: what is
    gone from ``seen`` already went with a change of fleet's own."""
    last = {text(item) for item in seen}
    have = {text(item) for item in now}
    found = [item for item in known if text(item) in have or text(item) not in last]
    before = last | {text(item) for item in (*then, *found)}
    return [*found, *(item for item in now if text(item) not in before)]


def _addresses(then: Snapshot, seen: Snapshot, now: Snapshot, known: Record) -> Record:
    found: Record = {}
    marked = known.get("addresses") or {}
    for device in {*now["addresses"], *marked}:
        then_, seen_, now_ = (each["addresses"].get(device, []) for each in (then, seen, now))
        items = [i for i in now_ if i["permanent"] and not i["kernel"]]
        new = _additions(then_, seen_, items, marked.get(device, ()), address_key)
        if new:
            found[device] = new
    return found


def _of_addresses(route: Record, addresses: Record) -> bool:
    """Say whether the kernel made a route for one of some addresses."""
    values = {kind: value for kind, value in route["attributes"] if isinstance(value, str)}
    items = [item for device in route["devices"] for item in addresses.get(device, ())]
    if route["family"] == 2:
        return values.get(7) in {item["local"] for item in items}
    size = int(route["header"][2:4], 16)
    same = {item["local"][: size // 4] for item in items if item["length"] == size}
    return bool(items) and values.get(1, "")[: size // 4] in same


def _links(then: Snapshot, seen: Snapshot, now: Snapshot, known: Record) -> Record:
    found: Record = {}
    for name, was in then["links"].items():
        have, last = now["links"].get(name), seen["links"].get(name)
        if was is None:
            continue
        new = dict(known.get(name) or {})
        if have is not None and last is not None and was["kind"] == have["kind"]:
            words = _WORDS if name in then["named"] else _WORDS + _OTHERS_WORDS
            new.update(_moved(was, last, have, words, new))
            if have["master"] == was["master"]:
                keys = [key for key in was["port"] if key != _PORT_STATE and key in have["port"]]
                port = dict(new.get("port") or {})
                port.update(_moved(was["port"], last["port"], have["port"], keys, port))
                new["port"] = port
        new = {word: value for word, value in new.items() if word != "port" or value}
        if new:
            found[name] = new
    return found


def _moved(was: Record, last: Record, have: Record, words: Sequence[str], known: Record) -> Record:
    """Return the words that others gave another value, where fleet had left them alone."""
    moved = {}
    for word in words:
        before = last.get(word)
        if have[word] != before and before in (was[word], known.get(word, was[word])):
            moved[word] = have[word]
    return moved


def _namespaces(then: Snapshot, seen: Snapshot, now: Snapshot, known: Record) -> Record:
    found: Record = {}
    for name, inner in then["namespaces"].items():
        last, here = seen["namespaces"].get(name), now["namespaces"].get(name)
        if inner is not None and last is not None and here is not None:
            theirs = changed(inner, last, here, known.get(name) or {})
            if theirs:
                found[name] = theirs
    return found


def merge(then: Snapshot, theirs: Record) -> Snapshot:
    """Return a snapshot with what is others' in it, as far as their devices were there before,
    and for routes were up."""
    there = {name for name, link in then["links"].items() if link is not None}
    merged = dict(then)
    merged["links"] = _merged_links(then, theirs)
    up = {name for name in there if merged["links"][name]["flags"] & UP}
    # Set down by somebody a device has no routes, and takes none (fib_check_nh, ip6_route_info).
    down = {name for name in there - up if then["links"][name]["flags"] & UP}
    for part in ("routes", "neighbours", "fdb"):
        possible = up if part == "routes" else there
        new = [i for i in theirs.get(part, ()) if devices_of(i) <= possible]
        old = [i for i in then[part] if part != "routes" or not devices_of(i) & down]
        merged[part] = [*old, *new]
    merged["rules"] = list(then["rules"])
    for rule in theirs.get("rules", ()):
        _insert(merged["rules"], rule)
    merged["addresses"] = dict(then["addresses"])
    for device, items in (theirs.get("addresses") or {}).items():
        if device in there:
            marked = [{**item, "theirs": True} for item in items]
            merged["addresses"][device] = [*then["addresses"].get(device, ()), *marked]
    merged["sysctls"] = {**then["sysctls"], **(theirs.get("sysctls") or {})}
    merged["namespaces"] = dict(then["namespaces"])
    for name, inner in (theirs.get("namespaces") or {}).items():
        if then["namespaces"].get(name) is not None:
            merged["namespaces"][name] = merge(then["namespaces"][name], inner)
    return merged


def _merged_links(then: Snapshot, theirs: Record) -> Record:
    links = dict(then["links"])
    for name, words in (theirs.get("links") or {}).items():
        was = then["links"][name]
        if was is not None:
            port = {**was["port"], **words.get("port", {})} if was["port"] else was["port"]
            links[name] = {**was, **words, "port": port}
    return links


def devices_of(item: Record) -> set[str]:
    """Return the devices that a route, a neighbour or a forwarding entry is of."""
    return set(item["devices"]) if "devices" in item else {item["dev"]}


def _insert(rules: list[Record], rule: Record) -> None:
    """Put a rule where the kernel keeps it: after those of its family that go before it."""
    place = len(rules)
    for index in range(len(rules) - 1, -1, -1):
        if rules[index]["header"][:2] != rule["header"][:2]:
            continue
        if rules[index]["priority"] <= rule["priority"]:
            break
        place = index
    rules.insert(place, rule)
