"""Policies between the guests of a bridge, in plain words; each becomes one nftables table.

The table is ``bridge/fleet-NAME``. What guests send is checked where it enters the bridge
(prerouting), what passes between guests where it is forwarded; the first rule that fits decides:
blocked ports, then allowed pairs, then isolation.
"""

from __future__ import annotations

from fleet.host.change import DELETE, amended
from fleet.host.kernel import ip
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
    from typing import Annotated, Literal

    from fleet.host.fields import (
        MAC,
        AddressOrMAC,
        AddressOrNetwork,
        Bound,
        DevicePattern,
        PolicyName,
        Ports,
        Rate,
    )

    #: What a resource is called.
    NAME = PolicyName


@spec
class Block:
    """Ports, and ranges of ports, that nobody reaches on a guest."""

    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    ports: tuple[Ports, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a block of nothing; the controller alone comes here."""
        if not self.ports:
            raise ValueError("a block names ports")


@spec
class Limit:
    """How much each guest may send: ``100/second`` packets, or ``10 mbytes/second``."""

    packets: Rate | None = None
    bytes: Rate | None = None
    #: Packets, or bytes, that may pass at once.
    burst: Annotated[int, Bound(1, 4294967295)] | None = None

    def __post_init__(self) -> None:
        """Refuse a limit of nothing; the controller alone comes here."""
        if not (self.packets or self.bytes):
            raise ValueError("a limit names packets or bytes")


@spec
class Identity:
    """What a guest's port may send as; DHCP's and IPv6's unspecified sources always pass."""

    macaddress: MAC | None = None
    addresses: tuple[AddressOrNetwork, ...] | None = None


@spec
class Policy:
    """What the guests behind some ports may do; ``guests`` are names or patterns such as vnet*."""

    guests: tuple[DevicePattern, ...] = ("vnet*", "tap*")
    isolate: bool = False
    #: Pairs of guests, by IP or MAC address, that may talk both ways all the same.
    allow: tuple[tuple[AddressOrMAC, AddressOrMAC], ...] = ()
    block: tuple[Block, ...] = ()
    limits: tuple[Limit, ...] = ()
    anti_spoofing: dict[DevicePattern, Identity] | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing, and pairs that are none; the controller alone comes here."""
        if not self.guests:
            raise ValueError("guests names no port; leave it out for vnet* and tap*")
        if not (self.isolate or self.allow or self.block or self.limits or self.anti_spoofing):
            raise ValueError("name isolate, allow, block, limits or anti-spoofing")
        for one, other in self.allow:
            if _sort(one) != _sort(other):
                raise ValueError(f"{one} and {other} are no pair: both by MAC, by IPv4 or by IPv6")
            if one == other:
                raise ValueError(f"{one} is no pair with itself")
            if _is_mac(one) and (int(one[:2], 16) | int(other[:2], 16)) & 1:
                raise ValueError(f"{one} and {other}: a group address is no guest's")


SPEC = Policy


def table_of(name: str) -> str:
    """Return the table that a policy becomes."""
    return f"bridge/fleet-{name}"


def rules_of(policy: Policy) -> str:
    """Return a policy as what stands between its table's braces; pure."""
    guests = _set(f'"{name}"' for name in policy.guests)
    sets, entering, forwarding = [], _spoofing(policy), []
    for number, limit in enumerate(policy.limits):
        for word, unit in (("packets", " packets"), ("bytes", " bytes")):
            rate = getattr(limit, word)
            if rate is None:
                continue
            name = f"{word}-{number}"
            burst = f" burst {limit.burst}{unit}" if limit.burst else ""
            sets.append(f"set {name} {{\n\ttype ifname\n\tsize 65535\n\tflags dynamic\n}}")
            entering.append(
                f"iifname {guests} update @{name} {{ iifname limit rate over {rate}{burst} }} drop"
            )
    for block in policy.block:
        ports = _set(_merged(block.ports))
        forwarding.append(f"oifname {guests} {block.protocol} dport {ports} drop")
    members = sorted({each for pair in policy.allow for each in pair if _is_mac(each)})
    if members:
        sets += [_places(name) for name in (HEARD, *(_place(mac) for mac in members))]
        entering += _learning(guests, members)
        entering.append(f"iifname {guests} update @{HEARD} {{ iifname }}")
    for one, other in policy.allow:
        forwarding += [*_pair(one, other), *_pair(other, one)]
    if members:
        asks = f"ether saddr {_set(members)} oifname {guests} oifname != @{HEARD}"
        forwarding.append(f"{asks} jump {ASKING}")
    if policy.isolate:
        forwarding.append(f"iifname {guests} oifname {guests} drop")
    chains = [
        _ASKING if members else "",
        _chain("prerouting", -300, entering) if entering else "",
        _chain("forward", 0, forwarding) if forwarding else "",
    ]
    return "\n".join(part for part in (*sets, *chains) if part)


def _set(words: Any) -> str:
    return "{ " + ", ".join(words) + " }"


def _merged(ports: tuple[str, ...]) -> list[str]:
    """Return ports and ranges with those that overlap made one: nft takes no overlap in a set."""
    found: list[list[int]] = []
    for low, high in sorted(_ends(str(each)) for each in ports):
        if found and low <= found[-1][1]:
            found[-1][1] = max(found[-1][1], high)
        else:
            found.append([low, high])
    return [str(low) if low == high else f"{low}-{high}" for low, high in found]


def _ends(ports: str) -> tuple[int, int]:
    low, _, high = ports.partition("-")
    return int(low), int(high or low)


def _chain(hook: str, priority: int, rules: list[str]) -> str:
    head = f"type filter hook {hook} priority {priority}; policy accept;"
    return "\n".join((f"chain {hook} {{", f"\t{head}", *(f"\t{rule}" for rule in rules), "}"))


def _spoofing(policy: Policy) -> list[str]:
    rules = []
    for port, identity in (policy.anti_spoofing or {}).items():
        start = f'iifname "{port}"'
        if identity.macaddress:
            rules.append(f"{start} ether saddr != {identity.macaddress} drop")
        if identity.addresses is None:
            continue
        # RFC 2131: a DHCP client sends from 0.0.0.0; RFC 4862: duplicate detection from ::.
        four = [a for a in identity.addresses if ":" not in a] + ["0.0.0.0"]
        six = [a for a in identity.addresses if ":" in a] + ["::", "fe80::/10"]
        rules.append(f"{start} ip saddr != {_set(four)} drop")
        rules.append(f"{start} arp saddr ip != {_set(four)} drop")
        rules.append(f"{start} ip6 saddr != {_set(six)} drop")
        # The kernel takes one VLAN tag off before it looks (skb_vlan_untag()); below a second one
        # it sees no address.
        rules.append(f"{start} meta protocol {{ 8021q, 8021ad }} drop")
    return rules


def _pair(one: str, other: str) -> list[str]:
    if _is_mac(one):
        return [
            f"ether saddr {one} ether daddr {other} accept",
            f"ether saddr {one} oifname @{_place(other)} jump {ASKING}",
        ]
    if ":" in one:
        group = _solicited(other)
        solicit = f"ip6 saddr {one} ip6 daddr {group} icmpv6 type nd-neighbor-solicit accept"
        return [f"ip6 saddr {one} ip6 daddr {other} accept", solicit]
    return [
        f"ip saddr {one} ip daddr {other} accept",
        f"arp saddr ip {one} arp daddr ip {other} accept",
    ]


# Who asks for a neighbour's MAC address asks everybody, so no frame names the pair. Such a question
# goes out of the ports that the other one was heard at, and of those that nobody was heard at yet:
# a guest that has not sent anything can be asked, and no third one can be told a wrong answer.
HEARD, ASKING = "heard", "asking"
_ASKING = f"""chain {ASKING} {{
\tether daddr ff:ff:ff:ff:ff:ff arp operation request accept
\ticmpv6 type nd-neighbor-solicit accept
}}"""


def _is_mac(text: str) -> bool:
    return len(text) == 17 and text.count(":") == 5


def _sort(text: str) -> str:
    return "MAC" if _is_mac(text) else "IPv6" if ":" in text else "IPv4"


def _place(mac: str) -> str:
    return f"at-{mac.replace(':', '-')}"


def _places(name: str) -> str:
    # Together they forget: else who was silent for an hour could no more be asked.
    return f"set {name} {{\n\ttype ifname\n\tsize 65535\n\tflags dynamic,timeout\n\ttimeout 1h\n}}"


def _learning(guests: str, members: list[str]) -> list[str]:
    return [
        f"iifname {guests} ether saddr {mac} update @{_place(mac)} {{ iifname }}" for mac in members
    ]


def _solicited(address: str) -> str:
    """RFC 4291, 2.7.1: the group that an IPv6 address is asked for in."""
    low = ip.number(address)
    return ip.normal(f"ff02::1:ff{low >> 16 & 0xFF:02x}:{low & 0xFFFF:x}")


def names(observation: Observation) -> list[str]:
    """Return nothing: the tables of policies are nftables tables, and that kind names those."""
    return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return the table a policy became, in nft's words: what was readable is intent's alone."""
    text = ruleset.listing(observation.system, table_of(name))
    return None if text is None else {"rules": ruleset.body(text)}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change where the table does not mean what the policy says."""
    policy = decode(Policy, resource.spec)
    changes = table_diff.diff_table(
        resource, table_of(resource.name), rules_of(policy), observation
    )
    if not (changes and policy.allow):
        return changes
    rejecting = table_diff.rejecting(observation, table_of(resource.name))
    if not rejecting:
        return changes
    words = f"{', '.join(rejecting)} may still reject what the pairs of allow accept"
    return [amended(c, reason="; ".join(filter(None, (c.reason, words)))) for c in changes]


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a policy's table."""
    return table_diff.remove_table(entry, table_of(entry.name), observation)


def apply(system: System, change: Change) -> None:
    """Replace or delete the policy's table in one transaction."""
    rules = None if change.action == DELETE else change.after
    ruleset.replace(system, table_of(change.name), rules)
