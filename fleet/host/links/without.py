"""A host as if some of its devices were gone already, for what has to be made again; pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.kernel.observation import Observation


class Without:
    """An observation that lacks some devices and what goes with them; all else is as it was."""

    def __init__(self, observation: Observation, devices: Iterable[str]) -> None:
        self._observation = observation
        self._gone = frozenset(devices)
        self.links = {k: self._link(v) for k, v in observation.links.items() if k not in self._gone}
        self.addresses = {k: v for k, v in observation.addresses.items() if k not in self._gone}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observation, name)

    def _link(self, link: dict[str, Any]) -> dict[str, Any]:
        # A port whose bridge goes is no port any more.
        if link["master"] not in self._gone:
            return link
        return {**link, "master": None, "port": None}

    @property
    def routes(self) -> list[dict[str, Any]]:
        """The routes that do not go with the devices."""
        return [r for r in self._observation.routes if r["dev"] not in self._gone]

    @property
    def neighbours(self) -> list[dict[str, Any]]:
        """The neighbours that do not go with the devices."""
        return [each for each in self._observation.neighbours if each["dev"] not in self._gone]

    @property
    def fdb(self) -> list[dict[str, Any]]:
        """The forwarding entries that do not go with the devices."""
        return [each for each in self._observation.fdb if each["dev"] not in self._gone]

    @property
    def bridge_vlans(self) -> dict[str, dict[int, int]]:
        """The VLANs of the bridges that stay and of their ports."""
        found = self._observation.bridge_vlans
        stay = [n for n, link in self.links.items() if link["kind"] == "bridge" or link["master"]]
        return {name: found[name] for name in stay if name in found}

    @property
    def traffic(self) -> dict[str, list[dict[str, Any]]]:
        """What shapes the traffic of the devices that stay."""
        found = self._observation.traffic
        return {k: v for k, v in found.items() if k.rpartition("/")[0] not in self._gone}

    def sysctl(self, name: str) -> str | None:
        """Return a key's value, None for one of a device that goes."""
        parts = name.split("/") if "/" in name.partition(".")[0] else name.split(".")
        own = len(parts) > 4 and parts[3] in self._gone
        return None if own else self._observation.sysctl(name)


def without(observation: Observation, devices: Iterable[str]) -> Observation:
    """Return an observation without some devices; what stands on them is the caller's to name."""
    found: Any = Without(observation, devices)
    return found  # type: ignore[no-any-return]


def with_what_stands_on(observation: Observation, devices: Iterable[str]) -> set[str]:
    """Return devices and those that the kernel deletes with them: macvlans of a VXLAN."""
    gone = set(devices)
    while True:
        above = {
            name
            for name, link in observation.links.items()
            if link["link"] in gone and link["kind"] != "veth"
        }
        if above <= gone:
            return gone
        gone |= above
