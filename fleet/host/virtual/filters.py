"""libvirt's network filters: what virsh(1) has of them, compared by what they mean.

``test:///default`` has no filters, so libvirt cannot be asked what a definition means: the rules of
src/conf/nwfilter_conf.c are here, and a corpus test holds them against libvirt.
"""

from __future__ import annotations

from fleet.host.kernel.system import exists
from fleet.host.virtual import tree
from fleet.host.virtual.networks import virsh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Tree = dict[str, Any]

#: What libvirt ships: the next upgrade of its package writes them anew.
STOCK = frozenset((
    "allow-arp", "allow-dhcp", "allow-dhcp-server", "allow-dhcpv6", "allow-dhcpv6-server",
    "allow-incoming-ipv4", "allow-incoming-ipv6", "allow-ipv4", "allow-ipv6", "clean-traffic",
    "clean-traffic-gateway", "no-arp-ip-spoofing", "no-arp-mac-spoofing", "no-arp-spoofing",
    "no-ip-multicast", "no-ip-spoofing", "no-ipv6-multicast", "no-ipv6-spoofing",
    "no-mac-broadcast", "no-mac-spoofing", "no-other-l2-traffic", "no-other-rarp-traffic",
    "qemu-announce-self", "qemu-announce-self-rarp",
))  # fmt: skip
#: The priorities of chains that say none, by the start of their names.
_CHAINS = {
    "root": "0", "stp": "-810", "mac": "-800", "vlan": "-750", "ipv4": "-700", "ipv6": "-600",
    "arp": "-500", "rarp": "-400",
}  # fmt: skip
_RULE_PRIORITY = "500"
#: Words for numbers, by attribute: of Ethernet types, and of IP protocols.
_WORDS = {
    "protocolid": {"ipv4": 0x800, "arp": 0x806, "rarp": 0x8035, "vlan": 0x8100, "ipv6": 0x86DD},
    "protocol": {
        "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132,
        "udplite": 136,
    },
}  # fmt: skip


def listing(system: System) -> list[str]:
    """Return the names of all filters; raises CommandError."""
    return [line.split(None, 1)[1].strip() for line in _lines(system, "nwfilter-list")]


def read(system: System, name: str, known: list[str] | None = None) -> str | None:
    """Return a filter as libvirt writes it, None where there is none; raises CommandError."""
    if name not in (listing(system) if known is None else known):
        return None
    return virsh(system, "nwfilter-dumpxml", name)


def _lines(system: System, *words: str) -> list[str]:
    return [line for line in virsh(system, *words).splitlines() if line.strip()]


def references(text: str) -> list[str]:
    """Return the names of the filters that a filter includes."""
    found = [each for each in tree.parse(text)["children"] if each["tag"] == "filterref"]
    return [each["attributes"].get("filter", "") for each in found]


def lacking(
    system: System, name: str, known: list[str], wanted: dict[str, str]
) -> tuple[list[str], str]:
    """Return the way from a filter to one that nobody has, and that one's name, empty where none.

    ``wanted`` has the filters of the intent as XML. libvirt itself misses it when a guest starts.
    """
    ways, seen = [[name]], {name}
    for way in ways:
        text = wanted.get(way[-1]) or read(system, way[-1], known)
        if text is None:
            return way[:-1], way[-1]
        fresh = [each for each in references(text) if each not in seen]
        seen.update(fresh)
        ways += [[*way, each] for each in fresh]
    return [], ""


def users(system: System, known: list[str]) -> dict[str, str]:
    """Return the guests' devices by the filter they use, also by way of another one."""
    found: dict[str, str] = {}
    waiting = [line.split(None, 1) for line in _lines(system, "nwfilter-binding-list")]
    while waiting:
        device, name = waiting.pop()
        name = name.strip()
        if name in found:
            continue
        found[name] = device
        text = read(system, name, known)
        waiting += [[device, each] for each in references(text or "<filter/>")]
    return found


def define(system: System, text: str, now: str | None) -> None:
    """Define a filter with the identity it had; raises CommandError with libvirt's reason."""
    full = tree.parse(text)
    made = tree.child(tree.parse(now), "uuid") if now else None
    if made is not None:
        rest = [each for each in full["children"] if each["tag"] != "uuid"]
        full["children"] = [made, *rest]
    options = ["--validate"] if exists("/usr/share/libvirt/schemas/nwfilter.rng") else []
    virsh(system, "nwfilter-define", "/dev/stdin", *options, input=tree.write(full))


