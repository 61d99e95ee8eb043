"""Policy routing rules (netplan ``routing-policy``; ip-rule(8)).

A rule belongs to no device, so the controller gathers every device's ``routing-policy`` into one
resource per rule, whose name is the rule in words.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.kernel import ip
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import AddressOrNetwork, Uint8, Uint32


@spec
class Rule:
    """One rule; ``from`` or ``to`` or both."""

    from_: AddressOrNetwork | None = None
    to: AddressOrNetwork | None = None
    table: Uint32 | None = None
    priority: Uint32 | None = None
    mark: Uint32 | None = None
    type_of_service: Uint8 | None = None
    family: Literal["ipv4", "ipv6"] | None = None

    def __post_init__(self) -> None:
        """Refuse what no kernel takes; the controller alone comes here."""
        if not (self.from_ or self.to or self.mark or self.type_of_service):
            raise ValueError("a rule needs from, to, mark or type-of-service")
        texts = [text for text in (self.from_, self.to) if text]
        families = {"ipv6" if ":" in text else "ipv4" for text in texts}
        if len(families | ({self.family} if self.family else set())) > 1:
            raise ValueError("from, to and family are of different address families")
        if "ipv6" not in families and self.family != "ipv6" and (self.type_of_service or 0) & ~0x1E:
            # fib4_rule_configure(): the four bits of RFC 1349.
            raise ValueError(
                f"type-of-service {self.type_of_service} of an IPv4 rule is more than RFC 1349's "
                "four bits: an even number up to 30"
            )


SPEC = Rule

MAIN = 254
#: include/uapi/linux/rtnetlink.h and fib_rules.h
RTPROT_KERNEL, RTPROT_STATIC, FR_ACT_TO_TBL = 2, 4, 1


def family_of(wanted: Rule) -> int:
    """Return 4 or 6; a rule that names neither family nor prefix is IPv4's (networkd)."""
    if wanted.family:
        return 6 if wanted.family == "ipv6" else 4
    return ip.family(wanted.from_ or wanted.to or "")


def _prefix(text: str | None) -> str | None:
    if text is None or text in ("all", "0.0.0.0/0", "::/0"):
        return None
    text = ip.normal(text)
    return text if "/" in text else f"{text}/{ip.bits(text)}"


def _form(wanted: Rule) -> dict[str, Any]:
    return {
        "family": family_of(wanted),
        "from": _prefix(wanted.from_),
        "to": _prefix(wanted.to),
        "table": wanted.table or MAIN,
        "mark": wanted.mark or None,
        "tos": wanted.type_of_service or None,
        "priority": wanted.priority,
    }


def _found(observed: dict[str, Any]) -> dict[str, Any]:
    return {
        "family": observed["family"],
        "from": _prefix(observed.get("from")),
        "to": _prefix(observed.get("to")),
        "table": observed["table"],
        "mark": observed.get("mark") or None,
        "tos": observed.get("tos") or None,
        "priority": observed["priority"],
    }


#: What a spec has no words for; a rule with any of it is somebody else's.
_OTHER = (
    "iif", "oif", "invert", "goto", "l3mdev", "suppress_ifgroup", "suppress_prefixlength",
    "uid_range", "ip_proto", "sport", "dport",
)  # fmt: skip


def _plain(observed: dict[str, Any]) -> bool:
    """Say whether a rule has nothing that a spec cannot express."""
    whole = observed.get("mask") in (None, 0xFFFFFFFF) or not observed.get("mark")
    return observed["action"] == "table" and whole and not _others(observed)


def _others(observed: dict[str, Any]) -> list[str]:
    # A suppressed prefix length of 0 is one: what keeps the default route from being taken.
    # By identity, for 0 equals False.
    return [w for w in _OTHER if not any(observed.get(w) is said for said in (None, False, ""))]


def unsaid(observation: Observation) -> list[str]:
    """Return what rules that somebody added have and intent has no words for, one line each."""
    lines = []
    for observed in observation.rules:
        if observed["protocol"] == RTPROT_KERNEL or _plain(observed):
            continue
        words = [f"{word} {observed[word]}" for word in _others(observed)]
        if observed["action"] != "table":
            words.append(f"action {observed['action']}")
        if observed.get("mark") and observed.get("mask") not in (None, 0xFFFFFFFF):
            words.append(f"mark {observed['mark']:#x}/{observed['mask']:#x}")
        said = f"the policy rule of priority {observed['priority']} is left out"
        lines.append(f"{said}: intent has no words for {', '.join(words)}")
    return lines


