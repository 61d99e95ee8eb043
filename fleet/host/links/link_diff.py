"""Diff of what every kind of network device shares; pure."""

from __future__ import annotations

from fleet.host.change import DELETE, HostError
from fleet.host.links.address import diff_addresses, written
from fleet.host.links.route import diff_routes, of_device
from fleet.host.links.route import foreign as foreign_route
from fleet.host.links.route import written as written_route
from fleet.host.links.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.links.link import Link
    from fleet.host.planning.ledger import Entry

#: ETH_DATA_LEN, what a device that fleet makes starts with.
DEFAULT_MTU = 1500


def device_of(observation: Observation, name: str) -> str:
    """Return the kernel's name of a device that intent names; a matched NIC has one of its own."""
    return observation.aliases.get(name, name)


def diff_link(
    steps: Steps,
    wanted: Link,
    entry: Entry | None,
    observation: Observation,
    *,
    mtu_impact: str = "none",
) -> None:
    """Add the changes of a device's shared fields to steps.

    Where the host has no such device yet, its creation sets what a creation can, and the rest
    follows as for a device that has nothing.
    """
    link = observation.links.get(steps.device)
    spec: dict[str, Any] = (entry.spec if entry else None) or {}
    before: dict[str, Any] = (entry.before if entry else None) or {}
    created = entry is not None and entry.created
    _mtu(steps, wanted.mtu, link, observation, created and spec.get("mtu"), mtu_impact)
    if wanted.macaddress and link is not None and link["mac"] != wanted.macaddress:
        mac = f"mac:{steps.device}"
        steps.add("macaddress", link["mac"], wanted.macaddress, impact="blip", provides=(mac,))
    _activation(steps, wanted.activation_mode, link)
    diff_addresses(
        steps,
        wanted.addresses,
        spec.get("addresses"),
        before.get("addresses"),
        observation.addresses.get(steps.device, []) if link else [],
    )
    routes = observation.routes if _routes_matter(wanted, spec) else []
    diff_routes(steps, wanted.routes, spec.get("routes"), before.get("routes"), routes)


def _routes_matter(wanted: Link, spec: dict[str, Any]) -> bool:
    return wanted.routes is not None or bool(spec.get("routes"))


def _mtu(
    steps: Steps,
    wanted: int | None,
    link: dict[str, Any] | None,
    observation: Observation,
    named: Any,
    impact: str,
) -> None:
    now = link["mtu"] if link else DEFAULT_MTU
    if wanted is None:
        # A tunnel takes no more than its headers leave.
        default = min(DEFAULT_MTU, (link or {}).get("max_mtu") or DEFAULT_MTU)
        if not named or now == default:
            return
        wanted = default
    if link is None or now == wanted:
        return
    least, most = link.get("min_mtu") or 0, link.get("max_mtu") or 0
    if wanted < least or (most and wanted > most):
        raise HostError(
            steps.resource.key,
            f"an MTU of {wanted}",
            f"a device that takes {least} to {most}",
            f"name an MTU from {least} to {most}",
            "mtu",
        )
    provides, requires = mtu_tokens(steps.device, now, wanted, observation)
    steps.add("mtu", now, wanted, impact=impact, provides=provides, requires=requires)


def mtu_tokens(
    device: str, now: int, wanted: int, observation: Observation
) -> tuple[list[str], list[str]]:
    """Return what an MTU change provides and requires.

    A device cannot carry more than the one below it: raised from below, lowered from above.
    """
    links = observation.links
    link = links.get(device) or {}
    if wanted > now:
        lower = [name for name, other in links.items() if other["master"] == device]
        if isinstance(link.get("link"), str) and link["kind"] != "veth":
            lower.append(link["link"])
        return [f"mtu-raised:{device}"], [f"mtu-raised:{name}" for name in lower]
    upper = [
        name for name, other in links.items() if other["link"] == device and other["kind"] != "veth"
    ]
    if link.get("master"):
        upper.append(link["master"])
    return [f"mtu-lowered:{device}"], [f"mtu-lowered:{name}" for name in upper]


def _activation(steps: Steps, mode: str | None, link: dict[str, Any] | None) -> None:
    up = bool(link and link["up"])
    if mode == "off" and up:
        steps.add("activation-mode", "up", "off", impact="blip")
    elif mode is None and not up:
        state = "down" if link else None
        # The kernel refuses another MAC on some devices while they are up.
        needs = (f"mac:{steps.device}",)
        steps.add("activation-mode", state, "up", provides=(f"up:{steps.device}",), requires=needs)


def observe_link(observation: Observation, device: str) -> dict[str, Any]:
    """Return a device's shared fields as intent would write them."""
    link = observation.links[device]
    words: dict[str, Any] = {"mtu": link["mtu"]}
    if link["mac"]:
        words["macaddress"] = link["mac"]
    if not link["up"]:
        words["activation-mode"] = "off"
    addresses = [
        written(item, device)
        for item in observation.addresses.get(device, [])
        if not item["kernel"] and not item["dynamic"]
    ]
    if addresses:
        words["addresses"] = addresses
    routes = [
        written_route(route, device)
        for route in of_device(observation.routes, device)
        if not foreign_route(route)
    ]
    if routes:
        words["routes"] = routes
    return words


def name_taken(resource: Resource, link: dict[str, Any], expected: str) -> HostError:
    """Return the refusal of a name that a device of another kind has."""
    return HostError(
        resource.key,
        f"{expected}, or no device of this name",
        f"a device of kind {link['kind'] or 'ethernet'}",
        f"give {resource.key} another name, or rename or delete the device",
    )


def delete_device(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a device that fleet created and the host still has."""
    link = observation.links.get(entry.name)
    if link is None or not entry.created:
        return []
    steps = Steps(entry, entry.name)
    freed = [
        "free:" + item["address"].partition("/")[0]
        for item in observation.addresses.get(entry.name, [])
    ]
    ports = sorted(n for n, other in observation.links.items() if other["master"] == entry.name)
    used = bool(ports or freed or link["master"])
    steps.add(
        "",
        entry.kind,
        None,
        action=DELETE,
        impact="blip" if used else "none",
        provides=(f"absent:{entry.name}", *freed, *leaves(link)),
        touches=(entry.name, *ports),
    )
    return steps.changes


def leaves(link: dict[str, Any]) -> list[str]:
    """Return the token of a lower device that a deletion leaves free for a bridge.

    netdev_rx_handler_register(): what carries a macvlan is no port of a bridge.
    """
    lower = link["link"] if link["kind"] in ("macvlan", "macvtap") else None
    return [f"unport:{lower}"] if isinstance(lower, str) else []
