"""Put back the interfaces and pins of libvirt's guests: as they ran, and as they will start.

Only these parts of a guest are in a snapshot: what else its definition says is not read, and stays.
"""

from __future__ import annotations

from fleet.host.kernel.system import CommandError
from fleet.host.virtual import guests, networks, pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

#: Where libvirt's QEMU driver keeps its definitions (src/qemu/qemu_conf.c).
FOLDER = "/etc/libvirt/qemu"


def read_guests(system: System, names: list[str]) -> Record:
    """Return the parts of guests by name, None for one that is not there, else ``error``."""
    found: Record = {}
    every = pins.present(system, pins.CPUS)
    for name in names:
        try:
            book = guests.read(system, name)
        except CommandError as error:
            found[name] = {"error": networks.reason_of(error)}
            continue
        found[name] = book and {form: guests.parts(text, every) for form, text in book.items()}
    return found


def guest_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return the guests that are not what they were, as (then, now) by name.

    One that was shut down, started, defined or deleted meanwhile is so by another's will.
    """
    found = {}
    for name in snapshot["scope"].get("guests") or ():
        then, have = snapshot["guests"].get(name), now["guests"].get(name)
        if have and "error" in have:
            found[name] = (then, have)
        elif then and have and "error" not in then:
            forms = [form for form in ("live", "config") if then[form] and have[form]]
            if not all(guests.same(then[form], have[form]) for form in forms):
                found[name] = (then, have)
    return found


def restore_guests(step: Step) -> None:
    """Make the guests of the scope what they were."""
    for name, (then, have) in guest_differences(step.then, step.now).items():
        if then and "error" not in have:
            step.attempt("guests", name, guests.put, step.system, name, then, have)


def put_back(system: System, snapshot: Record) -> list[str]:
    """Write guests' files as they were, before libvirt starts; return what could not be."""
    from fleet.host.reverting.restore_networks import put_file

    left = []
    for name, then in (snapshot.get("guests") or {}).items():
        if not then or not then.get("config"):
            continue
        path = f"{FOLDER}/{name}.xml"
        try:
            text = system.read(path)
            had = guests.parts(text) if text else None
            if text and had is not None and not guests.same(had, then["config"]):
                put_file(system.root + path, guests.with_parts(text, then["config"]))
        except (OSError, ValueError, LookupError) as error:
            left.append(f"the guest {name} of libvirt: {error}")
    return left