def _standing(wanted: Rule, observation: Observation) -> dict[str, Any] | None:
    """Return the observed rule that is the wanted one; any priority where intent names none."""
    form = _form(wanted)
    for observed in observation.rules:
        found = _found(observed)
        if form["priority"] is None:
            found["priority"] = None
        if found == form and _plain(observed):
            return observed
    return None


def _by_hand(observed: dict[str, Any]) -> bool:
    return observed["protocol"] != RTPROT_KERNEL and _plain(observed)


def _words(observed: dict[str, Any]) -> dict[str, Any]:
    found = _found(observed)
    words = {key: value for key, value in found.items() if value is not None}
    words["family"] = f"ipv{found['family']}"
    if "tos" in words:
        words["type-of-service"] = words.pop("tos")
    return words


def _name(observed: dict[str, Any]) -> str:
    words = _words(observed)
    return " ".join(f"{word} {words[word]}" for word in sorted(words))


def names(observation: Observation) -> list[str]:
    """Return the rules that somebody added, in words."""
    return sorted(_name(rule) for rule in observation.rules if _by_hand(rule))


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a rule, by its name in words, as intent would write it."""
    for observed in observation.rules:
        if _by_hand(observed) and _name(observed) == name:
            return _words(observed)
    return None


def managed(resources: list[Resource], observation: Observation) -> set[str]:
    """Return the names, in words, of the observed rules that resources stand for."""
    found = [_standing(decode(Rule, r.spec), observation) for r in resources]
    return {_name(observed) for observed in found if observed is not None}


def original(resource: Resource, observation: Observation) -> dict[str, Any] | None:
    """Return the form of a rule before fleet adopted it; None where the host had none."""
    observed = _standing(decode(Rule, resource.spec), observation)
    return None if observed is None else _words(observed)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the addition of a rule that the host lacks."""
    wanted = decode(Rule, resource.spec)
    if _standing(wanted, observation) is not None:
        return []
    steps = Steps(resource)
    after = {dashed(name): value for name, value in encode(wanted).items()}
    steps.add("", None, after, action=CREATE)
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of a rule that fleet added."""
    if not entry.created:
        return []
    observed = _standing(decode(Rule, entry.spec), observation)
    if observed is None:
        return []
    steps = Steps(entry)
    steps.add("", _words(observed), None, action=DELETE, impact="blip")
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Add or remove one rule."""
    from pyroute2.netlink.exceptions import NetlinkError

    words = change.before if change.action == DELETE else change.after
    fields = {"from_" if k == "from" else k.replace("-", "_"): v for k, v in words.items()}
    form = _form(Rule(**fields))
    attributes: dict[str, Any] = {
        "family": 10 if form["family"] == 6 else 2,
        "table": form["table"],
        "action": FR_ACT_TO_TBL,
        "priority": form["priority"],
    }
    for word, key in (("from", "src"), ("to", "dst")):
        if form[word]:
            attributes[key] = ip.host(form[word])
            attributes[f"{key}_len"] = ip.length(form[word])
    if form["mark"]:
        attributes["fwmark"] = form["mark"]
    if form["tos"]:
        attributes["tos"] = form["tos"]
    if change.action != DELETE:
        attributes["protocol"] = RTPROT_STATIC
    try:
        if attributes["priority"] is None:
            attributes["priority"] = _free_priority(system, attributes["family"])
        system.route.rule("del" if change.action == DELETE else "add", **attributes)
    except NetlinkError as error:
        if change.action == DELETE and error.code == 2:
            return
        raise HostError(
            change.key,
            "to be gone" if change.action == DELETE else "the rule to be added",
            f"the kernel refuses: {error}",
            "correct the rule in routing-policy",
        ) from error


def _free_priority(system: System, family: int) -> int:
    """fib_default_rule_pref(): one less than the lowest that is not the local table's."""
    rules = system.route.get_rules(family=family)
    taken = [rule.get_attr("FRA_PRIORITY", 0) or 0 for rule in rules]
    above = [priority for priority in taken if priority > 0]
    return max(min(above) - 1, 1) if above else 32765
