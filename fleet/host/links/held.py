"""Who holds a device through vfio, by the files that lead to it."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.guests import files_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System

    Words = dict[str, Any]

_START = "/dev/vfio/"


def holders(observation: Observation, handles: Iterable[str]) -> list[Words]:
    """Return who has one of these files open, in the words of ``guests.files_held``."""
    handles = list(handles)
    if not handles:
        return []
    held = observation.root.once("vfio", lambda system: files_held(system, _START))
    return [holder for handle in handles for holder in held.get(handle, ())]


def require_free(system: System, change: Change, handles: Iterable[str]) -> None:
    """Refuse while a process drives one of these: the kernel would wait for it, with the device
    locked, for as long as the guest runs (vfio_unregister_group_dev, drivers/vfio).
    """
    handles = set(handles)
    if not handles:
        return
    held = files_held(system, _START)
    for handle in sorted(handles & held.keys()):
        for holder in held[handle]:
            if holder["drives"]:
                raise HostError(
                    change.key,
                    "a device that no process drives",
                    f"{holder['guest']} ({holder['pid']}) has {handle} open",
                    "shut the guest down, or detach its device: virsh detach-device",
                    change.what,
                )
