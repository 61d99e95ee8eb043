"""A host in words: what tests of pure functions observe instead of a kernel."""

from __future__ import annotations

from typing import Any

from fleet.host.links.bridge_vlans import parsed

LINK = {
    "kind": "", "mtu": 1500, "up": True, "running": True, "master": None, "link": None,
    "link_netnsid": None, "altnames": [], "flags": 0, "txqlen": 1000, "group": 0,
    "perm_mac": "", "data": {}, "port": None, "min_mtu": 68, "max_mtu": 65535,
    "permanent": True, "driver": "", "pci_address": "",
}  # fmt: skip
BRIDGE = {
    "stp": False, "priority": 32768, "forward_delay": 15.0, "hello_time": 2.0, "max_age": 20.0,
    "ageing_time": 300.0, "multicast_snooping": True, "group_fwd_mask": 0, "vlan_filtering": False,
    "vlan_protocol": "802.1Q", "vlan_default_pvid": 1,
}  # fmt: skip
PORT = {
    "cost": 2, "priority": 32, "isolated": False, "learning": True, "flood": True,
    "mcast_flood": True, "bcast_flood": True, "hairpin": False, "guard": False,
    "root_block": False, "fastleave": False, "neigh_suppress": False, "locked": False,
    "state": "forwarding",
}  # fmt: skip


class Written:
    """A host whose files of /sys take what is written, or do not."""

    def __init__(self, writable: bool) -> None:
        self._writable = writable

    def writable(self, path: str) -> bool:
        return self._writable


class Observed:
    """Has the parts of an Observation, filled from a few words."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.links = {
            name: _link(name, number, link or {})
            for number, (name, link) in enumerate((words.get("links") or {}).items(), 1)
        }
        self.addresses = {
            device: [_address(item, device) for item in items]
            for device, items in (words.get("addresses") or {}).items()
        }
        self.routes = [_route(route) for route in words.get("routes") or ()]
        self.rules = [
            {"from": None, "to": None, "mark": None, "mask": None, "tos": 0, "action": "table",
             "family": 4, "protocol": 3, "iif": None, "oif": None, "invert": False, **rule}
            for rule in words.get("rules") or ()
        ]  # fmt: skip
        self.neighbours = [{"state": 0x80, **each} for each in words.get("neighbours") or ()]
        self.mdb = [{"vlan": 0, "permanent": True, **each} for each in words.get("mdb") or ()]
        self.fdb = [
            {"flags": 0, "state": 0x42, "master": None, "address": None, "port": 0, "vlan": 0}
            | each
            for each in words.get("fdb") or ()
        ]
        self.bridge_vlans = {
            device: parsed(lines) for device, lines in (words.get("bridge_vlans") or {}).items()
        }
        self.traffic: dict[str, list[dict[str, Any]]] = words.get("traffic") or {}
        self.management: list[dict[str, Any]] = []
        self.aliases: dict[str, str] = {}
        self.exists = True
        self.inhabitants = words.get("processes") or []
        self.root = self
        self.system = Written(bool(words.get("writable")))
        self.namespaces = sorted(words.get("namespaces") or {})
        self._sysctls = words.get("sysctls") or {}
        self._lacks = words.get("lacks") or ()
        self._asked = words.get("asked") or {}
        self._holders = words.get("holders") or {}
        self._spaces = {n: Observed(w) for n, w in (words.get("namespaces") or {}).items()}
        #: How often the processes of the host were read, which costs more than all the rest.
        self.holders_read = 0

    @property
    def holders(self) -> dict[str, list[dict[str, Any]]]:
        self.holders_read += 1
        return self._holders

    def peer(self, link: dict[str, Any]) -> tuple[str, str]:
        if isinstance(link["link"], str):
            return "", link["link"]
        return tuple(link["link"]) if link["link"] else ("", "")

    def once(self, part: str, read: Any) -> Any:
        if part not in self._asked:
            raise OSError(95, "Operation not supported")
        return self._asked[part]

    def lacking(self, capability: str) -> str:
        lacks = capability in self.root._lacks
        return f"the kernel of host has no {capability}" if lacks else ""

    def sysctl(self, name: str) -> str | None:
        return self._sysctls.get(name)

    def at(self, namespace: str) -> Observed:
        if not namespace:
            return self.root
        if namespace not in self._spaces:
            self._spaces[namespace] = Observed({"links": {"lo": {"up": False}}})
            self._spaces[namespace].exists = False
        self._spaces[namespace].root = self.root
        return self._spaces[namespace]


def _link(name: str, number: int, words: dict[str, Any]) -> dict[str, Any]:
    link = {**LINK, "name": name, "index": number, "mac": f"02:00:00:00:00:{number:02x}", **words}
    if link["kind"] == "bridge":
        link["data"] = {**BRIDGE, **link["data"]}
    if link["master"]:
        link["port"] = {**PORT, **(words.get("port") or {})}
    return link


def _address(item: Any, device: str) -> dict[str, Any]:
    words = {"address": item} if isinstance(item, str) else item
    family = 6 if ":" in words["address"] else 4
    return {
        "family": family, "scope": "global", "label": device if family == 4 else None,
        "dynamic": False, "kernel": False, "peer": None, "protocol": None, "flags": 0x80,
        "tentative": False, "dadfailed": False, **words,
    }  # fmt: skip


def _route(words: dict[str, Any]) -> dict[str, Any]:
    text = words["to"] if words["to"] != "default" else words.get("via") or ""
    family = 6 if ":" in text else 4
    return {
        "via": None, "dev": None, "metric": 0 if family == 4 else 1024, "table": 254,
        "type": "unicast", "scope": "global", "protocol": 3, "from": None, "src": None,
        "flags": 0, "family": family, "nexthops": [], **words,
    }  # fmt: skip
