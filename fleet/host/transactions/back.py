"""The way back of a committed transaction: what the host was before it, and what others did since.

A committed transaction's snapshot stays beside its journal, and what the host was when its last
change had been made stays in /run. So the way back, a transaction of its own, ends where the first
one began to the last attribute, which no intent could say. What others added since is kept; what
cannot be kept is a problem that names it.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from fleet.host import wire
from fleet.host.change import CREATE, DELETE, FILE, Change, Plan, Problem, amended, resource_key
from fleet.host.kernel.netlink import number
from fleet.host.reverting import theirs
from fleet.host.reverting.differences import OURS, address_key, differences, route_text
from fleet.host.reverting.snapshot import capture
from fleet.host.spec import encode
from fleet.host.transactions import files, lasting, persist
from fleet.host.transactions.journal import COMMITTED
from fleet.host.transactions.recover import load_snapshot
from fleet.host.transactions.transaction import Transaction, load_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.transactions.files import Paths
    from fleet.host.transactions.lasting import Wanted

    Record = dict[str, Any]
    Snapshot = dict[str, Any]

KERNEL = 2
#: RTA_GATEWAY
_GATEWAY = 5
#: The kind of what goes back though no intent has a word for it.
SNAPSHOT = "snapshot"
_REMEDY = "undo that, or let it go: --allow foreign"


class Inexact(Exception):
    """Why a transaction cannot be taken back from its own snapshot."""


class Back:
    """A way back: the ``snapshot`` it ends at, the ``files`` it leaves, what stands against it.

    One that has been ``gone`` already leaves nothing to do.
    """

    def __init__(self, name: str, snapshot: Snapshot, files_: Wanted, gone: bool = False) -> None:
        self.gone = gone
        self.name = name
        self.snapshot = snapshot
        self.files = files_
        self.differences: list[Record] = []
        self.problems: list[Problem] = []
        #: What could not be put right, as problems.
        self.left: list[Record] = []

    @property
    def scope(self) -> Record:
        """What the way back touches, as ``capture`` takes it."""
        scope: Record = self.snapshot["scope"]
        return scope

    def planned(self, plan: Plan, paths: Paths) -> Plan:
        """Return a plan in the intent's words as the plan of this way back, bound to all of it."""
        if self.gone:
            return Plan((), plan.digest, (), plan.unmanaged)
        # What the intent's words would take along of others', the snapshot keeps.
        changes = [amended(each, takes=()) for each in plan.changes]
        if self.differences and not changes:
            names = ", ".join(sorted({each["name"] or each["part"] for each in self.differences}))
            changes.append(
                Change(
                    kind=SNAPSHOT,
                    name=self.name,
                    what="rest",
                    before=names,
                    after="as before it",
                    impact="blip",
                )
            )
        for path in sorted(self.files):
            if not path.startswith(paths.state.removeprefix(paths.root)):
                changes += _of_file(path, lasting.look(paths.root + path), self.files[path][0])
        problems = (*plan.problems, *self.problems)
        if not changes and not problems:
            return plan
        moves = [[each["part"], each["name"], each["what"]] for each in self.differences]
        bound = [plan.digest, self.name, moves, encode(tuple(changes)), encode(problems)]
        digest = files.sha256(wire.dumps(bound))
        return Plan(tuple(changes), digest, problems, plan.unmanaged, plan.settle)

    def probes(self, passing: list[Record]) -> list[Record]:
        """Return the probes that pass now and that the snapshot leaves something to ask."""
        links, kept = self.snapshot["links"], []
        ways = {
            value
            for route in self.snapshot["routes"]
            for k, value in route["attributes"]
            if k == _GATEWAY and isinstance(value, str)
        }
        for probe in passing:
            name = probe["name"]
            if probe["kind"] in ("link", "guest") and name in links:
                link = links[name]
                if link is None or not link["flags"] & theirs.UP or not link["carrier"]:
                    continue
                probe = {**probe, "master": None} if probe["kind"] == "guest" else probe
            elif probe["kind"] == "gateway" and probe.get("dev") in links:
                family = AF_INET6 if ":" in name else AF_INET
                if inet_pton(family, name.partition("%")[0]).hex() not in ways:
                    continue
            kept.append(probe)
        return kept

    def carry_out(self, system: System) -> None:
        """Make the host what it was, as two looks in a row find it; the rest is ``left``."""
        from fleet.host.reverting.restore import restore

        self.left = [
            encode(
                Problem(
                    resource_key(each["namespace"], each["part"], each["name"] or "host"),
                    each["what"],
                    said(each["part"], each["expected"]),
                    f"{said(each['part'], each['actual'])} {each.get('error', '')}".strip(),
                    "the way back could not put it right",
                )
            )
            for each in restore(system, self.snapshot)
        ]


