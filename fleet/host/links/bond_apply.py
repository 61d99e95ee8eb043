"""Makes bonds, changes their parameters, and has devices join and leave them, through pyroute2."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE
from fleet.host.kinds.bond import PARAMETERS
from fleet.host.links import link_apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: Words that the kernel takes as numbers, beyond those that an observation has numbers for.
_NUMBERS = {
    "mode": ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb",
             "balance-alb"),
    "lacp_rate": ("slow", "fast"),
    "transmit_hash_policy": ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4",
                             "vlan+srcmac"),
}  # fmt: skip


def apply(system: System, change: Change) -> None:
    """Carry out one change; ``touches`` is the bond, then the member."""
    word = change.what.partition("parameters.")[2]
    if change.action == CREATE:
        made = {key: v for key, v in change.after.items() if key.replace("-", "_") in PARAMETERS}
        link_apply.make(system, change, "bond", **_attributes(made))
    elif change.what == "interfaces":
        _member(system, change)
    elif word == "primary":
        # An index that no device has stands for none (bond_netlink.c, bond_changelink).
        index = link_apply.index_of(system, change.after) if change.after else 0
        link_apply.set_link(system, change, kind="bond", bond_primary=index)
    elif word:
        link_apply.set_link(system, change, kind="bond", **_attributes({word: change.after}))
    elif change.action == DELETE:
        _take_away(system, change)
    else:
        link_apply.apply(system, change)


def _take_away(system: System, change: Change) -> None:
    """Delete a bond; bond_uninit() leaves its members down, which is not what they were."""
    own = link_apply.index_of(system, change.touches[0])
    members = [
        link["index"]
        for link in system.route.get_links()
        if link.get_attr("IFLA_MASTER") == own and link["flags"] & 1
    ]
    link_apply.apply(system, change)
    for index in members:
        system.route.link("set", index=index, state="up")


def _attributes(words: dict[str, Any]) -> dict[str, Any]:
    """Return parameters in the kernel's words, as pyroute2 spells them."""
    found: dict[str, Any] = {}
    for word, value in words.items():
        key = word.replace("-", "_")
        name, numbers, _ = PARAMETERS[key]
        numbers = _NUMBERS.get(key, numbers)
        if numbers:
            value = numbers.index(value)
        elif isinstance(value, bool):
            value = int(value)
        found[f"bond_{name}"] = value
    return found


def _member(system: System, change: Change) -> None:
    """bond_enslave() takes a device that is down, and sets it up; __bond_release_one() leaves it
    down, which is not what a NIC was."""
    from pyroute2.netlink.exceptions import NetlinkError

    bond, member = change.touches[:2]
    index = link_apply.index_of(system, member)
    try:
        if change.after is None:
            up = system.route.get_links(index)[0]["flags"] & 1
            system.route.link("set", index=index, master=0)
            if up:
                system.route.link("set", index=index, state="up")
        else:
            master = link_apply.index_of(system, bond)
            system.route.link("set", index=index, state="down")
            system.route.link("set", index=index, master=master)
    except NetlinkError as error:
        raise link_apply.refused(change, error) from error
