"""What is known of a namespace's devices once intent holds: intent's own words, then the host's.

Without an observation, which is before any host is contacted, what intent leaves open is unknown.
"""

from __future__ import annotations

from fleet.host import registry
from fleet.host.change import Problem
from fleet.host.kernel import ip
from fleet.host.links.route import key_of, of_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from fleet.host.change import Resource
    from fleet.host.kernel.observation import Observation

    Words = dict[str, Any]

#: ETH_DATA_LEN, what the kernel makes a device with.
_MTU = 1500


class Facts:
    """The devices of one namespace; None stands for what nobody can know yet."""

    def __init__(
        self,
        resources: Iterable[Resource],
        observation: Observation | None = None,
        gone: Collection[str] = (),
        left: Collection[str] = (),
    ) -> None:
        """Take what a plan deletes (``gone``) and which ports leave their bridges (``left``)."""
        self.observation = observation
        self.resources = list(resources)
        aliases = observation.aliases if observation is not None else {}
        seen: dict[str, Words] = observation.links if observation is not None else {}
        self._links = {name: link for name, link in seen.items() if name not in gone}
        self._left = left
        self._device: dict[str, Resource] = {
            aliases.get(r.name, r.name): r for r in self.resources if r.kind in registry.DEVICES
        }
        self._aliases = aliases

    def device(self, name: str) -> str:
        """Return the kernel's name of a device that intent names."""
        return self._aliases.get(name, name)

    def problem(
        self, resource: Resource, what: str, expected: str, actual: str, remedy: str
    ) -> Problem:
        """Return why a resource cannot be had."""
        return Problem(resource.key, what, expected, actual, remedy)

    def link(self, device: str) -> Words:
        """Return a device as observed, empty where there is none or nobody looked."""
        return self._links.get(device) or {}

    def links(self) -> Iterable[tuple[str, Words]]:
        """Return the observed devices."""
        return self._links.items()

    def spec(self, device: str) -> Words:
        """Return what intent names of a device, empty where it names none."""
        resource = self._device.get(device)
        return (resource.spec or {}) if resource is not None else {}

    def specs(self, *kinds: str) -> Iterator[tuple[str, Words]]:
        """Yield the kernel's names and the specs of intent's devices of some kinds."""
        for name, resource in self._device.items():
            if resource.kind in kinds:
                yield name, resource.spec or {}

    def of(self, kind: str) -> list[Resource]:
        """Return the resources of a kind."""
        return [resource for resource in self.resources if resource.kind == kind]

    def kind(self, device: str) -> str | None:
        """Return fleet's word for what a device is; another kind's is the kernel's."""
        if device == "lo":
            return "loopback"
        if device in self._device:
            return self._device[device].kind
        link = self.link(device)
        if not link:
            return None
        # A guest's tap, which goes with its process, is no kind of fleet's, but a tap all the same.
        own = link["data"].get("type") if link["kind"] == "tun" else None
        return registry.kind_of(link) or str(own or link["kind"])

    def said(self, device: str) -> str:
        """Return what a device is, for an operator: ``a bridge``."""
        words = {"ethernet": "a NIC", "loopback": "the loopback device", "": "a NIC"}
        kind = self.kind(device) or ""
        return words.get(kind, f"a {kind}")

    def absent(self, device: str) -> bool:
        """Say whether the host is known to lack a device, which intent then makes."""
        return self.observation is not None and device not in self._links

    def mtu(self, device: str) -> int | None:
        """Return a device's MTU."""
        spec = self.spec(device)
        if spec.get("mtu"):
            return int(spec["mtu"])
        if self.link(device):
            return int(self.link(device)["mtu"])
        lower, kind = spec.get("link"), self.kind(device)
        if kind in ("macvlan", "macvtap") and lower and lower != device:
            return self.mtu(self.device(lower))
        return _MTU if self.absent(device) else None

    def up(self, device: str) -> bool | None:
        """Say whether a device is up."""
        mode = self.spec(device).get("activation_mode")
        if device in self._device and mode != "manual":
            return mode is None
        link = self.link(device)
        if link:
            return bool(link["up"])
        return False if self.absent(device) else None

    def master(self, device: str) -> str | None:
        """Return the bridge that a device is a port of, empty for none."""
        for name, spec in self.specs("bridge"):
            if any(self.device(port) == device for port in spec.get("interfaces") or ()):
                return name
        link = self.link(device)
        if not link:
            return "" if self.absent(device) else None
        free = device in self._left or self.absent(str(link["master"]))
        return "" if free else str(link["master"] or "")

    def sysctl(self, name: str) -> str | None:
        """Return a parameter's value."""
        for resource in self.of("sysctl"):
            if resource.name == name:
                return str((resource.spec or {}).get("value"))
        return self.observation.sysctl(name) if self.observation is not None else None

    def addresses(self, device: str) -> list[str] | None:
        """Return the addresses of a device, with their prefix lengths."""
        named = self.spec(device).get("addresses")
        seen = (self.observation.addresses.get(device) or ()) if self.observation else ()
        if named is None:
            return [item["address"] for item in seen] if self.observation is not None else None
        others = [item["address"] for item in seen if item["dynamic"] or item["kernel"]]
        return [ip.normal(item["address"]) for item in named] + others

    def routes(self, device: str) -> set[Any]:
        """Return the keys of the routes that a device has now."""
        seen = self.observation.routes if self.observation is not None else ()
        return {key_of(route) for route in of_device(list(seen), device)}

    def all_addresses(self) -> set[str]:
        """Return all addresses of this namespace, without their prefix lengths."""
        seen = self.observation.addresses if self.observation is not None else ()
        devices = {*self._device, *seen}
        return {ip.host(text) for name in devices for text in self.addresses(name) or ()}
