"""nftables tables that fleet owns (nft(8)): compared by meaning, replaced in one transaction.

A resource's name is ``family/table``. Tables of others are never read into a change: the one
transaction of an apply names this table alone.
"""

from __future__ import annotations

from fleet.host.change import DELETE
from fleet.host.pattern import any_matches
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.tables import ruleset, table_diff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import Block, TableName

    #: What a resource is called.
    NAME = TableName


@spec
class Table:
    """What stands between a table's braces, in nft(8)'s own syntax."""

    rules: Block = ""

    def __post_init__(self) -> None:
        """Refuse what leaves the table; the controller alone comes here."""
        wrong = ruleset.escapes(self.rules)
        if wrong:
            raise ValueError(f"{wrong}; rules are what stands between the table's braces")


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "rules"
SPEC = Table


def names(observation: Observation) -> list[str]:
    """Return every table of the namespace as ``family/name``."""
    return ruleset.tables(observation.system)


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a table as intent would write it."""
    text = ruleset.listing(observation.system, name)
    return None if text is None else {"rules": ruleset.body(text)}


#: The iptables programs' tables, and the chains that these hook.
_OTHERS = ("filter", "nat", "mangle", "raw", "security", "broute")
_CHAINS = ("INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "BROUTING")
#: Tables of libvirt, firewalld and container engines.
_THEIRS = ("libvirt*", "firewalld*", "docker*", "netavark*", "lxc*", "incus*", "kube*", "cali*")


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a table without what it has counted, None where a program made it for itself."""
    family, table = ruleset.split(name)
    if any_matches(table, _THEIRS):
        return None
    done = observation.system.run([ruleset.NFT, "-s", "list", "table", family, table], check=False)
    if done.code:
        return None
    legacy = family in ("ip", "ip6", "bridge", "arp") and table in _OTHERS
    if legacy and not _hooked_by_hand(done.out):
        return None
    lines = ruleset.body(ruleset.unfilled(done.out)).splitlines()
    # YAML takes no tabs in front of a line.
    plain = (line.lstrip("\t") for line in lines)
    indented = ("  " * (len(line) - len(text)) + text for line, text in zip(lines, plain))
    # An empty table is one too, and a field that is an empty text would be none.
    return {"rules": "".join(f"{line}\n" for line in indented) or "\n"}


def _hooked_by_hand(text: str) -> bool:
    """Whether a listed table hooks a chain that none of the iptables programs would name so."""
    chain = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
        elif words[:1] == ["type"] and "hook" in words and chain not in _CHAINS:
            return True
    return False


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change where the kernel's table does not mean what intent's text means."""
    wanted = decode(Table, resource.spec)
    return table_diff.diff_table(resource, resource.name, wanted.rules, observation)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a table that fleet made."""
    return table_diff.remove_table(entry, entry.name, observation)


def apply(system: System, change: Change) -> None:
    """Replace or delete the table in one transaction."""
    ruleset.replace(system, change.name, None if change.action == DELETE else change.after)
