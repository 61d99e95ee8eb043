"""One reading of a network namespace: each part one dump, and only when it is asked for."""

from __future__ import annotations

import posix

from fleet.host.kernel import link_attributes, route_attributes
from fleet.host.kernel.system import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from fleet.host.kernel.system import System

    Words = dict[str, Any]

#: include/uapi/linux/neighbour.h
NUD_PERMANENT, NTF_PROXY = 0x80, 0x08
AF_BRIDGE = 7


#: How intent calls the host's own namespace from inside another.
HOST = "host"

_EMPTY: dict[str, Any] = {
    "names": {1: "lo"}, "addresses": {}, "routes": [], "rules": [], "neighbours": [], "fdb": [],
    "mdb": [], "traffic": {}, "bridge_vlans": {},
    "holders": {},
}  # fmt: skip
_LOOPBACK: dict[str, Any] = {
    "name": "lo", "index": 1, "kind": "", "type": link_attributes.LOOPBACK, "mtu": 65536,
    "mac": "00:00:00:00:00:00", "up": False, "running": False, "carrier": False, "master": None,
    "link": None, "link_netnsid": None, "altnames": [], "flags": 8, "txqlen": 1000, "group": 0,
    "perm_mac": "", "data": {}, "port": None, "min_mtu": 0, "max_mtu": 0, "permanent": True,
    "driver": "", "pci_address": "",
}  # fmt: skip


