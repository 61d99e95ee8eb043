"""What the running kernel can make, found out without making or loading anything."""

from __future__ import annotations

import os

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, nest, pack, pack_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System

NEWLINK = 16
_EADDRNOTAVAIL = 99

#: What a plan asks for: the kernel's kind of device, its module, and how it is built in.
KINDS = {
    "802.1q": ("vlan", "8021q", "CONFIG_VLAN_8021Q"),
    "bonding": ("bond", "bonding", "CONFIG_BONDING"),
    "dummy": ("dummy", "dummy", "CONFIG_DUMMY"),
    "vrf": ("vrf", "vrf", "CONFIG_NET_VRF"),
}
#: A bridge's own part: its option, and what its symbols are called.
BRIDGE_VLANS = "VLAN filtering of bridges"
_FILTERING, _SYMBOL = "CONFIG_BRIDGE_VLAN_FILTERING", " nbp_vlan_add"


def option_of(capability: str) -> str:
    """Return the kernel's build option of a capability."""
    return _FILTERING if capability == BRIDGE_VLANS else KINDS[capability][2]


def lacking(system: System, capability: str) -> str:
    """Return why this kernel lacks a capability, empty where it has it or can load it."""
    name = os.uname()
    kernel = f"the kernel of {name.nodename} ({name.release}) has no {capability}"
    if capability == BRIDGE_VLANS:
        return "" if _filters(system, name.release) else f"{kernel}: it was built without"
    kind, module, _ = KINDS[capability]
    if _registered(system, kind) or _loadable(system, module, name.release):
        return ""
    return f"{kernel}: it knows no devices of kind {kind}, and there is no module {module}"


def _filters(system: System, release: str) -> bool:
    """Say whether bridges filter VLANs, by what the kernel was built with or what it is made of.

    A bridge would tell by its attributes; none may be made to ask it.
    """
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        said = system.read(path)
        if said:
            return f"\n{_FILTERING}=y" in said
    symbols = system.read("/proc/kallsyms") or ""
    # With the bridge as a module that nobody has loaded, nothing tells.
    return _SYMBOL in symbols or " br_add_if" not in symbols


def _registered(system: System, kind: str) -> bool:
    """Ask for a device that no kernel makes, and see what it is refused for.

    IFLA_MAP is refused before a device is made and before a module is loaded, but after the
    kind has looked at its own attributes (net/core/rtnetlink.c, __rtnl_newlink). Each of these
    kinds refuses the zero MAC address, and one that is not there looks at nothing.
    """
    info = nest(18, pack_text(1, kind))
    parts = (pack_text(3, "fleet-probe"), pack(14, bytes(32)), pack(1, bytes(6)), info)
    try:
        system.netlink.request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, bytes(16) + b"".join(parts))
    except OSError as error:
        return error.errno == _EADDRNOTAVAIL
    return False


def _loadable(system: System, module: str, release: str) -> bool:
    for name in ("modules.dep", "modules.builtin"):
        listed = system.read(f"/lib/modules/{release}/{name}") or ""
        if any(f"/{module}.ko{end}" in listed for end in ("\n", ":", ".xz:", ".zst:", ".gz:")):
            return True
    return False
