"""Put back libvirt's networks and filters: what was defined, what ran, what starts by itself.

libvirt keeps its books at once, so the old documents are in the snapshot before the first change.
At a boot nothing runs yet and libvirt is not there: its files are what is put back.
"""

from __future__ import annotations

from fleet.host.kernel.system import CommandError
from fleet.host.reverting import restore_guests
from fleet.host.virtual import filters, networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

#: Where libvirt's network driver keeps its definitions (src/network/bridge_driver.c).
FOLDER = "/etc/libvirt/qemu/networks"
#: And its filter driver (src/nwfilter/nwfilter_driver.c).
FILTERS = "/etc/libvirt/nwfilter"


def read_networks(system: System, names: list[str]) -> Record:
    """Return the books of networks by name, None for one that is not there.

    One that cannot be read is an ``error``: what hangs in libvirt keeps nothing else from going
    back.
    """
    try:
        known = networks.listing(system)
        return {name: networks.read(system, name, known) for name in names}
    except CommandError as error:
        return {name: {"error": networks.reason_of(error)} for name in names}


def network_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return the networks that are not what they were, as (then, now) by name."""
    found = {}
    for name in snapshot["scope"].get("networks") or ():
        then, have = snapshot["networks"].get(name), now["networks"].get(name)
        if then is None or have is None or "error" in have:
            if then is not have:
                found[name] = (then, have)
        elif (
            then["autostart"] != have["autostart"]
            or not networks.same(then["defined"], have["defined"])
            or not networks.same(then["running"], have["running"])
        ):
            found[name] = (then, have)
    return found


def read_filters(system: System, names: list[str]) -> Record:
    """Return filters as {"xml"} by name, None for one that is not there, ``error`` as above."""
    if not names:
        return {}
    try:
        known = filters.listing(system)
        texts = {name: filters.read(system, name, known) for name in names}
    except CommandError as error:
        return {name: {"error": networks.reason_of(error)} for name in names}
    return {name: None if text is None else {"xml": text} for name, text in texts.items()}


def filter_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return the filters that are not what they were, as (then, now) by name."""
    found = {}
    for name in snapshot["scope"].get("nwfilters") or ():
        then, have = snapshot["nwfilters"].get(name), now["nwfilters"].get(name)
        if then is None or have is None or "error" in have:
            if then is not have:
                found[name] = (then, have)
        elif not filters.same(then["xml"], have["xml"]):
            found[name] = (then, have)
    return found


def restore_networks(step: Step) -> None:
    """Make the filters, the networks and the guests of the scope what they were.

    Guests let go of what is new before it ends, and take what is old after it is back.
    """
    for name, (then, have) in filter_differences(step.then, step.now).items():
        if have is None or "error" not in have:
            texts = (then and then["xml"], have and have["xml"])
            step.attempt("nwfilters", name, filters.put, step.system, name, *texts)
    for name, (then, have) in network_differences(step.then, step.now).items():
        if have is None or "error" not in have:
            step.attempt("networks", name, networks.put, step.system, name, then, have)
            bridge = networks.bridge_of(have["defined"] or have["running"]) if have else ""
            if then is None and bridge in step.then["links"] and not step.then["links"][bridge]:
                # A libvirtd that was killed while it started this knows nothing of what it made.
                step.attempt("networks", name, networks.clear, step.system, name, bridge)
    restore_guests.restore_guests(step)


def needed(snapshot: Record) -> bool:
    """Say whether a boot has to put something of a snapshot back (``transactions.points``)."""
    scope = snapshot.get("scope") or {}
    return any(map(scope.get, ("networks", "nwfilters", "guests")))


def put_back(system: System, snapshot: Record) -> list[str]:
    """Write libvirt's files as they were, before libvirt starts; return what could not be."""
    left = []
    for name, then in snapshot["networks"].items():
        try:
            _put_files(system.root + FOLDER, name, then or {"defined": "", "autostart": False})
        except OSError as error:
            left.append(f"the network {name} of libvirt: {error}")
    for name, then in (snapshot.get("nwfilters") or {}).items():
        try:
            put_file(f"{system.root}{FILTERS}/{name}.xml", then["xml"] if then else "")
        except OSError as error:
            left.append(f"the filter {name} of libvirt: {error}")
    return left + restore_guests.put_back(system, snapshot)


def put_file(place: str, text: str) -> None:
    """Write a definition whole, or take it away where there was none."""
    import os

    if not text:
        if os.path.lexists(place):
            os.unlink(place)
        return
    fresh = f"{place}.fleet"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, place)


def _put_files(folder: str, name: str, then: Record) -> None:
    import os

    place, link = f"{folder}/{name}.xml", f"{folder}/autostart/{name}.xml"
    put_file(place, then["defined"])
    starts = bool(then["defined"] and then["autostart"])
    if os.path.lexists(link) and not starts:
        os.unlink(link)
    elif starts and not os.path.lexists(link):
        os.makedirs(f"{folder}/autostart", exist_ok=True)
        os.symlink(place, link)
