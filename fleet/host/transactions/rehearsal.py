"""Before anything is armed: all that a revert needs is loaded, and its way gone once.

A host whose disk or memory fails while it goes back has nothing left to load.
"""

from __future__ import annotations

from fleet.host.transactions import fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: What the way back imports where it stands: a watchdog has it in memory before it is armed.
NEEDED = (
    "array",
    "errno",
    "fcntl",
    "sys",
    "fleet.host.reverting.restore",
    "fleet.host.reverting.restore_tap",
    "fleet.host.reverting.restore_traffic",
    "fleet.host.reverting.snapshot_parts",
    "fleet.host.reverting.theirs",
    "fleet.host.kernel.traffic",
)
#: And where it has to run programs: namespaces are made by ip(8), tables put back by nft(8).
PROGRAMS = (
    "subprocess",
    "fleet.host.tables.ruleset",
    "fleet.host.kernel.spaces",
    "fleet.host.kernel.system",
)
#: And where Open vSwitch goes back too.
SWITCHES = (
    "_socket",
    "subprocess",
    "fleet.host.kernel.system",
    "fleet.host.reverting.restore_switches",
    "fleet.host.switches.forwarding",
    "fleet.host.switches.groups",
    "fleet.host.switches.meters",
    "fleet.host.switches.openflow",
    "fleet.host.switches.ovsdb",
    "fleet.host.switches.picture",
    "fleet.host.switches.operations",
)
#: And where what ethtool sets does.
SETTINGS = ("fleet.host.kernel.ethtool", "fleet.host.reverting.restore_settings")
#: And where virtual functions of NICs do, and drivers.
FUNCTIONS = (
    "errno",
    "posix",
    "subprocess",
    "os",
    "fleet.host.kernel.binding",
    "fleet.host.kernel.functions",
    "fleet.host.kernel.generic",
    "fleet.host.kernel.pci",
    "fleet.host.reverting.restore_drivers",
    "fleet.host.reverting.restore_functions",
)
#: And where mounts and modules do, which mount(8) and modprobe(8) see to.
MOUNTS = (
    "os",
    "subprocess",
    "fleet.host.kernel.system",
    "fleet.host.kinds.module",
    "fleet.host.kinds.mount",
    "fleet.host.reverting.restore_mounts",
)
#: And where libvirt's networks, filters and guests do.
NETWORKS = (
    "os",
    "pyexpat",
    "subprocess",
    "fleet.host.kernel.system",
    "fleet.host.reverting.restore_guests",
    "fleet.host.reverting.restore_networks",
    "fleet.host.virtual.filters",
    "fleet.host.virtual.guests",
    "fleet.host.virtual.networks",
    "fleet.host.virtual.overlay",
    "fleet.host.virtual.pins",
    "fleet.host.virtual.tree",
)


def rehearse(system: System, snapshot: Any) -> None:
    """Load all that a revert needs and go its way up to the first write; raises OSError."""
    needs_programs = snapshot.get("namespaces") or snapshot.get("tables")
    from fleet.host.reverting.differences import differences
    from fleet.host.reverting.snapshot import capture
    from fleet.host.reverting.snapshot_parts import has_switches

    switches = SWITCHES if has_switches(snapshot["scope"]) else ()
    scope = snapshot["scope"]
    books = NETWORKS if any(map(scope.get, ("networks", "nwfilters", "guests"))) else ()
    settings = SETTINGS if scope.get("settings") else ()
    functions = FUNCTIONS if scope.get("functions") or scope.get("drivers") else ()
    values = ("fleet.host.reverting.restore_values",) if scope.get("values") else ()
    mounts = MOUNTS if scope.get("mounts") or scope.get("modules") else ()
    programs = PROGRAMS if needs_programs else ()
    for name in (*NEEDED, *programs, *settings, *functions, *mounts, *values, *switches, *books):
        __import__(name)

    differences(snapshot, capture(system, snapshot["scope"], snapshot))
    fence.members("", fence.identity(1))
