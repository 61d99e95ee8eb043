"""Diff of one nftables table: what nftables and policies share; reading only."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, UPDATE, HostError
from fleet.host.links.steps import Steps
from fleet.host.tables import proven, ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.planning.ledger import Entry


def diff_table(resource: Resource, name: str, rules: str, observation: Observation) -> list[Change]:
    """Return one change where a table does not mean what rules say.

    Raises HostError where the kernel refuses the rules, and where they would cut off management.
    """
    if proven.holds(observation, name, rules):
        return []
    proof = proven.Proof(observation)
    now = ruleset.live(observation.system, name) if observation.exists else None
    if now == ruleset.meaning_of(name, rules, observation):
        proof.found_equal(name, rules)
        return []
    from fleet.host.tables.rehearsal import rehearse  # not needed where nothing differs

    objection = rehearse(observation, {name: rules})
    if objection:
        raise HostError(
            resource.key,
            "management connections to keep working",
            objection,
            "accept the management path in this table, before what drops it",
            "rules",
        )
    steps = Steps(resource)
    lines: tuple[str, ...] = ()
    if now is not None:
        found = ruleset.listing(observation.system, name, stateless=True) or ""
        lines = differing(found, ruleset.spelled(name, rules, observation))
    steps.add(
        "" if now is None else "rules",
        None if now is None else ruleset.body(ruleset.listing(observation.system, name) or ""),
        rules,
        action=CREATE if now is None else UPDATE,
        impact="none" if now is None else "blip",
        reason="" if now is None else "counters of this table start again",
        lines=lines,
        requires=tuple(f"device:{device}" for device in ruleset.devices(rules)),
        touches=(f"nftables:{name}",),
    )
    return steps.changes


def remove_table(entry: Entry, name: str, observation: Observation) -> list[Change]:
    """Return the deletion of a table that fleet made and the host still has."""
    text = ruleset.listing(observation.system, name) if entry.created else None
    if text is None:
        return []
    steps = Steps(entry)
    steps.add("", ruleset.body(text), None, action=DELETE, touches=(f"nftables:{name}",))
    return steps.changes


def differing(before: str, after: str) -> tuple[str, ...]:
    """Return what two listings of a table differ in: ``+ chain input: tcp dport 22 accept``.

    Elements that packets put into a set are none of it.
    """
    one, other = _statements(before), _statements(after)
    gone, come = list(one), list(other)
    for statement in one:
        if statement in come:
            come.remove(statement)
            gone.remove(statement)
    return (*(f"- {each}" for each in gone), *(f"+ {each}" for each in come))


def _statements(text: str) -> list[str]:
    """Return the statements of a listing, each behind the block that it is in."""
    blocks: list[str] = []
    found: list[str] = []
    joined = ""
    for line in ruleset.unfilled(text).splitlines()[1:-1]:
        joined = f"{joined} {line.strip()}".strip()
        opened = joined.count("{") - joined.count("}")
        if joined.endswith("{") and opened == 1 and not joined.startswith("elements"):
            blocks.append(joined[:-1].strip())
            found.append(blocks[-1])
        elif joined == "}":
            blocks.pop()
        elif opened:
            continue
        elif joined:
            block = blocks[-1] if blocks else ""
            found.append(f"{block}: {joined}" if block else joined)
        joined = ""
    return found


def rejecting(observation: Observation, name: str) -> list[str]:
    """Return the other tables whose forward hook may reject what a table's accept lets pass.

    An accept ends one base chain alone; the next one on the hook still decides (nft(8)). Frames
    of a bridge meet the ip families too while bridge-nf-call-iptables is on.
    """
    if not observation.exists:
        return []
    system, families = observation.system, ["bridge"]
    for family, key in (("ip", "iptables"), ("ip6", "ip6tables")):
        if system.sysctl(f"net.bridge.bridge-nf-call-{key}") == "1":
            families += [family, "inet"]
    found = []
    for other in ruleset.tables(system):
        if other == name or ruleset.split(other)[0] not in families:
            continue
        text = ruleset.listing(system, other) or ""
        if "hook forward" in text and any(w in text for w in ("policy drop", " drop", "reject")):
            found.append(f"table {' '.join(ruleset.split(other))}")
    return found
