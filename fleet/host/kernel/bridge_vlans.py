"""The VLANs of bridges and their ports (bridge(8), vlan): read, and the messages that set them.

pyroute2 sends one VLAN, or a range without flags, at a time; here a whole list goes in one message,
so that a port is never without what it keeps.
"""

from __future__ import annotations

import sys

from fleet.host.kernel.link_attributes import header
from fleet.host.kernel.netlink import attribute_list, attributes, nest, number, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.netlink import Netlink

    #: Flags by VLAN id.
    Vlans = dict[int, int]

AF_BRIDGE = 7
GETLINK, DELLINK, SETLINK = 18, 17, 19
#: include/uapi/linux/if_bridge.h, BRIDGE_VLAN_INFO_*.
PVID, UNTAGGED = 0x2, 0x4
_RANGE_BEGIN, _RANGE_END, _BRENTRY = 0x8, 0x10, 0x20
#: IFLA_AF_SPEC; IFLA_BRIDGE_FLAGS with BRIDGE_FLAGS_SELF; IFLA_BRIDGE_VLAN_INFO; IFLA_EXT_MASK
#: with RTEXT_FILTER_BRVLAN_COMPRESSED.
_AF_SPEC, _FLAGS, _SELF, _INFO, _EXT_MASK, _COMPRESSED = 26, 0, 2, 2, 29, 1 << 2


def read_vlans(netlink: Netlink, names: dict[int, str]) -> dict[str, Vlans]:
    """Return the VLANs of each bridge and port, by its name, with their flags.

    Empty for a kernel without VLAN filtering.
    """
    found: dict[str, Vlans] = {}
    mask = pack(_EXT_MASK, _COMPRESSED.to_bytes(4, sys.byteorder))
    try:
        messages = netlink.dump(GETLINK, bytes((AF_BRIDGE,)) + bytes(15), mask)
    except OSError:
        return {}
    for _, payload in messages:
        device = names.get(header.unpack_from(payload)[2], "")
        first = 0
        for kind, value in attribute_list(attributes(payload, 16).get(_AF_SPEC, b"")):
            if kind != _INFO or not device:
                continue
            flags, vid = number(value[:2]), number(value[2:4])
            if flags & _RANGE_BEGIN:
                first = vid
                continue
            start = first if flags & _RANGE_END else vid
            kept = flags & (PVID | UNTAGGED)
            found.setdefault(device, {}).update(dict.fromkeys(range(start, vid + 1), kept))
    return found


def vlans_message(index: int, vlans: Vlans, own: bool) -> bytes:
    """Return the body of an RTM_SETLINK or RTM_DELLINK for VLANs of a port, or a bridge's own."""
    parts = [pack(_FLAGS, _short(_SELF))] if own else []
    for first, last, flags in runs(vlans):
        flags |= _BRENTRY if own else 0
        if first == last:
            parts.append(pack(_INFO, _short(flags) + _short(first)))
            continue
        parts.append(pack(_INFO, _short(flags | _RANGE_BEGIN) + _short(first)))
        parts.append(pack(_INFO, _short(flags | _RANGE_END) + _short(last)))
    return header.pack(AF_BRIDGE, 0, index, 0, 0) + nest(_AF_SPEC, *parts)


def runs(vlans: Vlans) -> list[tuple[int, int, int]]:
    """Return the first and last id of each run with the same flags; a PVID stands alone."""
    found: list[tuple[int, int, int]] = []
    for vid, flags in sorted(vlans.items()):
        if found and found[-1][1] == vid - 1 and found[-1][2] == flags and not flags & PVID:
            found[-1] = (found[-1][0], vid, flags)
        else:
            found.append((vid, vid, flags))
    return found


def _short(value: int) -> bytes:
    return value.to_bytes(2, sys.byteorder)
