"""Making and deleting network namespaces, as ip-netns(8) does."""

from __future__ import annotations

from _struct import pack

from fleet.host.kernel.link_attributes import dump_links, read_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System

IP = "/usr/sbin/ip"
#: RTM_DELLINK; struct ifinfomsg without its index.
_DELLINK = 17


def make_namespace(system: System, name: str) -> None:
    """Make a namespace; raises CommandError."""
    system.run([IP, "netns", "add", name])


def delete_namespace(system: System, name: str) -> None:
    """Delete a namespace with the devices in it; raises CommandError or OSError.

    A process, or an open socket, would keep the namespace and with it the other ends of its pairs:
    so the devices are deleted first.
    """
    there = system.at(name)
    try:
        for payload in dump_links(there.netlink):
            link = read_link(payload)
            if not link["kind"]:
                continue
            head = bytes(4) + pack("=i", link["index"]) + bytes(8)
            try:
                there.netlink.request(_DELLINK, 0, head)
            except OSError as error:
                if error.errno != 19:  # ENODEV: it went with another
                    raise
    finally:
        there.shut()
    system.run([IP, "netns", "delete", name])
