"""What ethtool(8) sets, over generic netlink (Linux 5.6; networking/ethtool-netlink.rst).

Settings are plain data by part, in ethtool's words: ``channels``, ``rings``, ``coalesce`` and
``pause`` are {word: number or bool}, ``private-flags`` is {flag: bool}, ``features`` is {name:
{"wanted", "active", "changeable"}}, all three bools.
"""

from __future__ import annotations

import errno

from fleet.host.kernel.generic import answers, request
from fleet.host.kernel.netlink import (
    attribute_list,
    attributes,
    nest,
    number,
    pack,
    pack_text,
    pack_u32,
    text_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: include/uapi/linux/ethtool_netlink.h
_HEADER, _DEVICE = 1, 2
_BITS, _BIT, _BIT_NAME, _BIT_VALUE = 3, 1, 2, 3
_WHOLE_LIST = 1
_FEATURES_GET, _FEATURES_SET, _CHANGEABLE, _WANTED, _ACTIVE, _NEVER = 11, 12, 2, 3, 4, 5
_FLAGS_GET, _FLAGS_SET, _FLAGS = 13, 14, 2
#: Not for this device, this driver or this kernel: there is nothing to set.
_NOTHING = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL)

#: By part: the commands that read and set it, and each word's attribute, its size in bytes and the
#: attribute of the most the driver takes (0 for none).
_PARTS: dict[str, tuple[int, int, dict[str, tuple[int, int, int]]]] = {
    "rings": (
        15, 16,
        {"rx": (6, 4, 2), "rx-mini": (7, 4, 3), "rx-jumbo": (8, 4, 4), "tx": (9, 4, 5)},
    ),
    "channels": (
        17, 18,
        {"rx": (6, 4, 2), "tx": (7, 4, 3), "other": (8, 4, 4), "combined": (9, 4, 5)},
    ),
    "coalesce": (
        19, 20,
        {
            "rx-usecs": (2, 4, 0), "rx-frames": (3, 4, 0), "rx-usecs-irq": (4, 4, 0),
            "rx-frames-irq": (5, 4, 0), "tx-usecs": (6, 4, 0), "tx-frames": (7, 4, 0),
            "tx-usecs-irq": (8, 4, 0), "tx-frames-irq": (9, 4, 0),
            "stats-block-usecs": (10, 4, 0), "adaptive-rx": (11, 1, 0), "adaptive-tx": (12, 1, 0),
        },
    ),
    "pause": (21, 22, {"autoneg": (2, 1, 0), "rx": (3, 1, 0), "tx": (4, 1, 0)}),
}  # fmt: skip
PARTS = ("features", *_PARTS, "private-flags")


def read(system: System, device: str) -> dict[str, Any]:
    """Return a device's settings by part; a part its driver lacks is left out.

    ``most`` holds, by part, the most that the driver takes. Raises OSError.
    """
    found: dict[str, Any] = {"most": {}}
    features = _read_features(system, device)
    if features:
        found["features"] = features
    for part, (command, _, words) in _PARTS.items():
        told = _ask(system, command, device)
        if told is None:
            continue
        values = {
            word: bool(number(told[kind])) if size == 1 else number(told[kind])
            for word, (kind, size, _) in words.items()
            if kind in told
        }
        if values:
            found[part] = values
            most = {w: number(told[top]) for w, (_, _, top) in words.items() if top in told}
            found["most"][part] = most
    told = _ask(system, _FLAGS_GET, device)
    flags = _bits(told[_FLAGS]) if told and _FLAGS in told else {}
    if flags:
        found["private-flags"] = flags
    return found


def write(system: System, device: str, part: str, values: dict[str, Any]) -> None:
    """Set what is named of one part, in one message; raises OSError with the kernel's words."""
    if part in ("features", "private-flags"):
        kind = _WANTED if part == "features" else _FLAGS
        bits = [
            nest(_BIT, pack_text(_BIT_NAME, name), *([pack(_BIT_VALUE)] if on else []))
            for name, on in values.items()
        ]
        command = _FEATURES_SET if part == "features" else _FLAGS_SET
        payload = nest(kind, nest(_BITS, *bits))
    else:
        _, command, words = _PARTS[part]
        payload = b"".join(
            pack_u32(words[word][0], value)
            if words[word][1] == 4
            else pack(words[word][0], bytes((bool(value),)))
            for word, value in values.items()
        )
    request(system, "ethtool", _message(command, device) + payload)


def _read_features(system: System, device: str) -> dict[str, dict[str, bool]]:
    told = _ask(system, _FEATURES_GET, device)
    if told is None:
        return {}
    changeable, wanted, active, never = (
        _bits(told.get(kind, b"")) for kind in (_CHANGEABLE, _WANTED, _ACTIVE, _NEVER)
    )
    return {
        name: {
            "wanted": wanted.get(name, False),
            "active": active.get(name, False),
            "changeable": can and not never.get(name),
        }
        for name, can in sorted(changeable.items())  # all that the kernel knows
        if name
    }


def _bits(bitset: bytes) -> dict[str, bool]:
    """Return a bitset by the bits' names; a list without a mask has those alone that are set."""
    parts = attributes(bitset)
    whole = _WHOLE_LIST in parts
    found = {}
    for _, bit in attribute_list(parts.get(_BITS, b"")):
        inside = attributes(bit)
        if _BIT_NAME in inside:
            found[text_of(inside[_BIT_NAME])] = whole or _BIT_VALUE in inside
    return found


def _ask(system: System, command: int, device: str) -> dict[int, bytes] | None:
    """Return an answer's attributes; None where the driver has nothing of that sort."""
    try:
        found = answers(system, "ethtool", _message(command, device))
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return None
    return attributes(found[0], 4) if found else None


def _message(command: int, device: str) -> bytes:
    return bytes((command, 1, 0, 0)) + nest(_HEADER, pack_text(_DEVICE, device))
