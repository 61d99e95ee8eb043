"""Where a guest's threads run and its memory is: libvirt's cputune and numatune, in plain words.

Pins are ``{"vcpus": {number: set}, "emulator": set, "iothreads": {number: set}, "memory": (mode,
nodes)}``, each set of CPUs in libvirt's form (``0-3,8``), empty for all.
"""

from __future__ import annotations

from fleet.host.kernel.cpus import members, words
from fleet.host.virtual import tree
from fleet.host.virtual.networks import virsh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Pins = dict[str, Any]

CPUS, NODES = "/sys/devices/system/cpu/present", "/sys/devices/system/node/online"
#: Elements of cputune that are pins; what else is there (shares, quotas) stays.
_PINS = ("vcpupin", "emulatorpin", "iothreadpin")


def of(parts: dict[str, Any]) -> Pins:
    """Return the pins among a guest's parts."""
    found: Pins = {"vcpus": {}, "emulator": "", "iothreads": {}, "memory": ("", "")}
    tuned = tree.parse(parts["cputune"])["children"] if parts["cputune"] else []
    for each in tuned:
        attributes = each["attributes"]
        if each["tag"] in _PINS:
            cpus = words(members(attributes["cpuset"]))
            if each["tag"] == "vcpupin":
                found["vcpus"][attributes["vcpu"]] = cpus
            elif each["tag"] == "iothreadpin":
                found["iothreads"][attributes["iothread"]] = cpus
            else:
                found["emulator"] = cpus
    if parts["numatune"]:
        memory = tree.child(tree.parse(parts["numatune"]), "memory")
        if memory is not None:
            attributes = memory["attributes"]
            nodes = words(members(attributes.get("nodeset", "")))
            found["memory"] = (attributes.get("mode", "strict"), nodes)
    return found


def overlaid(now: Pins, wanted: Pins) -> Pins:
    """Return pins with those that are wanted; what is not named stays."""
    return {
        "vcpus": {**now["vcpus"], **wanted["vcpus"]},
        "iothreads": {**now["iothreads"], **wanted["iothreads"]},
        "emulator": wanted["emulator"] or now["emulator"],
        "memory": tuple(wanted["memory"]) if wanted["memory"][1] else now["memory"],
    }


def differing(now: Pins, wanted: Pins) -> list[tuple[str, Any, Any]]:
    """Return where pins differ, by path: ``vcpus.0``, ``emulator``, ``memory``."""
    found = []
    for key in ("vcpus", "iothreads"):
        for number in sorted({*now[key], *wanted[key]}, key=int):
            have, want = now[key].get(number), wanted[key].get(number)
            if have != want:
                found.append((f"{key}.{number}", have, want))
    for key in ("emulator", "memory"):
        if now[key] != wanted[key]:
            pair = [
                v if isinstance(v, str) else " ".join(v).strip() for v in (now[key], wanted[key])
            ]
            found.append((key, pair[0] or None, pair[1] or None))
    return found


def written(parts: dict[str, Any], wanted: Pins) -> dict[str, Any]:
    """Return a guest's parts with such pins."""
    tuned = tree.parse(parts["cputune"] or "<cputune/>")
    rest = [each for each in tuned["children"] if each["tag"] not in _PINS]
    pinned = [
        _element("vcpupin", vcpu=number, cpuset=cpus) for number, cpus in wanted["vcpus"].items()
    ]
    if wanted["emulator"]:
        pinned.append(_element("emulatorpin", cpuset=wanted["emulator"]))
    pinned += [
        _element("iothreadpin", iothread=number, cpuset=cpus)
        for number, cpus in wanted["iothreads"].items()
    ]
    tuned["children"] = [*rest, *pinned]
    placed = tree.parse(parts["numatune"] or "<numatune/>")
    mode, nodes = wanted["memory"]
    if nodes:
        others = [each for each in placed["children"] if each["tag"] != "memory"]
        placed["children"] = [_element("memory", mode=mode, nodeset=nodes), *others]
    return {
        **parts,
        "cputune": tree.write(tuned) if tuned["children"] else "",
        "numatune": tree.write(placed) if placed["children"] else "",
    }


def _element(tag: str, **attributes: str) -> dict[str, Any]:
    return {"tag": tag, "attributes": attributes, "text": "", "children": []}


def effective(parts: dict[str, Any]) -> Pins:
    """Return the pins that keep a thread from where an unpinned one may run."""
    found, free = of(parts), words(members(parts.get("free") or ""))
    for key in ("vcpus", "iothreads"):
        found[key] = {number: cpus for number, cpus in found[key].items() if cpus != free}
    found["emulator"] = "" if found["emulator"] == free else found["emulator"]
    return found


def put(system: System, name: str, wanted: dict[str, Any], now: dict[str, Any]) -> None:
    """Pin the threads of a running guest as its parts were, where they are not so.

    Memory stays where it is: libvirt moves it at the guest's next start. Raises CommandError.
    """
    pin(system, name, effective(wanted), effective(now), wanted["free"])


def pin(system: System, name: str, wanted: Pins, now: Pins, free: str) -> None:
    """Pin the threads of a running guest; ``free`` are the CPUs of one with no pin."""
    for key, command in (("vcpus", "vcpupin"), ("iothreads", "iothreadpin")):
        for number in {**now[key], **wanted[key]}:
            if now[key].get(number) != wanted[key].get(number):
                cpus = wanted[key].get(number) or free
                virsh(system, command, name, number, cpus, "--live")
    if now["emulator"] != wanted["emulator"]:
        virsh(system, "emulatorpin", name, wanted["emulator"] or free, "--live")


def present(system: System, path: str) -> str:
    """Return the numbers of CPUs or memory nodes that a host has, in libvirt's form."""
    return words(members((system.read(path) or "0").strip()))


def near(system: System, device: str) -> tuple[str, str]:
    """Return the CPUs and the memory node next to a NIC, the node empty where there is only one.

    The CPUs are empty where the device is on no bus.
    """
    place = f"/sys/class/net/{device}/device/"
    cpus, node = (system.read(place + name) for name in ("local_cpulist", "numa_node"))
    number = (node or "-1").strip()
    return words(members((cpus or "").strip())), number if number.isdigit() else ""
