"""VLAN interfaces (netplan ``vlans``; ip-link(8) type vlan, IEEE 802.1Q and 802.1ad)."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, amended
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, device_of, observe_link
from fleet.host.links.virtual import diff_virtual
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from typing import Annotated

    from fleet.host.fields import Bound, DeviceName, Uint32, VlanId, VlanProtocol


@spec
class Vlan(Link):
    """One VLAN of a NIC, bond, bridge or another VLAN.

    The maps are between the three bits of a frame's tag and the kernel's own priority of a packet;
    one that is named is exclusive.
    """

    #: The empty text says that it has to be named.
    id: VlanId = ""  # type: ignore[assignment]
    link: DeviceName = ""
    #: Ours from here on, in ip-link(8)'s words.
    protocol: VlanProtocol = "802.1q"
    gvrp: bool | None = None
    mvrp: bool | None = None
    reorder_hdr: bool | None = None
    loose_binding: bool | None = None
    ingress_qos_map: dict[Annotated[int, Bound(0, 7)], Uint32] | None = None
    egress_qos_map: dict[Uint32, Annotated[int, Bound(0, 7)]] | None = None


SPEC = Vlan

#: include/uapi/linux/if_vlan.h, enum vlan_flags; a new device reorders headers.
FLAGS = {"reorder-hdr": 0x1, "gvrp": 0x2, "loose-binding": 0x4, "mvrp": 0x8}
_MAPS = {"ingress-qos-map": "ingress_qos", "egress-qos-map": "egress_qos"}
DEFAULTS: dict[str, Any] = {
    **{word: flag == 0x1 for word, flag in FLAGS.items()},
    **{word: {} for word in _MAPS},
}
#: What makes no frame of the device's come out differently.
_QUIET = ("gvrp", "mvrp", "loose-binding")


def names(observation: Observation) -> list[str]:
    """Return the names of all VLANs whose lower device is in this namespace."""
    return sorted(name for name in observation.links if observe(observation, name) is not None)


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a VLAN as intent would write it; one whose NIC is in another namespace is absent."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "vlan" or not isinstance(link["link"], str):
        return None
    return {**_now(link), **observe_link(observation, name)}


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without what a new VLAN has: its MTU and MAC are the lower device's."""
    from fleet.host.planning.lean import without

    lower = observation.links.get(form["link"])
    defaults = {**DEFAULTS, "protocol": "802.1q", "mtu": lower["mtu"] if lower else 1500}
    if lower and form.get("macaddress") == lower["mac"]:
        defaults["macaddress"] = lower["mac"]
    return without(form, defaults)


def key_of(link: dict[str, Any]) -> tuple[str, str, int]:
    """Return what the kernel tells VLANs apart by: lower device, protocol and id."""
    data = link["data"]
    return str(link["link"]), str(data.get("protocol", "802.1q")).lower(), int(data.get("id") or 0)


def _now(link: dict[str, Any]) -> dict[str, Any]:
    data = link["data"]
    words: dict[str, Any] = {
        "id": data.get("id"),
        "link": link["link"],
        "protocol": str(data.get("protocol", "802.1q")).lower(),
    }
    words.update({word: bool(data.get("flags", 1) & flag) for word, flag in FLAGS.items()})
    for word, seen in _MAPS.items():
        words[word] = {str(first): second for first, second in data.get(seen) or ()}
    return words


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a VLAN what its spec says; another id or link makes it again."""
    wanted = decode(Vlan, resource.spec)
    lower = device_of(observation, wanted.link)
    link = observation.links.get(resource.name)
    fixed = {"id": wanted.id, "link": lower, "protocol": wanted.protocol}
    now = _now(link) if link and link["kind"] == "vlan" else {}
    old = (entry.spec or {}) if entry and entry.created else {}
    mutable: dict[str, Any] = {}
    for word, default in DEFAULTS.items():
        field = word.replace("-", "_")
        value = getattr(wanted, field)
        if value is None and old.get(field) is not None:
            value = default
        if isinstance(value, dict):
            # A frame's priority that is mapped to 0 is as one that is not mapped.
            value = {str(first): second for first, second in value.items() if second}
        if value is not None:
            mutable[word] = value
    changes = diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="vlan",
        fixed=fixed,
        mutable=mutable,
        now=now,
        lower=lower,
        quiet=_QUIET,
        capability="802.1q",
    )
    return [_in_order(change, resource.namespace, lower, link) for change in changes]


def _in_order(change: Change, namespace: str, lower: str, link: dict[str, Any] | None) -> Change:
    """Let a VLAN wait for its device, and for another one of the same id that goes."""
    space = f"{namespace}|" if namespace else ""
    if change.action == DELETE and link:
        free = f"{space}free-vlan:{'/'.join(map(str, key_of(link)))}"
        return amended(change, provides=(*change.provides, free))
    if change.action == CREATE:
        made = change.after
        free = f"{space}free-vlan:{made['link']}/{made['protocol']}/{made['id']}"
        return amended(change, requires=(*change.requires, free))
    if change.what == "activation-mode" and change.after == "up":
        # vlan_dev_open(): a VLAN comes up only on a device that is up.
        return amended(change, requires=(*change.requires, f"{space}up:{lower}"))
    return change


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a VLAN that fleet made."""
    link = observation.links.get(entry.name)
    return [
        _in_order(change, entry.namespace, "", link) for change in delete_device(entry, observation)
    ]


def apply(system: System, change: Change) -> None:
    """Carry out one change of a VLAN."""
    from fleet.host.links import vlan_apply

    if change.action == CREATE:
        vlan_apply.make(system, change)
    elif change.what in DEFAULTS:
        vlan_apply.set_words(system, change, {change.what: (change.before, change.after)})
    else:
        from fleet.host.links import link_apply

        link_apply.apply(system, change)