def way_back(paths: Paths, system: System, name: str, allow: Any = ()) -> Back:
    """Return the way back of the last committed transaction; raises Inexact for any other.

    ``allow`` with ``foreign`` in it lets go what others did and cannot be kept. Raises OSError
    where the host cannot be read.
    """
    transaction = _last(load_all(paths), system, name)
    if transaction is None:
        return Back(name, {}, {}, gone=True)
    try:
        then = load_snapshot(transaction)
        seen, known = theirs.kept(transaction.live)
        entries = persist.load(transaction.directory)
    except (OSError, ValueError) as error:
        raise Inexact(f"what {name} found is not on the host any more ({error})") from error
    now = capture(system, then["scope"], then)
    others = theirs.changed(then, seen, now, known)
    target = theirs.merge(_of_today(then, seen, now), others)
    back = Back(name, target, _files(entries))
    back.differences = differences(target, now)
    back.problems = _new_ports(then, seen, system)
    if "foreign" not in allow:
        back.problems += _lost(target, others)
        back.problems += _moved(theirs.merge(_of_today(seen, seen, now), others), now)
        back.problems += _files_of_others(paths, entries)
    return back


def _last(transactions: list[Transaction], system: System, name: str) -> Transaction | None:
    """Return the transaction of a name if it is the last one committed, not counting those that
    were taken back since; None where it was taken back itself. Raises Inexact."""
    found = next((each for each in transactions if each.name == name), None)
    if found is None or found.state != COMMITTED:
        raise Inexact(f"the host has no committed transaction {name} any more")
    if found.rebooted(system):
        raise Inexact("the host has rebooted since")
    here = [each for each in transactions if each.state == COMMITTED and not each.rebooted(system)]
    ordered = sorted(here, key=lambda each: float(each.facts.get("prepared_at") or 0))
    later: list[Transaction] = []
    for each in ordered[ordered.index(found) + 1 :]:
        if later and each.facts.get("undoes") == later[-1].name:
            later.pop()
        else:
            later.append(each)
    if len(later) == 1 and later[0].facts.get("undoes") == name:
        return None
    if later:
        raise Inexact(f"{later[-1].name} was committed after it")
    return found


def _of_today(then: Snapshot, seen: Snapshot, now: Snapshot) -> Snapshot:
    """Return a snapshot without what has run out since: leases, and routes that daemons keep.

    What a lease is, is not the transaction's doing: where fleet left it alone, it stays as it is.
    """
    made = dict(then)
    made["addresses"] = {}
    for device, items in then["addresses"].items():
        left = {address_key(item) for item in seen["addresses"].get(device, ())}
        here = {address_key(item): item for item in now["addresses"].get(device, ())}
        kept = []
        for item in items:
            if item["permanent"] or address_key(item) not in left:
                kept.append(item)
            elif address_key(item) in here:
                kept.append(here[address_key(item)])
        made["addresses"][device] = kept
    last, today = ({route_text(item) for item in each["routes"]} for each in (seen, now))
    made["routes"] = [
        item
        for item in then["routes"]
        if item["protocol"] in (*OURS, KERNEL)
        or route_text(item) not in last
        or route_text(item) in today
    ]
    made["namespaces"] = dict(then["namespaces"])
    for name, inner in then["namespaces"].items():
        was, is_ = seen["namespaces"].get(name), now["namespaces"].get(name)
        if inner is not None and was is not None and is_ is not None:
            made["namespaces"][name] = _of_today(inner, was, is_)
    return made


def _lost(target: Snapshot, others: Record, namespace: str = "") -> list[Problem]:
    """Return what others put on devices that go with the way back, or go down."""
    links = target["links"]
    there = {name for name, link in links.items() if link is not None}
    up = {name for name in there if links[name]["flags"] & theirs.UP}
    found = []
    for part in ("routes", "neighbours", "fdb"):
        for item in others.get(part, ()):
            possible = up if part == "routes" else there
            gone = {each for each in theirs.devices_of(item) if each in links} - possible
            if gone and item.get("protocol") != KERNEL:
                found.append(_gone(namespace, sorted(gone)[0], part, said(part, item)))
    for device, items in (others.get("addresses") or {}).items():
        if device not in there:
            found += [_gone(namespace, device, "addresses", said("addresses", i)) for i in items]
    for name, inner in (others.get("namespaces") or {}).items():
        before = target["namespaces"].get(name)
        if before is not None:
            found += _lost(before, inner, name)
    return found


