"""A bridge's own STP timers, while another bridge is the root.

Then the bridge runs on the root's timers, and those are what netlink and sysfs show
(br_stp_bpdu.c, br_record_config_timeout_values()); its own, which it takes up again as root, only
the old ioctl tells (br_ioctl.c, BRCTL_GET_BRIDGE_INFO).
"""

from __future__ import annotations

import _socket
import _struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: include/uapi/linux/sockios.h, include/uapi/linux/if_bridge.h
_SIOCDEVPRIVATE, _BRCTL_GET_BRIDGE_INFO = 0x89F0, 6
#: struct __bridge_info up to bridge_forward_delay: two ids, the path's cost, three timers twice.
_INFO = _struct.Struct("=QQIIIIIII")
_ROOM = 128


def own_timers(system: System, name: str, forward_delay: float) -> dict[str, float]:
    """Return max_age, hello_time and forward_delay in seconds as the bridge was told them.

    ``forward_delay`` is the one in force, in seconds: the ioctl gives some times in clock ticks and
    some in jiffies, and that one in jiffies, which tells how many make a second.
    """
    import array
    import fcntl

    info = array.array("B", bytes(_ROOM))
    arguments = array.array("L", [_BRCTL_GET_BRIDGE_INFO, info.buffer_info()[0], 0, 0])
    request = _struct.pack("16sQ16x", name.encode(), arguments.buffer_info()[0])
    with system.enter():
        door = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(door.fileno(), _SIOCDEVPRIVATE, request)
    finally:
        door.close()
    in_force, max_age, hello_time, own = _INFO.unpack_from(info)[5:]
    jiffies = in_force / forward_delay if forward_delay else 100.0
    return {
        "max_age": round(max_age / jiffies, 2),
        "hello_time": round(hello_time / jiffies, 2),
        "forward_delay": own / 100,
    }


def correct(system: System, links: dict[str, dict[str, Any]]) -> None:
    """Put bridges' own timers in place of their root's."""
    for name, link in links.items():
        data = link["data"]
        if link["kind"] == "bridge" and data.get("root_port"):
            try:
                data.update(own_timers(system, name, data["forward_delay"]))
            except OSError:
                pass  # a kernel without the old ioctls: the root's timers are all there is


#: IFLA_BR_FORWARD_DELAY, HELLO_TIME, MAX_AGE and STP_STATE in a bridge's own data, by raw_link.
_RAW = (("1", "forward_delay"), ("2", "hello_time"), ("3", "max_age"))
_STP = "5"
#: USER_HZ: clock ticks a second, as netlink has times.
_TICKS = 100


def put_own(system: System, links: dict[str, Any]) -> None:
    """Put bridges' own timers into their raw records, where STP may have them run on others."""
    for name, link in links.items():
        if link is None or link["kind"] != "bridge" or not any(bytes.fromhex(link["data"][_STP])):
            continue
        in_force = int.from_bytes(bytes.fromhex(link["data"]["1"]), sys.byteorder) / _TICKS
        try:
            own = own_timers(system, name, in_force)
        except OSError:
            continue  # a kernel without the old ioctls: the root's timers are all there is
        for key, word in _RAW:
            link["data"][key] = round(own[word] * _TICKS).to_bytes(4, sys.byteorder).hex()