class Observation:
    """What a namespace looked like when each part was first asked for; nothing is read twice.

    ``management`` and ``aliases`` are not read: the plan puts there the addresses that management
    runs through, as ``{"address", "dev"}``, and the kernel's names of NICs that intent finds by a
    match, by intent's name.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.namespace = system.namespace
        self.management: list[Words] = []
        self.aliases: dict[str, str] = {}
        #: Of the host's own namespace: tables found to mean what intent says; see tables.proven.
        self.proven: dict[str, str] = {}
        self._parts: dict[str, Any] = {}
        self._sysctls: dict[str, str | None] = {}
        #: The host's own namespace, from which the others were reached.
        self.root: Observation = self
        #: A namespace that a plan is yet to make has nothing in it but loopback, which is down.
        self.exists = True
        self._others: dict[str, Observation] = {system.namespace: self}

    def at(self, namespace: str) -> Observation:
        """Return the observation of another namespace of this host, always the same one."""
        found = self._others.get(namespace)
        if found is None:
            found = Observation(self.system.at(namespace))
            found._others, found.root = self._others, self.root
            self._others[namespace] = found
            if not found.system.exists():
                found.exists = False
                found._parts = {**_EMPTY, "links": {"lo": dict(_LOOPBACK)}}
        return found

    @property
    def namespaces(self) -> list[str]:
        """The names under /run/netns, sorted."""
        found: list[str] | None = self._parts.get("namespaces")
        if found is None:
            try:
                found = sorted(posix.listdir(self.system.root + NAMESPACES))
            except FileNotFoundError:
                found = []
            self._parts["namespaces"] = found
        return found

    def peer(self, link: Words) -> tuple[str, str]:
        """Return the namespace and the name of a veth's other end, empty where nobody names it.

        The host's own namespace is called ``host``.
        """
        if isinstance(link["link"], str):
            return "", link["link"]
        if link["link_netnsid"] is None or link["link"] is None:
            return "", ""
        for name in ("", *self.root.namespaces):
            other = self.at(name) if name else self.root
            if other is self or other.system.id_in(self.system) != link["link_netnsid"]:
                continue
            return name or HOST, other.names.get(link["link"], "")
        return "", ""

    @property
    def links(self) -> dict[str, Words]:
        """Devices by name; see link_attributes.read_link, with ``driver`` and ``pci_address``."""
        found: dict[str, Words] | None = self._parts.get("links")
        if found is None:
            found = {}
            for payload in link_attributes.dump_links(self.system.netlink):
                link = link_attributes.read_link(payload)
                found[link["name"]] = link
            self._parts["names"] = link_attributes.name_indexes(found)
            for link in found.values():
                link["driver"], link["pci_address"] = _hardware(self.system, link)
            if any(link["data"].get("root_port") for link in found.values()):
                from fleet.host.kernel import bridge_timers

                bridge_timers.correct(self.system, found)
            self._parts["links"] = found
        return found

    @property
    def names(self) -> dict[int, str]:
        """Names of devices by index."""
        if "names" not in self._parts:
            _ = self.links
        names: dict[int, str] = self._parts["names"]
        return names

    @property
    def addresses(self) -> dict[str, list[Words]]:
        """Addresses by device, in the kernel's order; see route_attributes.read_address."""
        found: dict[str, list[Words]] | None = self._parts.get("addresses")
        if found is None:
            names, found = self.names, {}
            for _, payload in self.system.netlink.dump(route_attributes.GETADDR, bytes(8)):
                device, address = route_attributes.read_address(payload, names)
                found.setdefault(device, []).append(address)
            route_attributes.mark_kernel_addresses(found)
            self._parts["addresses"] = found
        return found

    @property
    def routes(self) -> list[Words]:
        """Routes of every table and both families; see route_attributes.read_route."""
        found: list[Words] | None = self._parts.get("routes")
        if found is None:
            names, found = self.names, []
            for _, payload in self.system.netlink.dump(route_attributes.GETROUTE, bytes(12)):
                route = route_attributes.read_route(payload, names)
                if route is not None:
                    found.append(route)
            self._parts["routes"] = found
        return found

    @property
    def rules(self) -> list[Words]:
        """Policy rules of both families, in order; see route_attributes.read_rule."""
        found: list[Words] | None = self._parts.get("rules")
        if found is None:
            messages = self.system.netlink.dump(route_attributes.GETRULE, bytes(12))
            rules = (route_attributes.read_rule(payload) for _, payload in messages)
            found = self._parts["rules"] = [rule for rule in rules if rule is not None]
        return found

    @property
    def neighbours(self) -> list[Words]:
        """Permanent neighbours and proxies; see route_attributes.read_neighbour."""
        found: list[Words] | None = self._parts.get("neighbours")
        if found is None:
            found = [
                item
                for item in self._neighbours(0)
                if item["family"] in (4, 6)
                and (item["state"] & NUD_PERMANENT or item["flags"] & NTF_PROXY)
            ]
            proxies = self.system.netlink.dump(
                route_attributes.GETNEIGH,
                route_attributes.neighbour_header.pack(0, 0, 0, NTF_PROXY, 0),
            )
            names = self.names
            found += [route_attributes.read_neighbour(payload, names) for _, payload in proxies]
            self._parts["neighbours"] = found
        return found

    @property
    def fdb(self) -> list[Words]:
        """Forwarding entries of bridges and vxlans, learned ones too."""
        found: list[Words] | None = self._parts.get("fdb")
        if found is None:
            found = self._parts["fdb"] = self._neighbours(AF_BRIDGE)
        return found

    @property
    def bridge_vlans(self) -> dict[str, dict[int, int]]:
        """VLANs of bridges and their ports, flags by id; see bridge_vlans.read_vlans."""
        found: dict[str, dict[int, int]] | None = self._parts.get("bridge_vlans")
        if found is None:
            from fleet.host.kernel.bridge_vlans import read_vlans

            found = self._parts["bridge_vlans"] = read_vlans(self.system.netlink, self.names)
        return found

    @property
    def mdb(self) -> list[Words]:
        """Multicast groups of bridges' ports; see route_attributes.read_groups."""
        found: list[Words] | None = self._parts.get("mdb")
        if found is None:
            found, names = [], self.names
            try:
                messages = self.system.netlink.dump(
                    route_attributes.GETMDB, bytes((AF_BRIDGE,)) + bytes(7)
                )
            except OSError:
                messages = []  # a kernel without IGMP snooping
            for _, payload in messages:
                found += route_attributes.read_groups(payload, names)
            self._parts["mdb"] = found
        return found

    @property
    def traffic(self) -> dict[str, list[Words]]:
        """Queueing disciplines, classes and filters by ``device/side``; see traffic."""
        found: dict[str, list[Words]] | None = self._parts.get("traffic")
        if found is None:
            from fleet.host.kernel.traffic import read_traffic

            found = self._parts["traffic"] = read_traffic(self.system.netlink, self.names)
        return found

    def _neighbours(self, family: int) -> list[Words]:
        head = route_attributes.neighbour_header.pack(family, 0, 0, 0, 0)
        names = self.names
        messages = self.system.netlink.dump(route_attributes.GETNEIGH, head)
        return [route_attributes.read_neighbour(payload, names) for _, payload in messages]

    @property
    def holders(self) -> dict[str, list[Words]]:
        """Who holds each tun, tap and macvtap of this namespace; see guests.holders."""
        found: dict[str, list[Words]] | None = self._parts.get("holders")
        if found is None:
            from fleet.host.kernel import guests

            found = self._parts["holders"] = guests.holders(self.system, self.links)
        return found

    @property
    def inhabitants(self) -> list[str]:
        """The processes that run in this namespace, as ``command (pid)``; read at each asking."""
        from fleet.host.kernel import guests

        return guests.inhabitants(self.system)

    def once(self, part: str, read: Callable[[System], Any]) -> Any:
        """Return what ``read`` makes of this namespace, asked once: for books of others."""
        if part not in self._parts:
            self._parts[part] = read(self.system)
        return self._parts[part]

    def lacking(self, capability: str) -> str:
        """Return why the kernel lacks a capability, empty where it has it; see capability."""
        asked: dict[str, str] = self.root._parts.setdefault("lacking", {})
        if capability not in asked:
            from fleet.host.kernel.capability import lacking

            asked[capability] = lacking(self.root.system, capability)
        return asked[capability]

    def sysctl(self, name: str) -> str | None:
        """Return a key's value as /proc shows it; None where this kernel has no such key."""
        if not self.exists:
            return None
        if name not in self._sysctls:
            self._sysctls[name] = self.system.sysctl(name)
        return self._sysctls[name]