def _gone(namespace: str, device: str, what: str, text: str) -> Problem:
    key = resource_key(namespace, "device", device)
    return Problem(key, what, "nothing of others' on what goes away or down", text, _REMEDY)


def _moved(seen: Snapshot, now: Snapshot) -> list[Problem]:
    """Return what others changed since, where the way back would change it again."""
    from fleet.host.tables.table_diff import differing

    found, all_ = [], differences(seen, now)
    moved = {each["name"] for each in all_ if each["part"] == "links"}
    for each in all_:
        if each["part"] == "sysctls" and moved.intersection(each["name"].split("/")):
            continue  # such as net/ipv6/conf/br0/mtu, which follows the device's
        sort = "device" if each["part"] in ("links", "addresses", "vlans") else each["part"]
        expected, actual = (said(each["part"], each[which]) for which in ("expected", "actual"))
        if each["part"] == "tables" and isinstance(each["expected"], str) and each["actual"]:
            expected, actual = "its rules", "; ".join(differing(each["expected"], each["actual"]))
        found.append(
            Problem(
                resource_key(each["namespace"], sort, each["name"] or "host"),
                each["what"] if each["part"] == "links" else each["part"],
                f"{expected}, as the run left it",
                f"{actual}: changed by somebody else since",
                _REMEDY,
            )
        )
    return found


def _new_ports(then: Snapshot, seen: Snapshot, system: System) -> list[Problem]:
    """Return devices that joined what goes away: they would lose their network."""
    from fleet.host.reverting.snapshot_parts import read_links

    goes = {n for n, link in seen["links"].items() if link and then["links"].get(n) is None}
    links = read_links(system.netlink)
    return [
        Problem(
            f"device/{name}",
            "master",
            f"no new port of {link['master']}, which goes away",
            f"{name} has joined it since",
            f"take it out of {link['master']} first",
        )
        for name, link in sorted(links.items())
        if link["master"] in goes and not seen["links"].get(name)
    ]


def _files(entries: list[Record]) -> Wanted:
    """Return what the transaction's files were before it, as ``persist.stage`` takes them."""
    wanted: Wanted = {}
    for entry in entries:
        before = entry["before"]
        if before is None:
            wanted[entry["path"]] = (None, entry["mode"])
            continue
        if "text" not in before or before["uid"] != 0 or before["gid"] != 0:
            raise Inexact(f"{entry['path']} was no plain file of root's before")
        wanted[entry["path"]] = (before["text"], before["mode"])
    return wanted


def _files_of_others(paths: Paths, entries: list[Record]) -> list[Problem]:
    return [
        Problem(
            resource_key("", FILE, entry["path"]),
            "text",
            "as the run left it",
            "changed by somebody else since",
            _REMEDY,
        )
        for entry in entries
        if not _as_left(lasting.look(f"{paths.root}{entry['path']}"), entry)
    ]


def _as_left(found: Record | None, entry: Record) -> bool:
    if found == entry["before"] or found is None:
        return found == entry["before"] or entry["after"] is None
    return "text" in found and files.sha256(found["text"]) == entry["after"]


def _of_file(path: str, found: Record | None, text: str | None) -> list[Change]:
    if found is None and text is None:
        return []
    if text is None or found is None:
        return [Change(kind=FILE, name=path, action=DELETE if text is None else CREATE)]
    if found.get("text") == text:
        return []
    left, before = "as the run left it", "as before it"
    return [Change(kind=FILE, name=path, what="text", before=left, after=before)]


def said(part: str, item: Any) -> str:
    """Return a record of a snapshot in a few words."""
    if item is None:
        return "none"
    if isinstance(item, list):
        return f"{len(item)} of its parts" if part == "traffic" else ", ".join(map(str, item))[:120]
    if not isinstance(item, dict):
        return str(item)[:120]
    values = {k: v for k, v in item.get("attributes") or () if isinstance(v, str)}
    if part == "addresses":
        return f"{_address(item['local'])}/{item['length']}"
    if part == "routes":
        size = number(bytes.fromhex(item["header"][2:4]))
        to = f"{_address(values[1])}/{size}" if 1 in values else "default"
        via = f" via {_address(values[5])}" if 5 in values else ""
        return f"{to}{via} dev {','.join(item['devices'])}"
    if part == "neighbours":
        return f"{_address(values.get(1, ''))} at {item['mac']}"
    if part == "fdb":
        return f"{item['mac']} at {item['dev']}"
    if part == "rules":
        return f"the rule of priority {item['priority']}"
    return wire.dumps(item)[:120]


def _address(text: str) -> str:
    packed = bytes.fromhex(text)
    if len(packed) not in (4, 16):
        return text
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
