"""A libvirt network in plain words, which the project's template writes as libvirt's XML.

The words are libvirt's own (formatnetwork.html), dashed as the rest of the intent; addresses and
ranges are written as netplan and people write them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fleet.host.fields import (
    MAC,
    MTU,
    AddressOrNetwork,
    Bound,
    Check,
    DeviceName,
    InterfaceAddress,
    IPAddress,
    PCIAddress,
    Port,
    Ports,
    Text,
    Uint16,
    Word,
)
from fleet.host.spec import spec
from fleet.host.virtual.interface_words import Bandwidth, Tags, VirtualPort

Steps = tuple[str | int, ...]
#: A place in the words, and what is wrong there.
Wrong = tuple[Steps, str]

TEMPLATE = "libvirt/network.xml.j2"


def _range(value: str) -> str:
    try:
        low, high = (ipaddress.ip_address(end.strip()) for end in value.split("-"))
    except ValueError:
        example = "192.0.2.100-192.0.2.199"
        raise ValueError(f"{value!r} is not a range of addresses such as {example}") from None
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{value!r}: a range goes from the lower address to the higher one")
    return f"{low}-{high}"


def _template(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", value) or ".." in value:
        raise ValueError(f"{value!r} is not a file of templates/ such as libvirt/lan.xml.j2")
    return value


AddressRange = Annotated[str, Check(_range)]
#: virNetworkDHCPLeaseTimeDefParseXML(), src/conf/network_conf.c: dnsmasq takes no less.
Lease = Annotated[int, Bound(120, 4294967295)]


@spec
class Translation:
    """What a NAT's connections come from: a range of addresses, of ports, and IPv6 too."""

    addresses: AddressRange | None = None
    ports: Ports | None = None
    ipv6: bool | None = None


@spec
class Domain:
    """The guests' domain, and whether its names are asked for nowhere else."""

    name: Word = ""
    local_only: bool | None = None


@spec
class DHCPHost:
    """An address that is one guest's: by its MAC address, its DUID (IPv6) or its name."""

    ip: IPAddress = ""
    mac: MAC | None = None
    id: Word | None = None
    name: Word | None = None


@spec
class DHCP:
    """Addresses that guests get; ``lease`` is how many seconds they keep them."""

    ranges: tuple[AddressRange, ...] | None = None
    hosts: tuple[DHCPHost, ...] | None = None
    lease: Lease | None = None


@spec
class Forwarder:
    """Where names are asked for: all, or those of a domain; a domain alone is asked for nowhere."""

    addr: IPAddress | None = None
    domain: Word | None = None


@spec
class Service:
    """A service's record."""

    service: Word = ""
    protocol: Literal["tcp", "udp"] = "tcp"
    domain: Word | None = None
    target: Word | None = None
    port: Port | None = None
    priority: Uint16 | None = None
    weight: Uint16 | None = None


@spec
class DNS:
    """The names that guests can ask for; hosts by address."""

    enable: bool | None = None
    forward_plain_names: bool | None = None
    forwarders: tuple[Forwarder, ...] | None = None
    hosts: dict[IPAddress, tuple[Word, ...]] | None = None
    txt: dict[Word, Text] | None = None
    srv: tuple[Service, ...] | None = None


@spec
class NetworkRoute:
    """A network behind one of the guests, which the host reaches by it."""

    to: AddressOrNetwork = ""
    via: IPAddress = ""
    metric: Annotated[int, Bound(1, 4294967295)] | None = None


@spec
class PortGroup:
    """What guests' interfaces that name this group get."""

    default: bool | None = None
    vlan: Tags | None = None
    virtualport: VirtualPort | None = None
    bandwidth: Bandwidth | None = None
    trust_guest_rx_filters: bool | None = None


@spec
class NetworkWords:
    """A libvirt network: how it goes on (``forward``), and what is on it."""

    forward: Literal[
        "nat", "route", "open", "isolated", "bridge", "private", "vepa", "passthrough", "hostdev"
    ] = ""  # type: ignore[assignment]
    #: The bridge that libvirt makes; with forward bridge, the one that is there.
    bridge: DeviceName | None = None
    #: The device that leaving packets go by, where not every one will do.
    dev: DeviceName | None = None
    #: The pool that each guest's macvtap, or VF, is taken from.
    interfaces: tuple[DeviceName, ...] | None = None
    pf: DeviceName | None = None
    pci: tuple[PCIAddress, ...] | None = None
    managed: bool | None = None
    nat: Translation | None = None
    stp: bool | None = None
    delay: Annotated[int, Bound(0, 30)] | None = None
    mtu: MTU | None = None
    macaddress: MAC | None = None
    domain: Domain | None = None
    addresses: tuple[InterfaceAddress, ...] | None = None
    dhcp: DHCP | None = None
    dns: DNS | None = None
    routes: tuple[NetworkRoute, ...] | None = None
    virtualport: VirtualPort | None = None
    vlan: Tags | None = None
    bandwidth: Bandwidth | None = None
    isolated: bool | None = None
    trust_guest_rx_filters: bool | None = None
    portgroups: dict[DeviceName, PortGroup] | None = None
    #: Another template of the project's that writes this network.
    template: Annotated[str, Check(_template)] | None = None
    active: bool | None = None
    autostart: bool | None = None


#: Modes in which libvirt makes a bridge of its own, with addresses and dnsmasq.
_OWN = ("nat", "route", "open", "isolated")
#: Words that only such a network has.
_OF_OWN = ("stp", "delay", "mtu", "macaddress", "domain", "addresses", "dhcp", "dns", "routes")


