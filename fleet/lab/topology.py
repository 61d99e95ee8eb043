"""What a lab looks like: each host's NICs, the networks they are plugged into, their router.

Pure: from the inventory's files to plain data. The lab starts as freshly installed hosts would
stand: every NIC that the intent names is there and plugged in, and the one that carries the
management address has it, with a default route through the network's router.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.errors import UsageError
from fleet.lab import daemons

#: Networks to take the controller's own from: RFC 2544's range, at its far end.
RANGE = ipaddress.ip_network("198.18.0.0/15")
#: Where hosts get an address whose inventory gives them a name only.
_SPARE = ipaddress.ip_network("198.19.224.0/20")
_NAME = 15


class LabError(UsageError):
    """A lab cannot be brought up, entered or taken down as asked."""


@dataclass(frozen=True)
class Nic:
    """A host's NIC: its name there, its MAC and the network that it is plugged into.

    ``model`` is what a lab of virtual machines emulates it as.
    """

    name: str
    mac: str
    network: str
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    model: str = "virtio-net-pci"


@dataclass(frozen=True)
class LabHost:
    """A host: its address as ssh dials it, and its NICs."""

    name: str
    address: str
    username: str
    port: int
    nics: tuple[Nic, ...]
    daemons: tuple[str, ...] = ()


@dataclass
class Network:
    """A network: one switch, and the addresses that the lab's router has in it."""

    name: str
    gateways: set[str] = field(default_factory=set)


@dataclass
class Topology:
    """All hosts of an inventory, their networks, and the controller's link to the router."""

    hosts: dict[str, LabHost]
    networks: dict[str, Network]
    controller: str = ""
    router: str = ""


def read_topology(project: Path) -> Topology:
    """Return the topology of a project's inventory; raises UsageError with file and line."""
    from fleet.intent.source import Source
    from fleet.intent.tree import plain
    from fleet.render import Renderer

    folder = project / "inventory"
    source = Source(
        folder / "hosts.yaml", folder / "groups.yaml", folder / "defaults.yaml", root=project
    )
    renderer = Renderer()
    spare = iter(_SPARE.hosts())
    topology = Topology({}, {})
    for name in source.hosts:
        about = {key: source.connection(name, key) for key in ("hostname", "username", "port")}
        data = plain(source.data(name))
        assert isinstance(data, dict)
        variables = {**data, "host": _Variables({**data, **about, "name": name})}
        tree = _rendered(data, variables, renderer)
        _add_host(topology, name, about, tree, spare)
    _place_controller(topology)
    return topology


class _Variables(dict[str, Any]):
    """``host`` in a template: a value of it by attribute or by key."""

    __getattr__ = dict.__getitem__


def _rendered(node: Any, variables: dict[str, Any], renderer: Any) -> Any:
    """Return data with its templates rendered; what cannot be rendered is left out.

    A lab needs names and addresses only; `fleet intent validate` says what is wrong with the rest.
    """
    if isinstance(node, dict):
        return {key: _rendered(value, variables, renderer) for key, value in node.items()}
    if isinstance(node, list):
        return [_rendered(value, variables, renderer) for value in node]
    if isinstance(node, str) and ("{{" in node or "{%" in node):
        try:
            return renderer.text(node, variables)
        except UsageError:
            return None
    return node


