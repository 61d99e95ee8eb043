"""Makes VRFs, and has devices join and leave them, through pyroute2."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE
from fleet.host.links import link_apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.change import Change
    from fleet.host.kernel.system import System


def apply(system: System, change: Change) -> None:
    """Carry out one change; ``touches`` is the VRF, then the member."""
    if change.action == CREATE:
        link_apply.make(system, change, "vrf", vrf_table=change.after["table"])
    elif change.action == DELETE:
        _take_away(system, change)
    elif change.what == "interfaces":
        _member(system, change)
    else:
        link_apply.apply(system, change)


def _member(system: System, change: Change) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    vrf, member = change.touches[:2]
    index = link_apply.index_of(system, member)
    master = 0 if change.after is None else link_apply.index_of(system, vrf)
    try:
        # cycle_netdev() in drivers/net/vrf.c sets the member down and up again.
        with link_apply.keeping(system, index):
            system.route.link("set", index=index, master=master)
    except NetlinkError as error:
        raise link_apply.refused(change, error) from error


def _take_away(system: System, change: Change) -> None:
    """Delete a VRF; each of its members leaves as if it were told to."""
    own = link_apply.index_of(system, change.touches[0])
    for link in system.route.get_links():
        if link.get_attr("IFLA_MASTER") == own:
            with link_apply.keeping(system, link["index"]):
                system.route.link("set", index=link["index"], master=0)
    link_apply.apply(system, change)
