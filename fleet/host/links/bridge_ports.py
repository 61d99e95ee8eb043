"""The ports of a Linux bridge: which join and leave, and their flags (bridge(8))."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.links.link_diff import device_of
from fleet.host.spec import dashed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.links.steps import Steps
    from fleet.host.planning.ledger import Entry

#: net/bridge/br_if.c, new_nbp(); the cost follows the port's speed and has no default to name.
PORT_DEFAULTS = {
    "isolated": False, "learning": True, "flood": True, "mcast_flood": True, "bcast_flood": True,
    "hairpin": False, "guard": False, "root_block": False, "fastleave": False,
    "neigh_suppress": False, "locked": False, "priority": 32,
}  # fmt: skip
#: What moves traffic to other ports, where STP runs.
TOPOLOGY = ("stp", "priority", "cost")


def ports_of(observation: Observation, name: str) -> list[str]:
    """Return the names of a bridge's ports."""
    return sorted(n for n, link in observation.links.items() if link["master"] == name)


def diff_ports(
    steps: Steps, interfaces: tuple[str, ...] | None, entry: Entry | None, observation: Observation
) -> tuple[dict[str, str], list[str]]:
    """Add ports that join and leave; return both, those that join with intent's names too."""
    bridge = steps.device
    before = list((entry.spec or {}).get("interfaces") or ()) if entry else []
    original = list((entry.before or {}).get("interfaces") or ()) if entry else []
    named = {name: device_of(observation, name) for name in interfaces or ()}
    joining: dict[str, str] = {}
    leaving: list[str] = []
    for name, device in named.items():
        link = observation.links.get(device)
        if link is not None and link["master"] == bridge:
            continue
        joining[name] = device
        master = link["master"] if link else None
        steps.add(
            "interfaces",
            {"interface": name, "master": master} if master else None,
            name,
            impact="blip" if link else "none",
            reason=f"leaves {master}" if master else "",
            provides=(f"port:{bridge}/{device}",),
            requires=(f"device:{device}", f"unport:{device}"),
            touches=(bridge, device, *((master,) if master else ())),
        )
    put = [device_of(observation, n) for n in before if n not in original]
    for device in ports_of(observation, bridge):
        ours = device in put
        if device in named.values() or not (ours or interfaces is not None):
            continue
        # A veth that fleet itself made a port is no container's, wherever its other end is.
        own = ours and observation.links[device]["kind"] == "veth"
        if is_guest(observation, device) and not own:
            continue
        leaving.append(device)
        steps.add(
            "interfaces",
            device,
            None,
            impact="blip",
            provides=(f"unport:{device}",),
            touches=(bridge, device),
        )
    return joining, leaving


def is_guest(observation: Observation, device: str) -> bool:
    """Say whether a port is a guest's or a container's, which are never detached.

    drivers/net/tun.c: a tap has a carrier exactly while a process holds it, so the processes
    are read only where one has none.
    """
    link = observation.links[device]
    if link["kind"] == "veth":
        return link.get("link_netnsid") is not None
    if link["kind"] not in ("tun", "macvtap"):
        return False
    return bool(link["running"] or observation.holders.get(device))


def diff_flags(
    steps: Steps,
    flags: dict[str, dict[str, Any]],
    old: dict[str, dict[str, Any]],
    entry: Entry | None,
    observation: Observation,
    joining: dict[str, str],
    leaving: list[str],
) -> None:
    """Add the changes of ports' flags; ``old`` is what fleet's last intent named."""
    was = ((entry.before or {}).get("ports") or {}) if entry else {}
    for port in sorted({*flags, *old}):
        device = device_of(observation, port)
        named = flags.get(port, {})
        link = observation.links.get(device)
        needs, touches = (f"port:{steps.device}/{device}",), (steps.device, device)
        if port in joining:
            if named:
                after = {dashed(key): value for key, value in sorted(named.items())}
                steps.add(f"ports.{port}", None, after, requires=needs, touches=touches)
            continue
        if link is None or link["master"] != steps.device or device in leaving:
            if named:
                raise HostError(
                    steps.resource.key,
                    f"{port} as a port",
                    "no such port",
                    f"add {port} to interfaces, or take its flags away",
                    f"ports.{port}",
                )
            continue
        for key in sorted({*named, *old.get(port, {})}):
            value, now = named.get(key), (link["port"] or {}).get(key)
            if value is None:
                # No longer named: as it was before fleet, or as the kernel makes a port.
                value = was.get(device, {}).get(dashed(key), PORT_DEFAULTS.get(key))
            if value is None or value == now:
                continue
            moves = key in TOPOLOGY and bool(observation.links[steps.device]["data"].get("stp"))
            steps.add(
                f"ports.{port}.{dashed(key)}",
                now,
                value,
                impact="blip" if moves else "none",
                requires=needs,
                touches=touches,
            )
