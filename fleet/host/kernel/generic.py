"""Families of generic netlink by their names (Linux, networking/generic_netlink)."""

from __future__ import annotations

from fleet.host.kernel.netlink import GENERIC, attributes, number, pack_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System

#: include/uapi/linux/genetlink.h: the family that tells the numbers of the others.
_CONTROL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2

_known: dict[str, int] = {}


def family(system: System, name: str) -> int:
    """Return the number that this kernel gave a family; raises OSError where it has none."""
    if name not in _known:
        ask = bytes((_GETFAMILY, 1, 0, 0)) + pack_text(_FAMILY_NAME, name)
        for _, payload in system.netlink_of(GENERIC).get(_CONTROL, ask):
            _known[name] = number(attributes(payload, 4)[_FAMILY_ID])
    return _known[name]


def answers(system: System, name: str, message: bytes) -> list[bytes]:
    """Return what a family answers to a message, a payload each; raises OSError."""
    number_of = family(system, name)
    return [payload for _, payload in system.netlink_of(GENERIC).get(number_of, message)]


def request(system: System, name: str, message: bytes) -> None:
    """Ask a family for a change; raises OSError with the kernel's words."""
    system.netlink_of(GENERIC).request(family(system, name), 0, message)
