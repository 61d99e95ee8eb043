"""Rate limits of a device (tc(8)): out of it by tbf or htb, into it by way of an ifb.

The root discipline that fleet makes has the handle f1ee:, and what comes in leaves an ifb that is
named after the device. A discipline that somebody else made is refused unless it does what intent
says already; then it is adopted as it is.
"""

from __future__ import annotations

from fleet.host.change import DELETE, HostError
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.shapes import packets, shaped
from fleet.host.spec import ON_HOST, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change, Problem, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import (
        AddressOrNetwork,
        BitRate,
        ByteSize,
        ClassPriority,
        DeviceName,
        Duration,
        Port,
        Word,
    )

    #: What a resource is called.
    NAME = DeviceName

#: A frame is its MTU and an Ethernet header; tbf drops what its burst does not hold.
ETH_HLEN = 14
#: 2**32 ticks of 64 ns: how long a burst may take, in seconds.
LONGEST = 274


@spec
class Limit:
    """A rate, how much may go at once, and how long a packet may wait for its turn."""

    rate: BitRate = ""
    burst: ByteSize | None = None
    latency: Duration | None = None

    def __post_init__(self) -> None:
        """Refuse what the kernel's counters cannot hold; the controller alone comes here."""
        if self.rate:
            _check_burst(self.rate, self.burst)


@spec
class Match:
    """Which packets: all that is named has to fit; ports are the destination's and the source's."""

    source: AddressOrNetwork | None = None
    destination: AddressOrNetwork | None = None
    protocol: Literal["tcp", "udp", "sctp", "icmp", "icmpv6", "gre", "esp", "ah"] | None = None
    port: Port | None = None
    source_port: Port | None = None

    def __post_init__(self) -> None:
        """Refuse what fits no packet, or every one."""
        words = encode(self)
        if not words:
            raise ValueError("a match names something; a class without one is the default")
        if (self.port or self.source_port) and self.protocol not in ("tcp", "udp", "sctp"):
            raise ValueError("a port needs protocol: tcp, udp or sctp")
        if not packets.families(words):
            raise ValueError("no packet is of both IPv4 and IPv6")


@spec
class TrafficClass:
    """What some packets are granted, and up to what they may use what the others leave."""

    name: Word = ""
    rate: BitRate = ""
    ceil: BitRate | None = None
    burst: ByteSize | None = None
    priority: ClassPriority | None = None
    match: Match | None = None

    def __post_init__(self) -> None:
        """Refuse a ceiling below what is granted."""
        from fleet.host.shapes.rates import bytes_per_second

        if self.rate:
            _check_burst(self.rate, self.burst)
            if self.ceil and bytes_per_second(self.ceil) < bytes_per_second(self.rate):
                raise ValueError(f"ceil {self.ceil} is less than rate {self.rate}")


@spec
class Shaping:
    """The limits of one device; ``classes`` share its egress, in the place of one limit.

    What no class matches is in the ``default`` class, and without one it is not limited.
    """

    egress: Limit | None = None
    ingress: Limit | None = None
    classes: tuple[TrafficClass, ...] | None = None
    default: Word | None = None

    def __post_init__(self) -> None:
        """Refuse two limits of one direction, and a default that is no class."""
        names = [item.name for item in self.classes or ()]
        if self.egress and names:
            raise ValueError("egress and classes both limit what goes out; keep one")
        if not (self.egress or self.ingress or names):
            raise ValueError("name egress, ingress or classes")
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name")
        if len(names) > 1000:
            raise ValueError("there are at most 1000 classes")
        if self.default is not None and self.default not in names:
            raise ValueError(
                f"default {self.default!r} names no class; the classes are {', '.join(names)}"
            )
        for item in self.classes or ():
            if item.match is None and item.name != self.default:
                raise ValueError(
                    f"class {item.name!r} matches nothing: give it a match, or make it the default"
                )


SPEC = Shaping


def _check_burst(rate: str, burst: str | None) -> None:
    from fleet.host.shapes.rates import bytes_per_second, size

    if burst and size(burst) > LONGEST * bytes_per_second(rate):
        raise ValueError(f"a burst of {burst} takes more than {LONGEST} s at {rate}")


def ifb_of(device: str) -> str:
    """Return the name of the ifb that a device's incoming traffic goes through."""
    name = f"ifb-{device}"
    if len(name.encode()) <= 15:
        return name
    from fleet.host.planning.digest import sha256

    return f"ifb-{device[:4]}-{sha256(device)[:6]}"


# What is there