def _hardware(system: System, link: Words) -> tuple[str, str]:
    """Return the driver and the PCI address of a NIC, empty for a device made of software."""
    if link["kind"] or link["type"] == link_attributes.LOOPBACK:
        return "", ""
    bus, device = link["parent_bus"], link["parent"]
    try:
        if device:
            # Not under /sys/class/net, which shows the namespace it was mounted in.
            place = f"{system.root}/sys/bus/{bus}/devices/{device}"
        else:
            # Linux before 5.14 does not say in the message.
            place = f"{system.root}/sys/class/net/{link['name']}/device"
            posix.readlink(place)
        driver = posix.readlink(place + "/driver").rpartition("/")[2]
        if bus == "pci":
            return driver, device
        # A virtio NIC is a device on a bus of its own; the PCI function is one above.
        for part in reversed(_way(place, device).split("/")):
            if len(part) == 12 and part[4] == part[7] == ":" and part[10] == ".":
                return driver, part
        return driver, ""
    except OSError:
        return "", ""


def _way(place: str, device: str) -> str:
    if device:
        return posix.readlink(place)  # of /sys/bus: it leads through all that is above
    from os.path import realpath

    return realpath(place)


def management_path(observation: Observation, addresses: Iterable[str]) -> list[str]:
    """Return the devices that management addresses depend on, sorted.

    They are the device that holds each address, its masters, ports and lower devices, and the
    devices of the default routes of the address's family. Taps are guests' ends, no way out.
    """
    wanted = {text.partition("/")[0] for text in addresses}
    todo, families = [], set()
    for device, items in observation.addresses.items():
        for item in items:
            if item["address"].partition("/")[0] in wanted:
                todo.append(device)
                families.add(item["family"])
    for route in observation.routes:
        if route["to"] == "default" and route["family"] in families:
            todo += [hop["dev"] for hop in route["nexthops"] or [route] if hop["dev"]]
    found: set[str] = set()
    links = observation.links
    while todo:
        device = todo.pop()
        link = links.get(device)
        if device in found or link is None or link["type"] == link_attributes.LOOPBACK:
            continue
        found.add(device)
        if link["master"]:
            todo.append(link["master"])
        if isinstance(link["link"], str) and link["kind"] != "veth":
            todo.append(link["link"])
        todo += [
            n for n, port in links.items() if port["master"] == device and port["kind"] != "tun"
        ]
    return sorted(found)
