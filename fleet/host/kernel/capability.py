"""What the running kernel can make, found out without making or loading anything."""

from __future__ import annotations

import os

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, nest, pack, pack_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System

NEWLINK = 16
_EADDRNOTAVAIL, _EPROTONOSUPPORT = 99, 93

#: What a plan asks for: the kernel's kind of device, its module, and how it is built in.
KINDS = {
    "802.1q": ("vlan", "8021q", "CONFIG_VLAN_8021Q"),
    "bonding": ("bond", "bonding", "CONFIG_BONDING"),
    "dummy": ("dummy", "dummy", "CONFIG_DUMMY"),
    "vrf": ("vrf", "vrf", "CONFIG_NET_VRF"),
}
FILTERING = "vlan_filtering"
_FILTERING_OPTION = "CONFIG_BRIDGE_VLAN_FILTERING"


def option_of(capability: str) -> str:
    """Return the kernel's build option of a capability."""
    return KINDS[capability][2] if capability in KINDS else _FILTERING_OPTION


def lacking(system: System, capability: str) -> str:
    """Return why this kernel lacks a capability, empty where it has it or can load it."""
    name = os.uname()
    kernel = f"the kernel of {name.nodename} ({name.release}) has no {capability}"
    if capability == FILTERING:
        return "" if _filters(system, name.release) else f"{kernel}: its bridges know no VLANs"
    kind, module, _ = KINDS[capability]
    if _registered(system, kind) or _loadable(system, module, name.release):
        return ""
    return f"{kernel}: it knows no devices of kind {kind}, and there is no module {module}"


def _refusal(system: System, kind: str, *parts: bytes) -> int:
    """Ask for a device that no kernel makes, and return the errno it is refused with.

    IFLA_MAP is refused before a device is made and before a module is loaded, but after the
    kind has looked at its own attributes (net/core/rtnetlink.c, __rtnl_newlink).
    """
    message = bytes(16) + b"".join((pack_text(3, "fleet-probe"), pack(14, bytes(32)), *parts))
    try:
        system.netlink.request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message)
    except OSError as error:
        return int(error.errno or 0)
    return 0


def _registered(system: System, kind: str) -> bool:
    # Each of these kinds refuses the zero MAC address, and one that is not there looks at nothing.
    info = nest(18, pack_text(1, kind))
    return _refusal(system, kind, pack(1, bytes(6)), info) == _EADDRNOTAVAIL


def _filters(system: System, release: str) -> bool:
    # br_validate() looks at a protocol only where bridges are built with VLANs.
    strange = nest(2, pack(8, (0x1234).to_bytes(2, "big")))
    if _refusal(system, "bridge", nest(18, pack_text(1, "bridge"), strange)) == _EPROTONOSUPPORT:
        return True
    if _registered(system, "bridge") or not _loadable(system, "bridge", release):
        return False
    built = system.read(f"/boot/config-{release}")
    return built is None or f"{_FILTERING_OPTION}=y" in built


def _loadable(system: System, module: str, release: str) -> bool:
    for name in ("modules.dep", "modules.builtin"):
        listed = system.read(f"/lib/modules/{release}/{name}") or ""
        if any(f"/{module}.ko{end}" in listed for end in ("\n", ":", ".xz:", ".zst:", ".gz:")):
            return True
    return False
