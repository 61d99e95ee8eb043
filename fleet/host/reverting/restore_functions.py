"""Put back a NIC's virtual functions: their number, what each may do, and their drivers."""

from __future__ import annotations

import time

from fleet.host.kernel import binding, functions, pci
from fleet.host.kernel.link_attributes import header
from fleet.host.kernel.netlink import pack_text
from fleet.host.kernel.system import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

#: In this order: a rate may be the VLAN's, an address a trusted function's to change.
_WORDS = (
    "macaddress", "vlan", "qos", "protocol", "min-tx-rate", "max-tx-rate", "spoofchk", "state",
    "trust",
)  # fmt: skip
_NO_ADDRESS = "00:00:00:00:00:00"
_LOOK = 0.05


def read_functions(system: System, device: str, link: Record | None) -> Record | None:
    """Return a NIC's functions, None where there is no such NIC, or it cannot have any."""
    if link is None:
        return None
    address = binding.target_of(system, f"/sys/class/net/{device}/device")
    try:
        return functions.read(system, device, address) if address else None
    except OSError:
        return None


def function_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return what of a NIC's functions is not as it was, by the NIC, as (then, now)."""
    found = {}
    for device, then in snapshot["functions"].items():
        have = now["functions"].get(device)
        if then is None or have is None:
            continue  # a device that is not there is a difference of its own
        before, after = _changed(then, have)
        if before:
            found[device] = (before, after)
    return found


def _changed(then: Record, have: Record) -> tuple[Record, Record]:
    words = [word for word in ("count", "mode", "autoprobe") if then[word] != have[word]]
    before, after = {w: then[w] for w in words}, {w: have[w] for w in words}
    for index, each in then["functions"].items():
        other = have["functions"].get(index) or {}
        wrong = [word for word in _kept(each) if each[word] != other.get(word)]
        if wrong:
            before[index] = {word: each[word] for word in wrong}
            after[index] = {word: other.get(word) for word in wrong}
    return before, after


def _kept(each: Record) -> list[str]:
    """The words of a function that are somebody's: an address that nobody gave is its driver's."""
    words = [word for word in (*_WORDS, "driver", "override") if word in each]
    return [w for w in words if w != "macaddress" or each[w] != _NO_ADDRESS]


def restore_functions(step: Step) -> None:
    """Make each NIC's functions what they were; their devices follow with their drivers."""
    for device, (changed, _) in function_differences(step.then, step.now).items():
        then, have = step.then["functions"][device], step.now["functions"][device]
        address, system = then["address"], step.system
        if "mode" in changed:
            step.attempt("functions", device, _set_mode, system, have, then["mode"])
        if "count" in changed:
            arguments = (system, address, then["count"], then["autoprobe"])
            step.attempt("functions", device, functions.set_count, *arguments)
        elif "autoprobe" in changed:
            step.attempt(
                "functions", device, functions.set_autoprobe, system, address, then["autoprobe"]
            )
        now = functions.read(system, device, address) or have
        for index, each in then["functions"].items():
            if index in now["functions"]:
                _restore(step, device, index, each, now["functions"][index])
        each = then["functions"].values()
        await_devices(system, {f["address"]: f["devices"][0] for f in each if f["devices"]})


def _set_mode(system: System, have: Record, mode: str) -> None:
    for each in have["functions"].values():
        binding.unbind(system, each["address"])
    functions.write_mode(system, have["address"], mode)


def _restore(step: Step, device: str, index: str, then: Record, now: Record) -> None:
    for word in _WORDS:
        if word in then and then[word] != now.get(word):
            arguments = (step.system, device, int(index), word, then)
            step.attempt("functions", device, functions.write, *arguments)
    if (then["driver"], then["override"]) != (now["driver"], now["override"]):
        own = (now["address"], then["driver"], then["override"])
        step.attempt("functions", device, binding.bind, step.system, *own)


def await_devices(system: System, wanted: dict[str, str]) -> None:
    """Wait for the network devices of PCI devices, which their drivers make and udev names.

    ``wanted`` has the names by PCI address. Where nobody names them, a namespace without udev, they
    get their names here.
    """
    end = time.monotonic() + functions.budget(len(wanted))
    left = dict(wanted)
    while left:
        late = time.monotonic() >= end
        for address, name in list(left.items()):
            if name in pci.network_devices(system, address):
                del left[address]
        if late or not left:
            break
        time.sleep(_LOOK)
    for address, name in left.items():
        made = pci.network_devices(system, address)
        if made and not exists(f"{system.root}/sys/class/net/{name}"):
            ask = header.pack(0, 0, _index(system, made[0]), 0, 0) + pack_text(3, name)
            try:
                system.netlink.request(functions.SETLINK, 0, ask)
            except OSError:
                pass  # the links' own part says what is missing


def _index(system: System, device: str) -> int:
    return int(system.read(f"/sys/class/net/{device}/ifindex") or 0)
