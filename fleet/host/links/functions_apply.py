"""Carry out the changes of a NIC's virtual functions."""

from __future__ import annotations

import errno

from fleet.host.change import HostError
from fleet.host.kernel import binding, functions
from fleet.host.kernel.observation import Observation
from fleet.host.links.held import require_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

    Words = dict[str, Any]

#: How the kernel refuses what a driver does not have.
_LACKS = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT)


def apply(system: System, change: Change) -> None:
    """Carry out one change; raises HostError with the driver's refusal."""
    device = change.touches[0]
    address = Observation(system).links[device]["pci_address"]
    head, _, rest = change.what.partition(".")
    index, _, word = rest.partition(".")
    try:
        have = functions.read(system, device, address) or {}
        if head == "virtual-function-count":
            require_free(system, change, _handles(have))
            functions.set_count(system, address, change.after, have["autoprobe"])
        elif head == "embedded-switch-mode":
            require_free(system, change, _handles(have))
            _mode(system, address, change.after, have["functions"])
        elif rest == "driver":
            for each in have["functions"].values():
                if not each["override"]:
                    binding.probe(system, each["address"])
        elif word == "driver":
            _drive(system, have["functions"][index]["address"], change.after)
        else:
            _set(system, change, device, index, have["functions"][index])
    except OSError as error:
        raise _refusal(change, device, error) from error


def _handles(have: Words) -> list[str]:
    return [handle for each in have["functions"].values() for handle in each["handles"]]


def _set(system: System, change: Change, device: str, index: str, have: Words) -> None:
    wanted = {**have, **change.after}
    done: set[str] = set()
    for word, value in change.after.items():
        together = {"vlan", "qos", "protocol"} if word in ("vlan", "qos", "protocol") else {word}
        if word in ("min-tx-rate", "max-tx-rate"):
            together = {"min-tx-rate", "max-tx-rate"}
        if word in done:
            continue
        done |= together
        try:
            functions.write(system, device, int(index), word, wanted)
        except OSError as error:
            said = {each: change.after[each] for each in change.after if each in together}
            raise _refusal(change, device, error, said or {word: value}) from error


def _drive(system: System, address: str, driver: str) -> None:
    """Only what no table of ids names needs its name in the override for good."""
    binding.bind(system, address, driver, driver if driver == "vfio-pci" else "")


def _mode(system: System, address: str, mode: str, each: Words) -> None:
    """mlx5, ice and others refuse another mode while functions have drivers."""
    bound = [function for function in each.values() if function["driver"]]
    for function in bound:
        binding.unbind(system, function["address"])
    try:
        functions.write_mode(system, address, mode)
    finally:
        for function in bound:
            place = function["address"]
            binding.bind(system, place, function["driver"], function["override"])


def _refusal(change: Change, device: str, error: OSError, said: Words | None = None) -> HostError:
    after = said or change.after
    words = ", ".join(f"{w} {v}" for w, v in after.items()) if isinstance(after, dict) else after
    return HostError(
        change.key,
        f"{device} to take {change.what} {words}",
        str(error.strerror or error),
        f"take {' and '.join(after)} away: the driver does not have it"
        if isinstance(after, dict) and error.errno in _LACKS
        else "look at dmesg and at ip -d link show " + device,
        change.what,
    )
