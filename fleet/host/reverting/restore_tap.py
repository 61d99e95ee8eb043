"""Make a persistent tun or tap again, or give it back its owner (drivers/net/tun.c)."""

from __future__ import annotations

import os
from _struct import pack as pack_struct

from fleet.host.kernel.netlink import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Record = dict[str, Any]

TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
TUNSETIFINDEX = 0x400454DA
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x1, 0x2, 0x1000, 0x4000, 0x100
#: IFLA_TUN_* of include/uapi/linux/if_link.h, as keys of a link record's data.
_OWNER, _GROUP, _TYPE, _PI, _VNET_HDR, _PERSIST, _MULTI_QUEUE = "1234567"


def _data(record: Record) -> dict[str, int]:
    return {key: number(bytes.fromhex(value)) for key, value in record["data"].items()}


def _flags(data: dict[str, int]) -> int:
    flags = IFF_TUN if data.get(_TYPE) == 1 else IFF_TAP
    flags |= 0 if data.get(_PI) else IFF_NO_PI
    flags |= IFF_VNET_HDR if data.get(_VNET_HDR) else 0
    return flags | (IFF_MULTI_QUEUE if data.get(_MULTI_QUEUE) else 0)


def drop_tap(system: System, record: Record) -> None:
    """Let go of a persistent device: it ends unless a process holds it; raises OSError."""
    from fcntl import ioctl

    name = record["name"].encode("utf-8", "surrogateescape")
    with system.enter():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl(descriptor, TUNSETIFF, pack_struct("=16sH22x", name, _flags(_data(record))))
            ioctl(descriptor, TUNSETPERSIST, 0)
        finally:
            os.close(descriptor)


def restore_tap(system: System, record: Record) -> None:
    """Attach to the device of the record's name, made where it is missing, and set its owner.

    Raises OSError: EBUSY where a process holds it, and where the old one was not persistent, since
    its holder cannot be given another.
    """
    import errno
    from fcntl import ioctl

    data = _data(record)
    if not data.get(_PERSIST):
        raise OSError(errno.ENODEV, "it lived as long as the process that held it")
    flags = _flags(data)
    name = record["name"].encode("utf-8", "surrogateescape")
    with system.enter():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                ioctl(descriptor, TUNSETIFINDEX, pack_struct("=I", record["index"]))
            except OSError:
                pass  # the index is taken; any other will do
            ioctl(descriptor, TUNSETIFF, pack_struct("=16sH22x", name, flags))
            # Nobody's is what a new one is; the kernel refuses to be told so.
            if _OWNER in data:
                ioctl(descriptor, TUNSETOWNER, data[_OWNER])
            if _GROUP in data:
                ioctl(descriptor, TUNSETGROUP, data[_GROUP])
            ioctl(descriptor, TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)