def variables(name: str, words: NetworkWords) -> dict[str, Any]:
    """Return what the template is told of a network."""
    dhcp = words.dhcp or DHCP()
    subnets = []
    for text in words.addresses or ():
        own = ipaddress.ip_interface(text)
        ranges = [each.split("-") for each in dhcp.ranges or ()]
        inside = [pair for pair in ranges if ipaddress.ip_address(pair[0]) in own.network]
        subnets.append(
            {
                "family": f"ipv{own.version}",
                "address": str(own.ip),
                "prefix": own.network.prefixlen,
                "ranges": [{"start": low, "end": high} for low, high in inside],
                "hosts": [h for h in dhcp.hosts or () if ipaddress.ip_address(h.ip) in own.network],
            }
        )
    return {"name": name, "network": words, "subnets": subnets}


def wrong(words: NetworkWords) -> Iterator[Wrong]:
    """Yield what libvirt would refuse of words that are right one by one: (place, message)."""
    yield from _kind_of_network(words)
    yield from _addresses(words)
    yield from _ports(words)


def _kind_of_network(words: NetworkWords) -> Iterator[Wrong]:
    mode = words.forward
    if mode not in _OWN:
        for name in _OF_OWN:
            if getattr(words, name) is not None:
                kept = ", ".join(_OWN)
                said = f"with forward {mode} libvirt makes no bridge; it is for {kept}"
                yield (name.replace("_", "-"),), said
    elif mode != "isolated" and not words.addresses:
        yield ("forward",), f"forward {mode} needs addresses: they say what network it is"
    for name, modes in (
        ("nat", ("nat",)),
        ("dev", ("nat", "route")),
        ("managed", ("hostdev",)),
        ("pf", ("hostdev",)),
        ("pci", ("hostdev",)),
        ("interfaces", ("bridge", "private", "vepa", "passthrough")),
        ("bridge", (*_OWN, "bridge")),
    ):
        if getattr(words, name) is not None and mode not in modes:
            yield (name,), f"it is for forward {', '.join(modes)}, and this is {mode}"
    if mode == "bridge" and bool(words.bridge) == bool(words.interfaces):
        message = "forward bridge needs one of bridge (one that is there) and interfaces (macvtaps)"
        yield ("forward",), message
    if mode in ("private", "vepa", "passthrough") and not words.interfaces:
        yield ("forward",), f"forward {mode} needs interfaces: guests are macvtaps on them"
    if mode == "hostdev" and bool(words.pf) == bool(words.pci):
        yield ("forward",), "forward hostdev needs one of pf (a NIC with VFs) and pci (its VFs)"


def _addresses(words: NetworkWords) -> Iterator[Wrong]:
    networks = [ipaddress.ip_interface(text).network for text in words.addresses or ()]
    served: dict[int, Any] = {}
    dhcp = words.dhcp or DHCP()
    pairs: list[tuple[Steps, list[str]]] = [
        (("dhcp", "ranges", number), each.split("-"))
        for number, each in enumerate(dhcp.ranges or ())
    ]
    pairs += [(("dhcp", "hosts", n, "ip"), [each.ip]) for n, each in enumerate(dhcp.hosts or ())]
    for place, ends in pairs:
        found = [ipaddress.ip_address(end) for end in ends]
        of = next((network for network in networks if found[0] in network), None)
        if of is None or found[-1] not in of:
            yield place, f"{' to '.join(ends)} is in no network of the addresses"
        elif served.setdefault(of.version, of) != of:
            first = served[of.version]
            yield place, f"libvirt serves one network of IPv{of.version}, and that is {first}"
    for number, host in enumerate(dhcp.hosts or ()):
        place = ("dhcp", "hosts", number)
        if host.mac and (host.id or ":" in host.ip):
            yield place, "a MAC address is for IPv4; with IPv6 a host has an id or a name"
        elif not (host.mac or host.id or host.name):
            yield place, "it needs a mac, a name or an id: who gets the address"
        elif host.id and ":" not in host.ip:
            yield (*place, "id"), "an id is for IPv6; with IPv4 a host has a mac or a name"
    for number, route in enumerate(words.routes or ()):
        if not any(ipaddress.ip_address(route.via) in network for network in networks):
            yield ("routes", number, "via"), f"{route.via} is in no network of the addresses"


def _ports(words: NetworkWords) -> Iterator[Wrong]:
    # networkValidate(), src/network/bridge_driver.c: who takes tags off is the switch or the VF.
    tagged = words.forward in ("hostdev", "passthrough")
    groups = words.portgroups or {}
    defaults = [name for name, group in groups.items() if group.default]
    if len(defaults) > 1:
        yield ("portgroups", defaults[1], "default"), f"{defaults[0]} is the default already"
    named: list[tuple[Steps, Any]] = [((), words)]
    named += [(("portgroups", name), group) for name, group in groups.items()]
    for place, each in named:
        port: VirtualPort | None = each.virtualport or words.virtualport
        switch = words.forward == "bridge" and port is not None and port.type == "openvswitch"
        if each.vlan and each.vlan.tags and not (tagged or switch):
            message = (
                "libvirt puts no tags on by itself: it needs forward bridge with"
                " virtualport: {type: openvswitch}, forward hostdev, or passthrough"
            )
            yield (*place, "vlan"), message
    for number, each in enumerate((words.dns or DNS()).forwarders or ()):
        if not (each.addr or each.domain):
            yield ("dns", "forwarders", number), "it needs an addr, a domain, or both"
