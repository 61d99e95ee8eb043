"""The lab's cables, switches and router, made with plain netlink messages (rtnetlink(7))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import Any

from fleet.host.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    nest,
    pack,
    pack_text,
    pack_u32,
)
from fleet.lab import linux

#: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, veth.h
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _NEWROUTE = 16, 17, 18, 20, 24
_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO, _NET_NS_FD = 1, 3, 4, 10, 18, 28
_KIND, _DATA, _PEER = 1, 2, 1
_NODAD = 0x02
_MAIN, _BOOT, _UNICAST, _UNREACHABLE = 254, 3, 1, 7
_ONLINK = 4
#: include/uapi/linux/sockios.h, ethtool.h (ETHTOOL_STXCSUM)
_SIOCETHTOOL, _SET_CHECKSUMS = 0x8946, 0x17
#: The metric of a route of last resort.
_LAST = 4278198272
#: Larger than any MTU that a host sets, as a switch would have it.
SWITCH_MTU = 9216


class Wires:
    """A netlink socket in one namespace: what is asked for is made there."""

    def __init__(self, namespace: int | None = None) -> None:
        """Open the socket in the namespace of a descriptor, by default in this thread's."""
        self._namespace = namespace
        with Within(namespace):
            self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def make_switch(self, name: str) -> int:
        """Make a bridge that is up; return its index."""
        info = nest(_LINKINFO, pack_text(_KIND, "bridge"))
        self._make(_link(up=True) + pack_text(_IFNAME, name) + info)
        return self.index(name)

    def make_cable(
        self,
        name: str,
        peer: str,
        namespace: int,
        *,
        switch: int = 0,
        mac: str = "",
        mtu: int = 0,
    ) -> None:
        """Make a pair of devices, the peer in the namespace of a descriptor and still down.

        veth_newlink() configures the peer before the pair is joined: one that is to be up at once
        is refused with ENOTCONN.
        """
        far = _link() + pack_text(_IFNAME, peer) + pack_u32(_NET_NS_FD, namespace)
        if mac:
            far += pack(_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        message = _link(up=True) + pack_text(_IFNAME, name)
        if switch:
            message += pack_u32(_MASTER, switch)
        if mtu:
            message += pack_u32(_MTU, mtu)
        info = nest(_LINKINFO, pack_text(_KIND, "veth"), nest(_DATA, pack(_PEER, far)))
        self._make(message + info)

    def join(self, name: str, switch: int, mtu: int) -> None:
        """Make a device that is there a port of a switch, and set it up."""
        message = _link(up=True) + pack_text(_IFNAME, name) + pack_u32(_MTU, mtu)
        self._netlink.request(_NEWLINK, 0, message + pack_u32(_MASTER, switch))

    def delete(self, name: str) -> None:
        """Delete a device, if it is there."""
        try:
            self._netlink.request(_DELLINK, 0, _link() + pack_text(_IFNAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def index(self, name: str) -> int:
        """Return a device's index; raises OSError where there is none."""
        _, payload = self._netlink.get(_GETLINK, _link() + pack_text(_IFNAME, name))[0]
        return int(struct.unpack_from("=i", payload, 4)[0])

    def set_up(self, name: str, up: bool = True) -> None:
        """Set a device up, or down."""
        message = struct.pack("=BxHiII", 0, 0, 0, int(up), 1)
        self._netlink.request(_NEWLINK, 0, message + pack_text(_IFNAME, name))

    def add_address(self, device: str, text: str) -> None:
        """Give a device an address with its prefix; one that it has already is left as it is."""
        interface = ipaddress.ip_interface(text)
        flags = _NODAD if interface.version == 6 else 0
        family = _family(interface)
        header = struct.pack(
            "=BBBBI", family, interface.network.prefixlen, flags, 0, self.index(device)
        )
        body = pack(2, interface.ip.packed) + pack(1, interface.ip.packed)
        self._netlink.request(_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, header + body)

    def add_default(self, device: str, gateway: str, onlink: bool = False) -> None:
        """Add a default route by a gateway."""
        via = ipaddress.ip_address(gateway)
        header = _route(_family(via), _UNICAST, _ONLINK if onlink else 0)
        body = pack(5, via.packed) + pack_u32(4, self.index(device))
        self._netlink.request(_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, header + body)

    def add_last_resort(self) -> None:
        """Make whatever no other route takes unreachable, in both families."""
        for family in (2, 10):
            header = _route(family, _UNREACHABLE, 0)
            try:
                self._netlink.request(_NEWROUTE, NLM_F_CREATE, header + pack_u32(6, _LAST))
            except OSError as error:
                # A kernel without IPv6 has nothing to stop.
                if family == 2 or error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    raise

    def set_sysctl(self, name: str, value: str) -> None:
        """Write a file below /proc/sys/net, if the kernel has it."""
        with Within(self._namespace):
            try:
                with open(f"/proc/sys/net/{name}", "w") as file:
                    file.write(value)
            except FileNotFoundError:
                pass

    def complete_checksums(self, name: str) -> None:
        """Have what a device sends carry whole checksums.

        A switch in user space reads frames as they are, and those of one namespace to another are
        left without a checksum, and of any length (drivers/net/veth.c).
        """
        value = ctypes.create_string_buffer(struct.pack("=II", _SET_CHECKSUMS, 0))
        request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
        with Within(self._namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            fcntl.ioctl(door, _SIOCETHTOOL, request)

    def _make(self, message: bytes) -> None:
        self._netlink.request(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message)


class Within:
    """This thread inside the network namespace of a descriptor, for a moment; None: where it is."""

    def __init__(self, namespace: int | None) -> None:
        self._namespace = namespace
        self._home = -1

    def __enter__(self) -> None:
        if self._namespace is None:
            return
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        linux.setns(self._namespace, linux.NEWNET)

    def __exit__(self, *_: object) -> None:
        if self._namespace is None:
            return
        linux.setns(self._home, linux.NEWNET)
        os.close(self._home)


def _link(up: bool = False) -> bytes:
    return struct.pack("=BxHiII", 0, 0, 0, int(up), int(up))


def _route(family: int, kind: int, flags: int) -> bytes:
    return struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN, _BOOT, 0, kind, flags)


def _family(address: Any) -> int:
    return 2 if address.version == 4 else 10
