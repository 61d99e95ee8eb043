"""A running host as lean intent: what somebody configured, without what made itself.

Left out are defaults, leases, what router advertisements and the kernel made, guests' ports, and
what container engines and libvirt make and delete on their own. A kind knows its own defaults: its
module may have ``lean(form, observation, name)``, which returns a form without them, or None for a
resource that is not an operator's, and ``unsaid(observation)``, which returns a line for each thing
that it has no words for.
"""

from __future__ import annotations

import os

from fleet.host import registry
from fleet.host.change import HostError
from fleet.host.kernel.sysctl_files import written as written_sysctls
from fleet.host.links.address import foreign as foreign_address
from fleet.host.links.link_diff import DEFAULT_MTU
from fleet.host.links.route import NOWHERE, written
from fleet.host.links.route import foreign as foreign_route
from fleet.host.pattern import any_matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation

    Words = dict[str, Any]

#: Names that libvirt, container engines and their network plug-ins give what they make.
MADE_BY_OTHERS = (
    "docker*", "br-" + "[0-9a-f]" * 12, "veth" + "[0-9a-f]" * 7, "virbr*", "vnet*", "podman*",
    "cni*", "flannel*", "cali*", "lxcbr*", "lxdbr*", "kube-*",
)  # fmt: skip
#: Devices that come with a module, one in each namespace.
MADE_BY_MODULES = (
    "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0",
)  # fmt: skip
#: include/uapi/linux/netdevice.h, NET_ADDR_SET: a MAC address that somebody gave.
GIVEN = 3
#: What a new namespace starts with, of the keys that are changed by hand.
SYSCTLS = {
    "net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.all.arp_ignore": "0", "net.ipv4.conf.all.arp_announce": "0",
    "net.ipv4.conf.all.arp_filter": "0", "net.ipv4.conf.all.proxy_arp": "0",
    "net.ipv4.conf.all.log_martians": "0", "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.all.disable_ipv6": "0", "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1", "net.bridge.bridge-nf-call-arptables": "1",
}  # fmt: skip
_LOCAL = ("127.0.0.1/8", "::1/128")


def host(observation: Observation, ignore: tuple[str, ...] = ()) -> Words:
    """Return a host as lean intent: ``{"": space, NAMESPACE: space}``.

    A space is ``{"resources": {kind: {name: form}}, "routes": [...], "notes": [...]}``; ``routes``
    are those that lead nowhere and so belong to no device. ``ignore`` holds further patterns of
    names that are somebody else's.
    """
    patterns = (*MADE_BY_OTHERS, *ignore)
    root = space(observation, patterns)
    found = {"": root}
    for name in list(root["resources"].get("namespace", ())):
        reason = _unfit(observation, name)
        if reason:
            root["notes"].append(f"namespace {name} is left out: {reason}")
            del root["resources"]["namespace"][name]
        else:
            found[name] = space(observation.at(name), patterns)
    return found


def _unfit(observation: Observation, name: str) -> str:
    inside = observation.at(name)
    try:
        if _inode(observation) == _inode(inside):
            return "it is the host's own"
        up = inside.links["lo"]["up"]
    except (OSError, KeyError):
        return "it cannot be entered"
    return "" if up else "its loopback device is down, which fleet would bring up"


def _inode(observation: Observation) -> int:
    with observation.system.enter():
        return os.stat("/proc/thread-self/ns/net").st_ino


def space(observation: Observation, patterns: tuple[str, ...]) -> Words:
    """Return one namespace as lean intent."""
    resources: dict[str, dict[str, Words]] = {}
    notes: list[str] = []
    given, switched = _given(observation), _made_by_a_switch(observation)
    for entry in registry.KINDS:
        if entry.kind == "namespace" and observation.namespace != observation.root.namespace:
            continue
        kind: Any = registry.load(entry.kind)
        found: dict[str, Words] = {}
        for name in _names(entry, kind, observation):
            if any_matches(name.rpartition("/")[2], patterns):
                continue
            if entry.device and name in switched and entry.kernel != "openvswitch":
                continue
            form = kind.observe(observation, name)
            if form is None:
                continue
            if entry.device:
                own_mac = name in given and entry.kind != "ethernet"
                form = _device(form, observation, name, own_mac)
            own = getattr(kind, "lean", None)
            if own is not None:
                form = own(form, observation, name)
            elif form.get("mtu") == DEFAULT_MTU:
                del form["mtu"]
            if form is not None:
                found[name] = _plain(form)
        if found:
            resources[entry.kind] = found
        unsaid = getattr(kind, "unsaid", None)
        notes += unsaid(observation) if unsaid is not None else ()
    notes += _without_kind(observation, patterns)
    keys = _sysctls(observation)
    if keys:
        resources["sysctl"] = {name: {"value": value} for name, value in keys.items()}
    routes = [
        written(route)
        for route in observation.routes
        if route["type"] in NOWHERE and not foreign_route(route)
    ]
    for route in observation.routes:
        if route["nexthops"] and not foreign_route(route):
            notes.append(f"the route to {route['to']} has several gateways and is left out")
    for device, addresses in observation.addresses.items():
        for address in addresses:
            if address["peer"] and not any_matches(device, patterns):
                said = f"the peer {address['peer']} of {device}'s address {address['address']}"
                notes.append(f"{said} is left out: intent has no words for it")
    return {"resources": resources, "routes": routes, "notes": notes}