def put(system: System, name: str, then: str | None, now: str | None) -> None:
    """Make a filter what it was, its UUID too."""
    if now is not None and (then is None or _uuid(then) != _uuid(now)):
        virsh(system, "nwfilter-undefine", name)
    if then is not None:
        virsh(system, "nwfilter-define", "/dev/stdin", input=then)


def _uuid(text: str) -> str:
    found = tree.child(tree.parse(text), "uuid")
    return str(found["text"]) if found else ""


def same(one: str, other: str) -> bool:
    """Say whether two filters of libvirt's are one and the same, their UUID too."""
    return one == other or (_uuid(one) == _uuid(other) and not differing(one, tree.parse(other)))


def differing(text: str, wanted: Tree) -> list[tuple[str, Any, Any]]:
    """Return where a filter differs in meaning from what is wanted, by path."""
    return tree.differences(normal(tree.parse(text)), normal(wanted))


def normal(root: Tree) -> Tree:
    """Return a filter with its defaults, without its UUID, its rules in the order they work."""
    chain = root["attributes"].get("chain", "root")
    usual = next((_CHAINS[each] for each in _CHAINS if chain.startswith(each)), "0")
    attributes = {"chain": chain, "priority": usual, **root["attributes"]}
    included = [_included(each) for each in root["children"] if each["tag"] == "filterref"]
    rules = [_rule(each) for each in root["children"] if each["tag"] == "rule"]
    rules.sort(key=_priority)
    plain = {name: _value(name, value) for name, value in attributes.items()}
    return {"tag": "filter", "attributes": plain, "text": "", "children": [*included, *rules]}


def _priority(rule: Tree) -> int:
    text = rule["attributes"]["priority"]
    return int(text) if text.lstrip("-").isdigit() else 0


def _included(reference: Tree) -> Tree:
    given = sorted(reference["children"], key=lambda each: str(each["attributes"].get("name")))
    return {**reference, "children": given}


def _rule(rule: Tree) -> Tree:
    given = dict(rule["attributes"])
    if given.pop("statematch", "").lower() in ("0", "false"):
        given["statematch"] = "false"
    attributes = {"priority": _RULE_PRIORITY}
    attributes.update((name, _value(name, value.lower())) for name, value in given.items())
    merged: dict[str, Tree] = {}
    for each in rule["children"]:
        # Several elements of one protocol and one sense are one condition for libvirt.
        no = each["attributes"].get("match") == "no"
        fresh = {"tag": each["tag"], "attributes": {}, "text": "", "children": []}
        node = merged.setdefault(f"{each['tag']}/{no}", fresh)
        for name, value in each["attributes"].items():
            if (name, value) != ("match", "yes"):
                node["attributes"][name] = _value(name, value)
    return {"tag": "rule", "attributes": attributes, "text": "", "children": [*merged.values()]}


def _value(name: str, value: str) -> str:
    """Return a value as libvirt would write it, numbers as decimals on both sides."""
    if name == "comment":
        return value
    text = "".join(value.split())
    if text.startswith("$"):
        return text.replace("[@0]", "")
    if name in ("state", "flags"):
        parts = text.upper().split("/")
        return "/".join(",".join(sorted(part.split(","))) for part in parts)
    if name.endswith(("macaddr", "macmask", "addr", "mask")) and ":" in text:
        return _colons(text.lower())
    if name.endswith("mask") and text.count(".") == 3:
        return _length(text)
    words = _WORDS.get(name, {})
    if text.lower() in words:
        return str(words[text.lower()])
    try:
        return str(int(text, 16 if text.lower().startswith("0x") else 10))
    except ValueError:
        return text


def _colons(text: str) -> str:
    """Return a MAC address with all its digits, and an IPv6 address in its shortest form."""
    parts = text.split(":")
    if len(parts) == 6 and "" not in parts:
        return ":".join(part.rjust(2, "0") for part in parts)
    from _socket import AF_INET6, inet_ntop, inet_pton

    try:
        return inet_ntop(AF_INET6, inet_pton(AF_INET6, text))
    except OSError:
        return text


def _length(text: str) -> str:
    """Return a dotted mask as its length, where it is one."""
    parts = text.split(".")
    if not all(part.isdigit() and int(part) < 256 for part in parts):
        return text
    bits = "".join(f"{int(part):08b}" for part in parts)
    return text if "01" in bits else str(bits.count("1"))
