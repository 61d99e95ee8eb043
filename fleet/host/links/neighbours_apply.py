"""Keeps and carries permanent neighbours that the kernel would drop, through pyroute2."""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: include/uapi/linux/neighbour.h
_NUD_PERMANENT = 0x80


@contextmanager
def keeping_neighbours(system: System, index: int) -> Iterator[None]:
    """Put back the permanent neighbours that the kernel drops from a device during a step."""
    before = _permanent(system, index)
    yield
    now = _permanent(system, index) if before else {}
    for (family, address), mac in before.items():
        if (family, address) not in now:
            arguments = {"dst": address, "lladdr": mac, "ifindex": index, "family": family}
            system.route.neigh("replace", state=_NUD_PERMANENT, **arguments)


def carry(system: System, change: Change) -> None:
    """Put a permanent neighbour on the device that its subnet is on now; the old one goes."""
    from pyroute2.netlink.exceptions import NetlinkError

    from fleet.host.links.link_apply import index_of, refused

    words = change.after
    address = {"dst": words["address"], "family": 10 if ":" in words["address"] else 2}
    index = index_of(system, change.touches[0])
    try:
        system.route.neigh(
            "replace", ifindex=index, lladdr=words["macaddress"], state=_NUD_PERMANENT, **address
        )
        for old in system.route.link_lookup(ifname=change.before["dev"]):
            if (address["family"], address["dst"]) in _permanent(system, old):
                system.route.neigh("del", ifindex=old, **address)
    except NetlinkError as error:
        raise refused(change, error) from error


def _permanent(system: System, index: int) -> dict[tuple[int, str], str]:
    found: dict[tuple[int, str], str] = {}
    for family in (2, 10):
        for message in system.route.get_neighbours(family=family, ifindex=index):
            mac = message.get_attr("NDA_LLADDR")
            if message["ifindex"] == index and message["state"] & _NUD_PERMANENT and mac:
                found[family, message.get_attr("NDA_DST")] = mac
    return found