def _made_by_a_switch(observation: Observation) -> set[str]:
    """Return the devices that Open vSwitch made: in user space they are taps to the kernel."""
    if observation.namespace != observation.root.namespace:
        return set()
    from fleet.host.switches import picture

    try:
        bridges = picture.bridges(observation)
    except HostError:
        return set()
    return {"ovs-netdev", "ovs-system"} | {
        name
        for bridge in bridges.values()
        for port in bridge["ports"].values()
        for name, interface in port["interfaces"].items()
        if interface["type"]
    }


def _without_kind(observation: Observation, patterns: tuple[str, ...]) -> list[str]:
    """Return a line for each device of a kind that fleet does not have."""
    known = {entry.kernel or entry.kind for entry in registry.KINDS} | {"", "ifb"}
    return [
        f"{name} is left out: fleet has no devices of kind {link['kind']}"
        for name, link in sorted(observation.links.items())
        if (link["kind"] or "") not in known
        and not any_matches(name, (*patterns, *MADE_BY_MODULES))
    ]


def _names(entry: registry.Entry, kind: Any, observation: Observation) -> list[str]:
    if entry.kind != "ethernet":
        names: list[str] = kind.names(observation)
        return names
    lo = observation.addresses.get("lo", ())
    own = [a for a in lo if not foreign_address(a) and a["address"] not in _LOCAL]
    return [*(["lo"] if own else []), *nics(observation)]


def nics(observation: Observation) -> list[str]:
    """Return the NICs of a namespace: on a machine, no end of a veth; those are containers'."""
    kind: Any = registry.load("ethernet")
    names: list[str] = kind.names(observation)
    links = observation.links
    real = [name for name in names if not links[name]["kind"]]
    # A host that is itself a namespace has no other NICs than ends of veths that lead out.
    return real or [name for name in names if not observation.peer(links[name])[1]]


def _device(form: Words, observation: Observation, name: str, given: bool) -> Words:
    """Return a device's form without what its kind has nothing to do with."""
    link = observation.links[name]
    form = dict(form)
    if name == "lo":
        return {"addresses": [a for a in _addresses(form, observation, name) if a not in _LOCAL]}
    burnt = link.get("perm_mac")
    if not given and (not burnt or burnt == link["mac"]):
        form.pop("macaddress", None)
    addresses = _addresses(form, observation, name)
    form.pop("addresses", None)
    return {**form, **({"addresses": addresses} if addresses else {})}


def _addresses(form: Words, observation: Observation, name: str) -> list[Any]:
    others = {a["address"] for a in observation.addresses.get(name, ()) if foreign_address(a)}
    listed = form.get("addresses") or ()
    return [a for a in listed if (a["address"] if isinstance(a, dict) else a) not in others]


def _given(observation: Observation) -> set[str]:
    """Return the virtual devices whose MAC address somebody gave; netlink does not say."""
    names = [name for name, link in observation.links.items() if link["kind"]]
    types = attributes(observation, names, "addr_assign_type")
    return {name for name, value in types.items() if value == str(GIVEN)}


def attributes(observation: Observation, names: list[str], attribute: str) -> dict[str, str]:
    """Return an attribute of devices from /sys/class/net; devices that do not tell are left out.

    /sys shows the network namespace it was mounted in, so another one's is read by ip(8), which
    mounts it anew.
    """
    files = {name: f"/sys/class/net/{name}/{attribute}" for name in names}
    if not files:
        return {}
    system = observation.system
    if system.namespace:
        argv = ["ip", "netns", "exec", system.namespace, "grep", "-sH", "", *files.values()]
        lines = system.at("").run(argv, check=False).out.splitlines()
        read = dict(line.rpartition(":")[::2] for line in lines)
        return {name: read[path] for name, path in files.items() if path in read}
    found: dict[str, str] = {}
    for name, path in files.items():
        try:
            text = system.read(path)
        except OSError:
            continue  # EINVAL: a device that is down has no speed
        if text is not None:
            found[name] = text.strip()
    return found


def _sysctls(observation: Observation) -> dict[str, str]:
    """Return what an administrator set: on the host what files say, for libvirt and container
    engines write the same keys without one; in a namespace, which has no files, what differs."""
    inside = observation is not observation.root
    own = {} if inside else written_sysctls(observation.system.root)
    names = [name for name in own if name.startswith("net.")] or (SYSCTLS if inside else ())
    found: dict[str, str] = {}
    for name in names:
        value = observation.sysctl(name)
        value = None if value is None else " ".join(value.split())
        if value and not (inside and value == SYSCTLS[name]):
            found[name] = value
    return found


def _plain(form: Any) -> Any:
    """Return a form without keys that say nothing."""
    if isinstance(form, dict):
        pairs = ((key, _plain(value)) for key, value in form.items())
        return {key: value for key, value in pairs if value not in (None, {}, [])}
    return form


def without(form: Words, defaults: Words) -> Words:
    """Return a form without the keys that have their default, at any depth."""
    found: Words = {}
    for key, value in form.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            value = without(value, default)
            if not value:
                continue
        elif key in defaults and value == default:
            continue
        found[key] = value
    return found
