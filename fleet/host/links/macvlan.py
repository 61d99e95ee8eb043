"""What macvlans and macvtaps share: the kernel has one driver for both (drivers/net/macvlan.c)."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, amended
from fleet.host.links.link_diff import device_of, observe_link
from fleet.host.links.virtual import diff_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change, Problem, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry


def observe(observation: Observation, name: str, kernel: str) -> dict[str, Any] | None:
    """Return a device as intent would write it; one whose NIC is in another namespace is absent."""
    link = observation.links.get(name)
    if link is None or link["kind"] != kernel or not isinstance(link["link"], str):
        return None
    lower, mode = link["link"], link["data"].get("mode")
    return {"link": lower, "mode": mode, **observe_link(observation, name)}


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without defaults: the MTU is the lower device's."""
    from fleet.host.planning.lean import without

    lower = observation.links.get(form["link"])
    return without(form, {"mtu": lower["mtu"] if lower else 1500})


def diff(
    resource: Resource,
    entry: Entry | None,
    observation: Observation,
    wanted: Any,
    kernel: str,
) -> list[Change]:
    """Return the changes that make a device what its decoded spec says."""
    lower = device_of(observation, wanted.link)
    now = observe(observation, resource.name, kernel) or {}
    # macvlan_changelink(): passthru cannot be entered or left.
    passing = "passthru" in (wanted.mode, now.get("mode", wanted.mode))
    mode = {"mode": wanted.mode}
    changes = diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel=kernel,
        fixed={"link": lower, **(mode if passing else {})},
        mutable={} if passing else mode,
        now=now,
        lower=lower,
    )
    if wanted.mode != "passthru":
        return changes
    # macvlan_set_mac_address(): its lower device's address follows, and is to come back with it.
    both = {"touches": (resource.name, lower)}
    return [
        amended(each, **both) if each.action == CREATE or each.what == "macaddress" else each
        for each in changes
    ]


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what macvlan_common_newlink() and macvlan_change_mtu() refuse."""
    spec, name = resource.spec or {}, resource.name
    lower = facts.device(spec.get("link") or "")
    for what, expected, actual, remedy in _unfit(spec, name, lower, facts):
        yield facts.problem(resource, what, expected, actual, remedy)


def _unfit(
    spec: dict[str, Any], name: str, lower: str, facts: Facts
) -> Iterator[tuple[str, str, str, str]]:
    kind, master = facts.kind(lower), facts.master(lower)
    if lower == name or kind in ("loopback", "tun", "macvlan", "macvtap"):
        actual = "it is this device itself" if lower == name else f"{lower} is {facts.said(lower)}"
        yield "link", "an Ethernet device that stands on no other", actual, "name a NIC or a bridge"
        return
    if master:
        # netdev_rx_handler_register(): one handler takes what comes in.
        actual, remedy = f"{lower} is a port of {master}", f"name {master} as link"
        yield "link", f"{lower} as no port of a bridge", actual, remedy
    if facts.kind(lower) == "bridge" and facts.master(name) == lower:
        yield (
            "link",
            "a device that is not above this one",
            f"{name} is a port of {lower}",
            ("take it off the bridge"),
        )
    most = facts.mtu(lower)
    if spec.get("mtu") and most is not None and spec["mtu"] > most:
        remedy = f"raise the mtu of {lower}, or name at most {most}"
        yield "mtu", f"an MTU of at most {most}, which {lower} has", str(spec["mtu"]), remedy
    yield from _address(spec, lower, facts)
    yield from _alone(spec, name, lower, facts)


def _address(spec: dict[str, Any], lower: str, facts: Facts) -> Iterator[tuple[str, str, str, str]]:
    """One in passthru mode gives its lower device its MAC address, every other has its own."""
    mac, named = spec.get("macaddress"), facts.spec(lower).get("macaddress")
    if spec.get("mode") == "passthru":
        if mac and named and mac != named:
            actual, remedy = f"{mac}; {lower} is to have {named}", "name one address for both"
            yield "macaddress", f"one address with {lower}, as passthru has it", actual, remedy
    elif mac and mac == (named or facts.link(lower).get("mac")):
        yield "macaddress", "an address of its own", f"{lower} has {mac} too", "name another"


def _alone(
    spec: dict[str, Any], name: str, lower: str, facts: Facts
) -> Iterator[tuple[str, str, str, str]]:
    """One in passthru mode has its lower device, and that one's MAC address, for itself."""
    modes = {
        other: (each.get("mode") or "bridge")
        for other, each in facts.specs("macvlan", "macvtap")
        if facts.device(each.get("link") or "") == lower and other != name
    }
    for other, link in facts.links():
        theirs = link["kind"] in ("macvlan", "macvtap") and link["link"] == lower
        if theirs and other != name and not facts.spec(other):
            modes[other] = str(link["data"].get("mode"))
    passing = spec.get("mode") == "passthru"
    for other, mode in sorted(modes.items()):
        # Of two that are new, the one in passthru mode says so.
        if passing or (mode == "passthru" and facts.link(other)):
            actual = f"{other} is there too, in mode {mode}"
            remedy = "name another link or mode for one of them"
            yield "mode", f"{lower} for itself, as passthru has it", actual, remedy
            return


def apply(system: System, change: Change, kernel: str) -> None:
    """Carry out one change."""
    from contextlib import ExitStack

    from fleet.host.links import link_apply
    from fleet.host.links.neighbours_apply import keeping_neighbours

    with ExitStack() as stack:
        if change.action in (CREATE, DELETE) or change.what == "macaddress":
            below = _index_below(system, change)
            if below:
                # A passthru device gives its lower device its address, and that one its own back:
                # neigh_changeaddr() drops permanent neighbours there.
                stack.enter_context(keeping_neighbours(system, below))
        if change.action == CREATE:
            _create(system, change, kernel)
        elif change.what == "mode":
            link_apply.set_link(system, change, kind=kernel, **{f"{kernel}_mode": change.after})
        else:
            link_apply.apply(system, change)


def _index_below(system: System, change: Change) -> int:
    """Return the index of the lower device, 0 where there is none in this namespace."""
    from fleet.host.links import link_apply

    if change.action == CREATE:
        return link_apply.index_of(system, change.after["link"])
    found = system.route.link_lookup(ifname=change.touches[0])
    messages = system.route.get_links(found[0]) if found else ()
    for message in messages:
        if message.get_attr("IFLA_LINK_NETNSID") is None:
            return int(message.get_attr("IFLA_LINK") or 0)
    return 0


def _create(system: System, change: Change, kernel: str) -> None:
    from fleet.host.links import link_apply

    lower = link_apply.index_of(system, change.after["link"])
    mode = {f"{kernel}_mode": change.after["mode"]}
    link_apply.make(system, change, kernel, link=lower, **mode)
    if change.after["mode"] == "passthru" and change.after.get("macaddress"):
        # macvlan_common_newlink(): a new passthru device has its lower device's, whatever it
        # was given.
        link_apply.set_link(system, change, address=change.after["macaddress"])
