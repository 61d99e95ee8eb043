"""Devices that fleet makes from a few attributes: made, changed in place, or made again; pure.

A kind says which of its attributes the kernel can change on a living device and which only a new
device can have; the rest is the same for all of them.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.links import address, route
from fleet.host.links.link import Link
from fleet.host.links.link_diff import DEFAULT_MTU, diff_link, leaves, name_taken, observe_link
from fleet.host.links.steps import Steps
from fleet.host.links.without import without
from fleet.host.planning.ledger import Entry
from fleet.host.spec import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation


def diff_virtual(
    resource: Resource,
    entry: Entry | None,
    observation: Observation,
    wanted: Link,
    *,
    kernel: str,
    fixed: dict[str, Any],
    mutable: dict[str, Any],
    now: dict[str, Any],
    lower: str | None = None,
    quiet: Iterable[str] = (),
    capability: str = "",
) -> list[Change]:
    """Return the changes that make a device of kernel kind ``kernel`` what its spec says.

    ``fixed`` and ``mutable`` hold the named attributes in intent's words, ``now`` the same words
    as the host has them; ``lower`` is the device that it stands on. An attribute of ``fixed`` that
    differs makes the device again: what it carries is interrupted, and who holds it loses it. One
    of ``mutable`` interrupts for a moment unless it is ``quiet``. Raises HostError where the kernel
    lacks the ``capability`` that a new one needs.
    """
    name = resource.name
    link = observation.links.get(name)
    if link is None and capability:
        what = {"vlan": "VLAN", "bond": "bond", "vrf": "VRF"}.get(resource.kind, "device")
        require(resource, observation, capability, what)
    if link is not None and link["kind"] != kernel:
        raise name_taken(resource, link, f"a {kernel} device")
    steps = Steps(resource, name)
    differing = [key for key, value in fixed.items() if link and now.get(key) != value]
    if differing:
        _delete_first(steps, differing, now, fixed, observation)
        wanted = _keeping(wanted, observation, name, entry)
        observation = without(observation, {name})
        link = None
    if link is None:
        made = {**fixed, **{k: v for k, v in mutable.items() if v is not None}}
        if wanted.macaddress:
            made["macaddress"] = wanted.macaddress
        if wanted.mtu and (lower or wanted.mtu != DEFAULT_MTU):
            made["mtu"] = wanted.mtu  # without a word it would be the lower device's
        below: tuple[str, ...] = ()
        if lower:
            # netdev_rx_handler_register(): a port of a bridge carries no macvlan.
            master = (observation.links.get(lower) or {}).get("master")
            left = (f"unport:{lower}", f"absent:{master}")
            below = (f"device:{lower}", f"mtu-raised:{lower}", *left)
        needs = (f"absent:{name}", *below)
        provides = (f"device:{name}",)
        steps.add("", None, made, action=CREATE, provides=provides, requires=needs)
    else:
        for key, value in mutable.items():
            if value is not None and now.get(key) != value:
                impact = "none" if key in quiet else "blip"
                steps.add(key, now.get(key), value, impact=impact)
    # A device that has just been made again is nobody's; the ledger's lists are all to be added.
    diff_link(steps, wanted, _nowhere(entry) if differing else entry, observation)
    return steps.changes


def require(resource: Resource, observation: Observation, capability: str, what: str) -> None:
    """Raise HostError where the kernel lacks a capability that ``what`` of the intent needs."""
    missing = observation.lacking(capability)
    if missing:
        from fleet.host.kernel.capability import option_of

        remedy = (
            f"boot a kernel that has {option_of(capability)}, or take the {what} out of the intent"
        )
        raise HostError(resource.key, f"a kernel with {capability}", missing, remedy)


def _nowhere(entry: Entry | None) -> Entry | None:
    """Return what outlives a device: its routes that lead nowhere, which are no device's."""
    if entry is None or not entry.spec:
        return None
    routes = [item for item in entry.spec.get("routes") or () if item.get("type") in route.NOWHERE]
    if not routes:
        return None
    return Entry(entry.namespace, entry.kind, entry.name, {"routes": routes}, False, entry.before)


def _keeping(wanted: Link, observation: Observation, name: str, entry: Entry | None) -> Link:
    """Return what a device that is made again shall have: what intent does not name stays, save
    what fleet itself put there."""
    now = observe_link(observation, name)
    spec: dict[str, Any] = (entry.spec if entry else None) or {}
    before: dict[str, Any] = (entry.before if entry else None) or {}
    for word, listed in (("addresses", address.listed), ("routes", route.listed)):
        put = set(listed(spec.get(word))) - set(listed(before.get(word)))
        now[word] = [item for item in now.get(word) or () if not put & set(listed([item]))]
    if spec.get("mtu") and entry is not None and entry.created:
        del now["mtu"]
    # Whether it is up is never left open: an activation-mode that intent does not name is up.
    kept: dict[str, Any] = {
        "macaddress": wanted.macaddress,
        "activation_mode": wanted.activation_mode,
    }
    for word in ("addresses", "routes", "mtu"):
        kept[word] = getattr(wanted, word)
        if kept[word] is None:
            kept[word] = now.get(word.replace("_", "-"))
    kept["addresses"] = [
        {"address": item} if isinstance(item, str) else item
        for item in encode(kept["addresses"] or ())
    ]
    kept["routes"] = [
        {"from_" if key == "from" else key.replace("-", "_"): item[key] for key in item}
        for item in encode(kept["routes"] or ())
    ]
    return decode(Link, kept)


def _delete_first(
    steps: Steps,
    differing: list[str],
    now: dict[str, Any],
    fixed: dict[str, Any],
    observation: Observation,
) -> None:
    name = steps.device
    words = ", ".join(f"{key} {_said(now.get(key))} → {_said(fixed[key])}" for key in differing)
    freed = [
        "free:" + item["address"].partition("/")[0] for item in observation.addresses.get(name, [])
    ]
    steps.add(
        "",
        {key: now.get(key) for key in fixed},
        None,
        action=DELETE,
        impact="blip",
        reason=f"made again: only a new device can have {words}",
        provides=(f"absent:{name}", *freed, *leaves(observation.links[name])),
    )


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
