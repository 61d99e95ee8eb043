"""ovs-ofctl(8) as a library: what differs from wanted flows, and one bundle that mends it.

A switch rewrites what it is given: names to numbers, order, masks, defaults, old actions to new
ones. ``diff-flows`` compares all but the last by meaning, and ``parse-flows`` prints what a flow
becomes on its way to the switch; texts are never compared as they were written.
"""

from __future__ import annotations

import os

from fleet.host.change import HostError
from fleet.host.kernel.system import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from fleet.host.kernel.system import System

OFCTL = "/usr/bin/ovs-ofctl"
#: Bundles need OpenFlow 1.4 (ovs-ofctl(8), --bundle), and one version says one thing one way.
VERSION = "OpenFlow14"
#: What fleet marks flows with that carry no cookie of the operator's.
COOKIE = 0xF1EE7
#: What of a bridge's picture makes it begin anew, without the flows it had (vswitchd/bridge.c).
FLUSHING = frozenset(("datapath_type", "fail_mode", "controllers", "protocols"))
#: diff-flows and parse-flows spell these two ways.
_SPELT = {"table": "table", "cookie": "cookie", "idle": "idle_timeout", "hard": "hard_timeout"}


class Flow:
    """One flow, from either spelling: where it matches, what else it has, and what it does."""

    def __init__(self, line: str) -> None:
        head, _, actions = line.strip().partition("actions=")
        self.actions = actions
        self.extras: dict[str, str] = {}
        self.table, match = 0, []
        for word in head.replace(",", " ").split():
            name, separator, value = word.partition(":" if ":" in word.split("=")[0] else "=")
            name = _SPELT.get(name, name)
            if name == "table" and separator:
                self.table = int(value, 0)
            elif name in ("cookie", "idle_timeout", "hard_timeout", "importance") and separator:
                self.extras[name] = value
            elif not separator and "_" in word and word in _FLAGS:
                self.extras[word] = ""
            else:
                match.append(word)
        self.match = ",".join(match)
        self.cookie = int(self.extras.get("cookie", "0"), 0)

    @property
    def place(self) -> tuple[int, str]:
        """Where a table holds at most one flow: its priority is part of the match."""
        return self.table, self.match

    @property
    def text(self) -> str:
        """The flow as ovs-ofctl takes it."""
        words = [f"table={self.table}"] if self.table else []
        words += [f"{name}={value}" if value else name for name, value in self.extras.items()]
        words += [self.match] if self.match else []
        return ",".join([*words, f"actions={self.actions}"])

    @property
    def meaning(self) -> Hashable:
        """What two flows have in common that mean the same."""
        return self.place, frozenset(self.extras.items()), self.actions


_FLAGS = ("send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts")


def require(system: System, resource: str) -> None:
    """Raise HostError where the host has no ovs-ofctl."""
    if not os.access(system.root + OFCTL, os.X_OK):
        remedy = "install the package openvswitch-switch"
        raise HostError(resource, OFCTL, "no such program", remedy)


def plain_lines(text: str) -> list[str]:
    """Return the lines of a text without comments and without empty ones."""
    plain = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in plain if line]


def lines_of(text: str) -> list[str]:
    """Return the flows of a text, one each line, without comments; each with a cookie."""
    return [line if cookie_of(line) else f"cookie={COOKIE:#x},{line}" for line in plain_lines(text)]


def cookie_of(line: str) -> int:
    """Return the cookie that a flow's text names, 0 where it names none."""
    head = line.partition("actions=")[0].replace(",", " ")
    for word in head.split():
        if word.startswith("cookie="):
            try:
                return int(word[7:].partition("/")[0], 0)
            except ValueError:
                return 0  # ovs-ofctl says what is wrong with it
    return 0


def cookies(lines: Iterable[str]) -> set[int]:
    """Return the cookies that flows carry."""
    return {cookie_of(line) for line in lines}


