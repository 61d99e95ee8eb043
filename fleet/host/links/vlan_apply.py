"""Makes VLAN interfaces and changes them in place, through pyroute2."""

from __future__ import annotations

from fleet.host.kinds.vlan import FLAGS
from fleet.host.links import link_apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: include/uapi/linux/if_ether.h
PROTOCOLS = {"802.1q": 0x8100, "802.1ad": 0x88A8}
_MAPS = {"ingress-qos-map": "IFLA_VLAN_INGRESS_QOS", "egress-qos-map": "IFLA_VLAN_EGRESS_QOS"}


def make(system: System, change: Change) -> None:
    """Make a VLAN with all that its creation names."""
    made = change.after
    attributes = attributes_of({word: (None, value) for word, value in made.items()})
    attributes["vlan_id"] = made["id"]
    attributes["vlan_protocol"] = PROTOCOLS[made["protocol"]]
    attributes["link"] = link_apply.index_of(system, made["link"])
    link_apply.make(system, change, "vlan", **attributes)


def set_words(system: System, change: Change, words: dict[str, tuple[Any, Any]]) -> None:
    """Change flags or maps of a VLAN that is there."""
    link_apply.set_link(system, change, kind="vlan", **attributes_of(words))


def attributes_of(words: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the kernel's attributes of flags and maps, each given as it is and shall be."""
    flags = mask = 0
    found: dict[str, Any] = {}
    for word, (before, after) in words.items():
        if word in FLAGS:
            mask |= FLAGS[word]
            flags |= FLAGS[word] if after else 0
        elif word in _MAPS:
            # vlan_changelink() knows no list, only entries; 0 is none.
            pairs = {**dict.fromkeys(before or (), 0), **(after or {})}
            attrs = [
                ["IFLA_VLAN_QOS_MAPPING", {"from": int(first), "to": int(second)}]
                for first, second in sorted(pairs.items(), key=lambda pair: int(pair[0]))
            ]
            if attrs:
                found[_MAPS[word]] = {"attrs": attrs}
    if mask:
        found["vlan_flags"] = {"flags": flags, "mask": mask}
    return found
