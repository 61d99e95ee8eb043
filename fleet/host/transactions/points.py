"""The points of a boot at which what nobody confirmed is put back.

Files go before the network starts. A database that is durable at once can only be put back by its
own server, and before whoever acts on it: Open vSwitch's after ovsdb-server and before
ovs-vswitchd, libvirt's definitions before libvirtd. Each has a unit of its own (``units``), which
runs ``recover --at POINT``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

FILES, OVS, LIBVIRT = "files", "ovs", "libvirt"
#: In the order in which a boot comes to them.
ORDER = (FILES, OVS, LIBVIRT)
#: Point → the module that puts back there. It has ``needed(snapshot)``, whether a snapshot has
#: anything of its own, and ``put_back(system, snapshot)``, which makes that so and returns what it
#: could not. A module is loaded only where a transaction was under way when the host went down.
HOOKS: dict[str, str] = {
    OVS: "fleet.host.reverting.restore_switches",
    LIBVIRT: "fleet.host.reverting.restore_networks",
}


def needed(snapshot: Any) -> list[str]:
    """Return the points at which something of a transaction is put back, in their order."""
    return [point for point in ORDER if point == FILES or _needs(point, snapshot)]


def _needs(point: str, snapshot: Any) -> bool:
    return bool(snapshot) and point in HOOKS and bool(_load(HOOKS[point]).needed(snapshot))


def put_back(point: str, system: System, snapshot: Any) -> list[str]:
    """Put back what belongs to a later point; return what could not be."""
    try:
        left: list[str] = _load(HOOKS[point]).put_back(system, snapshot)
    except Exception as error:
        # One server that does not answer must not keep the others from being put right.
        return [f"{point}: {type(error).__name__}: {error}"]
    return left


def _load(module: str) -> Any:
    __import__(module)
    return sys.modules[module]