def _add_host(
    topology: Topology, name: str, about: dict[str, Any], tree: dict[str, Any], spare: Iterator[Any]
) -> None:
    network = _dict(tree.get("network"))
    settings = _dict(tree.get("fleet"))
    hints = _dict(settings.get("lab"))
    address = _management_address(about, settings)
    if not address:
        address = str(next(spare))
    nics = _nic_names(network, hints)
    management = _management_nic(network, settings, hints, nics)
    interface, gateway = _found(network, address)
    gateway = str(hints.get("gateway") or "") or gateway or _usual_gateway(interface)
    made = []
    for nic in sorted(nics):
        uppers = _uppers(network, nic)
        subnets = [*_subnets(network, uppers)]
        if nic == management:
            subnets.insert(0, interface.network)
        where = str(subnets[0]) if subnets else f"{nic} of {interface.network}"
        switch = topology.networks.setdefault(where, Network(where))
        switch.gateways |= set(_gateways(network, uppers, subnets))
        mac = str(_dict(nics[nic].get("match")).get("macaddress") or _mac(name, nic))
        model = _model(nic, nics[nic], hints)
        if nic == management:
            switch.gateways.add(f"{gateway}/{interface.network.prefixlen}")
            made.append(Nic(nic, mac, where, (str(interface),), gateway, model))
        else:
            made.append(Nic(nic, mac, where, model=model))
    topology.hosts[name] = LabHost(
        name,
        address,
        str(about["username"] or "root"),
        int(about["port"] or 22),
        tuple(made),
        daemons.needed(network, tree.get("libvirt")),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _management_address(about: dict[str, Any], settings: dict[str, Any]) -> str:
    declared = _dict(settings.get("management")).get("address")
    declared = declared if isinstance(declared, list) else [declared]
    for text in (about["hostname"], *declared):
        try:
            return str(ipaddress.ip_address(str(text)))
        except ValueError:
            continue
    return ""


def _nic_names(network: dict[str, Any], hints: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the NICs of a host by the name that the kernel gives them, each with its intent."""
    nics: dict[str, dict[str, Any]] = {}
    for name, spec in _dict(network.get("ethernets")).items():
        spec = _dict(spec)
        wanted = str(_dict(spec.get("match")).get("name") or name)
        plain = wanted if not set(wanted) & set("*?[") else name
        nics[plain[:_NAME]] = spec
    extra = hints.get("nics")
    for name in extra if isinstance(extra, list) else ():
        nics.setdefault(str(name)[:_NAME], {})
    return nics or {"eth0": {}}


def _model(nic: str, spec: dict[str, Any], hints: dict[str, Any]) -> str:
    """Return what QEMU calls the NIC: one with VFs if the intent wants any, else a virtio one."""
    named = _dict(hints.get("nic-models")).get(nic)
    functions = spec.get("virtual-function-count")
    return str(named or ("igb" if functions is not None else "virtio-net-pci"))


def _management_nic(
    network: dict[str, Any], settings: dict[str, Any], hints: dict[str, Any], nics: Iterable[str]
) -> str:
    """Return the NIC at the bottom of the device that carries the management address."""
    nics = list(nics)
    device = hints.get("interface") or _dict(settings.get("management")).get("interface")
    for _ in range(8):  # a bridge on a bond on a NIC; a loop is not ours to report
        if device in nics:
            return str(device)
        spec = next((spec[device] for spec in network.values() if device in _dict(spec)), None)
        lower = _lower(_dict(spec))
        device = next((name for name in lower if name in nics), lower[0] if lower else None)
    return nics[0]


def _lower(spec: dict[str, Any]) -> list[str]:
    found = spec.get("interfaces")
    names = [str(name) for name in found] if isinstance(found, list) else []
    return names + ([str(spec["link"])] if spec.get("link") else [])


def _uppers(network: dict[str, Any], nic: str) -> list[dict[str, Any]]:
    """Return the intent of a NIC and of the bridges and bonds that it is a port of."""
    found, names = [], [nic]
    for name in names:
        for section, specs in network.items():
            for key, spec in _dict(specs).items():
                spec = _dict(spec)
                if key == name:
                    found.append(spec)
                elif name in _lower(spec) and section != "vlans" and key not in names:
                    names.append(key)
    return found


def _addresses(spec: dict[str, Any]) -> Iterator[Any]:
    listed = spec.get("addresses")
    for item in listed if isinstance(listed, list) else ():
        text = next(iter(item), "") if isinstance(item, dict) else item
        try:
            yield ipaddress.ip_interface(str(text))
        except ValueError:
            continue


def _subnets(network: dict[str, Any], specs: list[dict[str, Any]]) -> Iterator[Any]:
    for spec in specs:
        for interface in _addresses(spec):
            if interface.network.prefixlen < interface.network.max_prefixlen:
                yield interface.network


def _gateways(
    network: dict[str, Any], specs: list[dict[str, Any]], subnets: list[Any]
) -> Iterator[str]:
    """Yield the next hops of these devices' routes that lie in one of the subnets."""
    for spec in specs:
        listed = spec.get("routes")
        vias = [_dict(route).get("via") for route in (listed if isinstance(listed, list) else ())]
        for via in [*vias, spec.get("gateway4"), spec.get("gateway6")]:
            for subnet in subnets:
                if via and _inside(via, subnet):
                    yield f"{ipaddress.ip_address(str(via))}/{subnet.prefixlen}"
                    break


def _inside(text: Any, subnet: Any) -> bool:
    try:
        return ipaddress.ip_address(str(text)) in subnet
    except ValueError:
        return False


def _found(network: dict[str, Any], address: str) -> tuple[Any, str]:
    """Return the address with the prefix that the intent gives it, and its default gateway."""
    for specs in network.values():
        for spec in _dict(specs).values():
            for interface in _addresses(_dict(spec)):
                if str(interface.ip) == address:
                    return interface, _default_via(_dict(spec), interface.network)
    plain = ipaddress.ip_address(address)
    return ipaddress.ip_interface(f"{address}/{24 if plain.version == 4 else 64}"), ""


def _default_via(spec: dict[str, Any], subnet: Any) -> str:
    listed = spec.get("routes")
    for route in listed if isinstance(listed, list) else ():
        route = _dict(route)
        plain = str(route.get("to")) in ("default", "0.0.0.0/0", "::/0") and not route.get("table")
        if plain and _inside(route.get("via"), subnet):
            return str(ipaddress.ip_address(str(route["via"])))
    return ""


def _usual_gateway(interface: Any) -> str:
    """Return a network's last address, or the one before where that is the host's own."""
    last = interface.network.broadcast_address - (1 if interface.version == 4 else 0)
    return str(last if last != interface.ip else last - 1)


def _mac(host: str, nic: str) -> str:
    """Return a locally administered MAC that is the same whenever the lab comes up."""
    digest = hashlib.sha256(f"{host} {nic}".encode()).digest()
    return "02:" + digest[:5].hex(":")


def _place_controller(topology: Topology) -> None:
    """Give the controller and the router a link that is in no host's network."""
    taken = [
        ipaddress.ip_interface(text).network
        for network in topology.networks.values()
        for text in network.gateways
    ]
    last = int(RANGE.broadcast_address)
    for offset in range(0, RANGE.num_addresses, 4):
        link = ipaddress.ip_network((last - offset - 3, 30))
        if not any(link.overlaps(other) for other in taken if other.version == 4):
            topology.controller, topology.router = f"{link[1]}/30", f"{link[2]}/30"
            return
    raise LabError(f"the inventory's networks leave no room in {RANGE} for the lab's controller")