def differing(system: System, bridge: str, lines: list[str]) -> tuple[list[Flow], list[Flow]]:
    """Return the flows that the bridge has and the lines have not, and the other way round.

    Raises CommandError with ovs-ofctl's reason where a line is no flow, or there is no bridge.
    """
    gone, new = [], []
    known_as = numbers(system) if lines else {}
    plain = [numbered(line, known_as) for line in lines]
    for line in ofctl(system, "diff-flows", bridge, plain, (0, 2)).splitlines():
        if line.startswith("-"):
            gone.append(Flow(line[1:]))
        elif line.startswith("+"):
            new.append(Flow(line[1:]))
    if gone and new:
        becomes = _becoming(system, new)
        known, wanted = ({flow.meaning for flow in each} for each in (gone, becomes))
        new = [flow for flow in becomes if flow.meaning not in known]
        gone = [flow for flow in gone if flow.meaning not in wanted]
    return gone, new


#: Words of flows that a port may be called too; such a port is written by its number.
_WORDS = frozenset(
    (
        "ip", "ipv6", "tcp", "udp", "sctp", "arp", "rarp", "icmp", "icmp6", "tcp6", "udp6",
        "sctp6", "mpls", "mplsm", "drop", "normal", "flood", "all", "local", "controller",
        "table", "in_port", "output",
    )
)  # fmt: skip
_ENDS = ",:=()[]> \t"


def numbers(system: System) -> dict[str, str]:
    """Return the switch's numbers of its ports by name."""
    from fleet.host.switches.ovsdb import Database

    with Database(system) as database:
        rows = database.tables({"Interface": ("name", "ofport")})["Interface"]
    found = {row["name"]: row["ofport"] for row in rows if isinstance(row["ofport"], int)}
    # OFPP_LOCAL; -1 is a port that the switch could not open.
    return {
        name: "LOCAL" if number == 65534 else str(number)
        for name, number in found.items()
        if number > 0 and name.lower() not in _WORDS
    }


def numbered(line: str, numbers: dict[str, str]) -> str:
    """Return a flow, or actions, with numbers for ports' names: parse-flows knows no names."""
    found, word = [], ""
    for character in line + ",":
        if character in _ENDS:
            found.append(numbers.get(word.strip('"'), word) + character)
            word = ""
        else:
            word += character
    return "".join(found)[:-1]


def _becoming(system: System, flows: list[Flow]) -> list[Flow]:
    """Return flows as the switch will have them."""
    said = ofctl(system, "parse-flows", "", [flow.text for flow in flows], (0,))
    return [Flow(line.partition(" ADD ")[2]) for line in said.splitlines() if " ADD " in line]


def ofctl(
    system: System,
    verb: str,
    bridge: str,
    lines: list[str],
    fine: tuple[int, ...],
    version: str = VERSION,
) -> str:
    """Return what ovs-ofctl prints for lines; raises CommandError unless its exit is ``fine``."""
    argv = [OFCTL, "-O", version, "--no-names", verb, *([bridge] if bridge else []), "/dev/stdin"]
    done = system.run(argv, input="".join(f"{line}\n" for line in lines), check=False)
    if done.code not in fine:
        raise CommandError(done, _reason(done.err) or f"exit {done.code}")
    return done.out


def _reason(text: str) -> str:
    """Return what ovs-ofctl complained of, without its own name and the place of its input."""
    return text.strip().replace("ovs-ofctl: ", "").replace("/dev/stdin:", "line ")[:400]


def dump(system: System, bridge: str) -> list[str]:
    """Return a bridge's flows as lines that ovs-ofctl takes; raises CommandError."""
    return [flow.text for flow in differing(system, bridge, [])[0]]


def is_default(flow: Flow) -> bool:
    """Say whether a flow is the one that a fresh bridge has (ofproto/ofproto.c): nobody's."""
    return flow.meaning == Flow("priority=0 actions=NORMAL").meaning


def exchange(system: System, bridge: str, gone: Iterable[Flow], new: Iterable[str]) -> None:
    """Take flows away and put others there, all or nothing; raises CommandError."""
    lines = [
        f"flow delete_strict cookie={flow.cookie:#x}/-1,table={flow.table}"
        + (f",{flow.match}" if flow.match else "")
        for flow in gone
    ]
    lines += [f"flow add {line}" for line in new]
    bundle(system, bridge, lines)


def bundle(system: System, bridge: str, lines: list[str], version: str = VERSION) -> None:
    """Carry out lines of ovs-ofctl's bundle, all or nothing; raises CommandError."""
    if lines:
        text = "".join(f"{line}\n" for line in lines)
        system.run([OFCTL, "-O", version, "bundle", bridge, "/dev/stdin"], input=text)