def names(observation: Observation) -> list[str]:
    """Return the devices with limits that intent has words for."""
    devices = {side.rpartition("/")[0] for side in observation.traffic}
    own = {name for name in devices if observation.links[name]["kind"] != "ifb"}
    return sorted(name for name in own if observe(observation, name) is not None)


def observe(observation: Observation, name: str) -> Words | None:
    """Return a device's limits as intent would write them."""
    words = _root_words(_side(observation, name))
    through = shaped.target(_side(observation, name, "ingress"))
    if through:
        now = shaped.meaning(_side(observation, through))
        if now is not None and now["kind"] == "tbf":
            words["ingress"] = shaped.limit_words(now)
    return words or None


def lean(form: Words, observation: Observation, name: str) -> Words:
    """Return limits without what fleet gives by itself, with the bursts that somebody gave."""
    records = _side(observation, name)
    now, found = shaped.meaning(records), dict(form)
    if "egress" in form and now is not None:
        found["egress"] = shaped.lean_limit(now)
    elif "classes" in form and now is not None:
        found.update(shaped.lean_classes(now, _ours(records)) or {})
    there = shaped.meaning(
        _side(observation, shaped.target(_side(observation, name, "ingress")) or "")
    )
    if "ingress" in form and there is not None:
        found["ingress"] = shaped.lean_limit(there)
    return found


def unsaid(observation: Observation) -> list[str]:
    """Return what limits devices and has no words in intent, one line each."""
    through = {shaped.target(records) for records in observation.traffic.values()}
    lines = []
    for side, records in observation.traffic.items():
        device, _, way = side.rpartition("/")
        words = observe(observation, device) or {}
        said = (way,) if way == "ingress" else ("egress", "classes")
        if device in through or set(said) & set(words) or shaped.target(records) == "":
            continue
        lines.append(f"{way} of {device}, {_said(records)}, is left out: intent has no words")
    return lines


def _side(observation: Observation, device: str, side: str = "egress") -> list[Words]:
    return observation.traffic.get(f"{device}/{side}", [])


def _root_words(records: list[Words]) -> Words:
    """Return ``egress``, or ``classes`` and ``default``, or nothing."""
    now = shaped.meaning(records)
    if now is None:
        return {}
    if now["kind"] == "tbf":
        return {"egress": shaped.limit_words(now)}
    return shaped.class_words(now) or {}


def _ours(records: list[Words]) -> bool:
    return bool(records) and records[0]["handle"] == shaped.HANDLE


