"""Carries out changes of bridges and their ports, through pyroute2; VLANs by plain netlink."""

from __future__ import annotations

from fleet.host.change import CREATE
from fleet.host.kernel.bridge_vlans import DELLINK, SETLINK, read_vlans, vlans_message
from fleet.host.links import link_apply
from fleet.host.links.bridge_vlans import parsed
from fleet.host.links.neighbours_apply import keeping_neighbours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: Our words, the kernel's attributes, and what one of ours is there (USER_HZ for times).
PARAMETERS = {
    "forward-delay": ("br_forward_delay", 100),
    "hello-time": ("br_hello_time", 100),
    "max-age": ("br_max_age", 100),
    "ageing-time": ("br_ageing_time", 100),
    "stp": ("br_stp_state", 1),
    "priority": ("br_priority", 1),
    "multicast-snooping": ("br_mcast_snooping", 1),
    "group-fwd-mask": ("br_group_fwd_mask", 1),
    "vlan-filtering": ("br_vlan_filtering", 1),
    "vlan-default-pvid": ("br_vlan_default_pvid", 1),
    "vlan-protocol": ("br_vlan_protocol", 1),
}
#: include/uapi/linux/if_ether.h
_PROTOCOLS = {"802.1q": 0x8100, "802.1ad": 0x88A8}
FLAGS = {
    "isolated": "IFLA_BRPORT_ISOLATED",
    "learning": "IFLA_BRPORT_LEARNING",
    "flood": "IFLA_BRPORT_UNICAST_FLOOD",
    "mcast-flood": "IFLA_BRPORT_MCAST_FLOOD",
    "bcast-flood": "IFLA_BRPORT_BCAST_FLOOD",
    "hairpin": "IFLA_BRPORT_MODE",
    "guard": "IFLA_BRPORT_GUARD",
    "root-block": "IFLA_BRPORT_PROTECT",
    "fastleave": "IFLA_BRPORT_FAST_LEAVE",
    "neigh-suppress": "IFLA_BRPORT_NEIGH_SUPPRESS",
    "locked": "IFLA_BRPORT_LOCKED",
    "cost": "IFLA_BRPORT_COST",
    "priority": "IFLA_BRPORT_PRIORITY",
}


def apply(system: System, change: Change) -> None:
    """Carry out one change of a bridge; ``touches`` is the bridge, then the port."""
    word, _, rest = change.what.partition(".")
    if change.action == CREATE:
        _create(system, change)
    elif word == "parameters":
        name, value = _parameter(rest, change.after)
        link_apply.set_link(system, change, kind="bridge", **{name: value})
    elif word == "interfaces":
        _port(system, change)
    elif change.what.rpartition(".")[2] == "vlans":
        _set_vlans(system, change)
    elif word == "ports":
        after = change.after
        if not isinstance(after, dict):
            after = {rest.rpartition(".")[2]: after}
        _set_flags(system, change, after)
    elif word == "mtu":
        _set_mtu(system, change)
    else:
        link_apply.apply(system, change)


def _create(system: System, change: Change) -> None:
    made = dict(
        _parameter(word, value) for word, value in change.after.items() if word in PARAMETERS
    )
    attributes: dict[str, Any] = {"ifname": change.touches[0], "kind": "bridge", **made}
    if "macaddress" in change.after:
        attributes["address"] = change.after["macaddress"]
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        system.route.link("add", **attributes)
    except NetlinkError as error:
        raise link_apply.refused(change, error) from error


def _parameter(word: str, value: Any) -> tuple[str, int]:
    """Return the kernel's attribute of a parameter and its value there."""
    name, unit = PARAMETERS[word]
    return name, _PROTOCOLS[value] if word == "vlan-protocol" else round(value * unit)


def _set_vlans(system: System, change: Change) -> None:
    """Make a list what the change says, from what it is now: a port that joins has the default
    PVID, whatever the plan saw."""
    bridge, device = change.touches[0], change.touches[-1]
    index, wanted = link_apply.index_of(system, device), parsed(change.after)
    now = read_vlans(system.netlink, {index: device}).get(device, {})
    changed = {vid: flags for vid, flags in wanted.items() if now.get(vid) != flags}
    gone = {vid: 0 for vid in now if vid not in wanted}
    try:
        for kind, vlans in ((SETLINK, changed), (DELLINK, gone)):
            if vlans:
                system.netlink.request(kind, 0, vlans_message(index, vlans, device == bridge))
    except OSError as error:
        raise link_apply.refused(change, error) from error


def _port(system: System, change: Change) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    bridge, port = change.touches[:2]
    master = 0 if change.after is None else link_apply.index_of(system, bridge)
    own = link_apply.index_of(system, bridge)
    try:
        # br_stp_recalculate_bridge_id(): the bridge's MAC follows its ports', and its permanent
        # neighbours go with the old one.
        with keeping_neighbours(system, own):
            system.route.link("set", index=link_apply.index_of(system, port), master=master)
    except NetlinkError as error:
        raise link_apply.refused(change, error) from error


def _set_flags(system: System, change: Change, flags: dict[str, Any]) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    index = link_apply.index_of(system, change.touches[1])
    attributes = {FLAGS[word]: int(value) for word, value in flags.items()}
    try:
        system.route.brport("set", index=index, **attributes)
    except NetlinkError as error:
        raise link_apply.refused(change, error) from error


def _set_mtu(system: System, change: Change) -> None:
    """br_change_mtu() pins the MTU, but only where it changes: a bridge that has it by chance
    would still follow its next port."""
    index = link_apply.index_of(system, change.touches[0])
    link = system.route.get_links(index)[0]
    if link.get_attr("IFLA_MTU") == change.after:
        other = change.after - 1 if change.after > 68 else change.after + 1
        link_apply.set_link(system, change, mtu=other)
    link_apply.set_link(system, change, mtu=change.after)
