"""The kinds fleet knows: adding one is a file in ``kinds/``, a line here and a folder of cases."""

from __future__ import annotations

import sys

from fleet.host.spec import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kind import Kind


@spec
class Entry:
    """Where a kind is written in intent, and how early its creations run among equals.

    ``device`` says that its resources are network devices, whose names share one space;
    ``kernel`` is what the kernel calls such a device where that is another word. Any other kind
    says when its resources are made (``phase``, a word of ``planning.graph``), and ``under``
    which key of the data its section is: "" for the data itself, "device" for inside each device.
    Where kinds share a section, a device is of that whose ``mark`` is among its keys.
    """

    kind: str = ""
    section: str = ""
    order: int = 50
    device: bool = False
    kernel: str = ""
    phase: str = ""
    under: str = "network"
    mark: str = ""


KINDS = (
    Entry("namespace", "namespaces", 5, phase="space"),
    Entry("sysctl", "sysctl", 10, phase="sysctl", under=""),
    Entry("module", "modules", 9, phase="sysctl", under=""),
    Entry("hugepages", "hugepages", 11, phase="sysctl", under=""),
    Entry("mount", "mounts", 12, phase="sysctl", under=""),
    Entry("governor", "governors", 13, phase="sysctl", under=""),
    Entry("ethernet", "ethernets", 20, device=True),
    Entry("driver", "drivers", 21, phase="function", under=""),
    Entry("sriov", "virtual-functions", 22, phase="function", under="device"),
    Entry("veth", "virtual-ethernets", 25, device=True),
    Entry("tap", "taps", 26, device=True, kernel="tun"),
    Entry("tun", "tuns", 27, device=True, kernel="tun"),
    Entry("dummy", "dummy-devices", 28, device=True),
    Entry("bond", "bonds", 30, device=True),
    Entry("vlan", "vlans", 35, device=True),
    Entry("bridge", "bridges", 40, device=True),
    Entry("vrf", "vrfs", 43, device=True),
    Entry(
        "openvswitch",
        "bridges",
        42,
        device=True,
        kernel="openvswitch",
        phase="switch",
        mark="openvswitch",
    ),
    Entry("macvlan", "macvlans", 45, device=True),
    Entry("macvtap", "macvtaps", 46, device=True),
    Entry("tunnel", "tunnels", 50, device=True, kernel="vxlan"),
    Entry("ethtool", "ethtool", 59, phase="entry"),
    Entry("steering", "steering", 60, phase="rule"),
    Entry("interrupts", "interrupts", 60, phase="rule"),
    Entry("neighbour", "neighbours", 60, phase="entry"),
    Entry("fdb", "fdb", 61, phase="entry"),
    Entry("mdb", "mdb", 62, phase="entry"),
    Entry("shaping", "shaping", 63, phase="entry"),
    Entry("nftables", "nftables", 70, phase="rule"),
    Entry("flows", "flows", 71, phase="rule"),
    Entry("policy", "policies", 71, phase="rule"),
    Entry("nwfilter", "nwfilters", 89, phase="rule", under="libvirt"),
    Entry("network", "networks", 90, phase="rule", under="libvirt"),
    Entry("guest", "guests", 91, phase="rule", under="libvirt"),
    Entry("rule", "routing-policy", 80, phase="rule", under="device"),
)

BY_NAME = {entry.kind: entry for entry in KINDS}
DEVICES = tuple(entry.kind for entry in KINDS if entry.device)
_OF_KERNEL = {entry.kernel or entry.kind: entry.kind for entry in KINDS if entry.device}


def kind_of(link: dict[str, Any]) -> str:
    """Return the kind of an observed device, empty where fleet has none for it.

    A tap or tun that is not persistent is the process's that holds it.
    """
    if link["kind"] == "tun":
        return str(link["data"].get("type") or "") if link["data"].get("persist") else ""
    return _OF_KERNEL.get(link["kind"] or "ethernet", "")


def load(kind: str) -> Kind:
    """Import and return the module of a kind; raises KeyError for a kind fleet does not have."""
    name = f"fleet.host.kinds.{BY_NAME[kind].kind}"
    __import__(name)
    module: Kind = sys.modules[name]
    return module