# What has to change


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change for what goes out and one for what comes in, where they differ."""
    wanted: Words = encode(decode(Shaping, resource.spec))
    known = (entry.spec or {}) if entry else {}
    steps = Steps(resource, device_of(observation, resource.name))
    root = _root(wanted)
    if root:
        _check_mtu(resource, observation, steps.device, root.get("egress"), "egress")
        _diff_root(steps, root, bool(_root(known)), observation)
    elif _root(known) and entry is not None:
        _remove_root(steps, entry, observation)
    if wanted.get("ingress"):
        _check_mtu(resource, observation, steps.device, wanted["ingress"], "ingress")
        _diff_ingress(steps, wanted["ingress"], bool(known.get("ingress")), observation)
    elif known.get("ingress") and entry is not None:
        return steps.changes + _remove_ingress(steps, entry, observation)
    return steps.changes


def _root(words: Words) -> Words:
    if words.get("classes"):
        return {key: words[key] for key in ("classes", "default") if words.get(key)}
    return {"egress": words["egress"]} if words.get("egress") else {}


def _check_mtu(
    resource: Resource, observation: Observation, device: str, limit: Words | None, what: str
) -> None:
    link = observation.links.get(device)
    if not limit or link is None:
        return
    burst = shaped.limit_of(limit)[1]
    if burst < link["mtu"] + ETH_HLEN:
        raise HostError(
            resource.key,
            f"a burst of at least {link['mtu'] + ETH_HLEN}b, one frame of {device}",
            limit["burst"] if limit.get("burst") else f"{burst}b",
            "raise the burst: what is larger than it would never pass",
            f"{what}.burst",
        )


def _diff_root(steps: Steps, wanted: Words, known: bool, observation: Observation) -> None:
    records = _side(observation, steps.device)
    now, own = shaped.meaning(records), _ours(records)
    if "egress" in wanted:
        same = shaped.same_limit(wanted["egress"], now, own)
    else:
        same = shaped.same_classes(wanted, now, own)
    if same:
        return
    if records and not own and not known:
        raise _foreign(steps, _said(records), next(iter(wanted)))
    before = _before(records)
    what = next(iter(wanted))
    after = wanted["egress"] if what == "egress" else wanted
    steps.add(what, before.get("egress", before) or None, after, impact="blip")


def _said(records: list[Words]) -> str:
    return f"{records[0]['kind']} {records[0]['handle'] >> 16:x}:"


def _before(records: list[Words]) -> Words:
    return _root_words(records) or ({"qdisc": _said(records)} if records else {})


def _foreign(steps: Steps, found: str, what: str) -> HostError:
    return HostError(
        steps.resource.key,
        f"no queueing discipline on {steps.device}, or one that does what intent says",
        f"{found} that fleet did not make",
        "write what it does into the intent to adopt it, or delete it by hand: "
        f"tc qdisc del dev {steps.device} {'ingress' if what == 'ingress' else 'root'}",
        what,
    )


def _diff_ingress(steps: Steps, wanted: Words, known: bool, observation: Observation) -> None:
    device, ifb = steps.device, ifb_of(steps.device)
    records = _side(observation, device, "ingress")
    through = shaped.target(records)
    link = observation.links.get(ifb)
    if through:
        there = _side(observation, through)
        carries = through in observation.links and observation.links[through]["up"]
        if carries and shaped.same_limit(wanted, shaped.meaning(there), _ours(there)):
            return
    if through != ifb and (through or through is None) and not known:
        raise _foreign(steps, _said(records), "ingress")
    if link is not None and link["kind"] != "ifb":
        raise HostError(
            steps.resource.key,
            f"{ifb} to be an ifb, or no device of this name",
            f"a device of kind {link['kind'] or 'ethernet'}",
            f"rename or delete {ifb} by hand",
            "ingress",
        )
    steps.add("ingress", _ingress_words(observation, device), wanted, impact="blip",
              provides=(f"device:{ifb}",), touches=(device, ifb))  # fmt: skip


def _ingress_words(observation: Observation, device: str) -> Words | None:
    records = _side(observation, device, "ingress")
    return (observe(observation, device) or {}).get("ingress") or (
        {"qdisc": _said(records)} if records else None
    )


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield a burst that is less than a frame of the MTU that intent gives the device."""
    device = facts.device(resource.name)
    mtu = facts.spec(device).get("mtu")
    for what in ("egress", "ingress"):
        limit = (resource.spec or {}).get(what)
        if mtu and limit and shaped.limit_of(limit)[1] < mtu + ETH_HLEN:
            yield facts.problem(
                resource, f"{what}.burst",
                f"a burst of at least {mtu + ETH_HLEN}b, one frame of {device}",
                limit.get("burst") or f"{shaped.limit_of(limit)[1]}b",
                "raise the burst: what is larger than it would never pass",
            )  # fmt: skip


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of the limits that fleet set; adopted ones stay as they are."""
    steps = Steps(entry, device_of(observation, entry.name))
    spec = entry.spec or {}
    if _root(spec):
        _remove_root(steps, entry, observation)
    if spec.get("ingress"):
        return steps.changes + _remove_ingress(steps, entry, observation)
    return steps.changes


def _remove_root(steps: Steps, entry: Entry, observation: Observation) -> None:
    records = _side(observation, steps.device)
    if not _ours(records) or _root(entry.before or {}):
        return
    before = _before(records)
    what = next(iter(_root(entry.spec)))
    steps.add(what, before.get("egress", before), None, impact="blip")


def _remove_ingress(steps: Steps, entry: Entry, observation: Observation) -> list[Change]:
    """Return the removal of the ifb; that of what leads to it is added to the steps.

    The ifb has to go even where the device goes by itself.
    """
    device, ifb = steps.device, ifb_of(steps.device)
    if (entry.before or {}).get("ingress"):
        return []
    done = f"unshaped:{device}"
    if shaped.target(_side(observation, device, "ingress")) == ifb:
        before = _ingress_words(observation, device)
        touches = (device, ifb)
        steps.add("ingress", before, None, impact="blip", provides=(done,), touches=touches)
    if observation.links.get(ifb, {}).get("kind") != "ifb":
        return []
    more = Steps(entry, ifb)
    more.add("ingress", {"ifb": ifb}, None, action=DELETE, requires=(done,))
    return more.changes


def apply(system: System, change: Change) -> None:
    """Set or take away one limit; what was there is put back where the kernel refuses."""
    from fleet.host.shapes import shaped_apply

    shaped_apply.apply(system, change, ifb_of)
