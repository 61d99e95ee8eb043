"""Groups of a bridge (ovs-ofctl(8), "Group Syntax"): how they are written, and what they mean.

ovs-ofctl has no parser of groups that could be asked, as it has one of flows: a group is taken
apart here, and what its buckets do goes through the parser of flows.
"""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.system import CommandError
from fleet.host.switches import openflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from fleet.host.kernel.system import System

#: OpenFlow 1.5, where a bridge speaks it, tells how a bucket is selected too.
VERSION = "OpenFlow14,OpenFlow15"
_OF_BUCKET = ("bucket_id", "weight", "watch_port", "watch_group")
_OF_GROUP = ("group_id", "type", "selection_method", "selection_method_param", "fields")
#: Actions on a protocol's fields parse only beside a match of it; buckets have none.
_BESIDE = ("", "ip,", "tcp,", "udp,", "sctp,", "ipv6,", "tcp6,", "udp6,", "sctp6,", "arp,", "mpls,")


class Group:
    """One group: its number, its text, and its properties and buckets taken apart.

    Raises HostError where a text is no group.
    """

    def __init__(self, line: str) -> None:
        self.text = line.strip()
        head, *buckets = _split(self.text.replace("buckets=", "bucket="), "bucket=")
        self._words = dict(_word(word, "=") for word in _parts(head))
        self._buckets = [_parts(bucket) for bucket in buckets]
        unknown = [word for word in self._words if word not in _OF_GROUP]
        number = self._words.get("group_id", "")
        if unknown or not number.isdigit() or "type" not in self._words:
            raise _refused(self.text, f"no such word: {unknown[0]}" if unknown else "no such group")
        self.number = int(number)

    def meaning(self, system: System, numbers: dict[str, str]) -> Hashable:
        """Return what two groups have in common that mean the same; raises CommandError."""
        kind = self._words["type"].replace("fast_failover", "ff")
        words = {**self._words, "type": kind, "fields": _fields(self._words.get("fields", ""))}
        found: list[Hashable] = []
        taken: set[str] = set()
        for bucket in self._buckets:
            own, actions = _bucket(bucket)
            if "bucket_id" not in own:
                own["bucket_id"] = next(
                    str(n) for n in range(len(taken) + 1) if str(n) not in taken
                )
            taken.add(own["bucket_id"])
            if own.get("weight") == ("1" if kind == "select" else "0"):
                del own["weight"]
            if "watch_port" in own:
                own["watch_port"] = numbers.get(own["watch_port"].strip('"'), own["watch_port"])
            text = openflow.numbered(actions, numbers)
            found.append((frozenset(own.items()), _becoming(system, text)))
        return frozenset((key, value) for key, value in words.items() if value), tuple(found)


def _refused(text: str, why: str) -> HostError:
    return HostError(
        "flows", "a group as ovs-ofctl writes it", f"{text}: {why}", "correct the group", "groups"
    )


def _split(text: str, mark: str) -> list[str]:
    head, *rest = text.split(mark)
    return [head.strip().rstrip(","), *(each.strip().rstrip(",") for each in rest)]


def _parts(text: str) -> list[str]:
    """Return the words of a text between commas and spaces; what is in brackets is one."""
    found, word, depth = [], "", 0
    for character in text + ",":
        if character in ", \t" and not depth:
            if word:
                found.append(word)
            word = ""
            continue
        depth += (character in "([") - (character in ")]")
        word += character
    return found


def _word(word: str, mark: str) -> tuple[str, str]:
    if word.startswith("fields("):
        return "fields", word[len("fields(") :].rstrip(")")
    key, _, value = word.partition(mark)
    return key, value


def _fields(text: str) -> str:
    """Return the fields that a group selects by, each once and a mask as a plain number."""
    found = []
    for word in _parts(text):
        key, _, value = word.partition("=")
        found.append(f"{key}={int(value, 0)}" if value[:1].isdigit() and ":" not in value else word)
    return ",".join(sorted(found))


def _bucket(words: list[str]) -> tuple[dict[str, str], str]:
    own: dict[str, str] = {}
    actions = []
    for word in words:
        key, value = _word(word, ":" if ":" in word.partition("=")[0] else "=")
        if key in _OF_BUCKET:
            own[key] = value
        else:
            actions.append(value if key in ("actions", "action") else word)
    return own, ",".join(actions)


def _becoming(system: System, actions: str) -> str:
    """Return actions as the switch will have them."""
    failed: CommandError | None = None
    for match in _BESIDE:
        try:
            said = openflow.ofctl(
                system, "parse-flows", "", [f"{match}actions={actions}"], (0,), VERSION
            )
        except CommandError as error:
            failed = failed or error
        else:
            return said.partition("actions=")[2].strip()
    assert failed is not None
    raise failed


def groups_of(text: str) -> list[Group]:
    """Return the groups of a text, one a line, without comments; raises HostError."""
    return [Group(line) for line in openflow.plain_lines(text)]


def dump(system: System, bridge: str) -> list[Group]:
    """Return a bridge's groups; raises CommandError."""
    argv = [openflow.OFCTL, "-O", VERSION, "--no-names", "dump-groups", bridge]
    lines = system.run(argv).out.splitlines()
    return [Group(line) for line in lines if line.strip().startswith("group_id=")]


def differing(
    system: System, bridge: str, wanted: list[Group], own: Iterable[int]
) -> tuple[list[Group], list[Group]]:
    """Return fleet's groups that are too much on a bridge, and those that are missing or other."""
    now = {group.number: group for group in dump(system, bridge)}
    numbers = openflow.numbers(system) if wanted else {}
    named = {group.number for group in wanted}
    gone = [now[number] for number in sorted(own) if number in now and number not in named]
    new = []
    for group in wanted:
        have, meaning = now.get(group.number), group.meaning(system, numbers)
        if have is None or have.meaning(system, {}) != meaning:
            new.append(group)
    return gone, new


def put(system: System, bridge: str, groups: Iterable[str]) -> None:
    """Make or change groups, all or nothing; raises CommandError."""
    lines = [f"group add_or_mod {group}" for group in groups]
    openflow.bundle(system, bridge, lines, VERSION)


def take_away(system: System, bridge: str, numbers: Iterable[int]) -> None:
    """Delete groups, and with each the flows that use it; raises CommandError."""
    lines = [f"group delete group_id={number}" for number in numbers]
    openflow.bundle(system, bridge, lines, VERSION)
