"""Where intent wants a guest's threads and memory, and what of that a host or a guest lacks."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.cpus import members, words
from fleet.host.spec import ON_HOST, spec
from fleet.host.virtual import pins, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.virtual.pins import Pins

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import DeviceName, Number, NumberSet


@spec
class Memory:
    """The memory nodes of a guest."""

    nodes: NumberSet | None = None
    mode: Literal["strict", "preferred", "interleave", "restrictive"] = "strict"


@spec
class Pinning:
    """The CPUs of a guest's threads, and its memory's nodes: what is not named stays as it is."""

    vcpus: dict[Number, NumberSet] | None = None
    emulator: NumberSet | None = None
    iothreads: dict[Number, NumberSet] | None = None
    memory: Memory | None = None
    #: A NIC: what is not named above is next to it.
    near: DeviceName | None = None

    def __post_init__(self) -> None:
        """Refuse memory without a node; the controller alone comes here."""
        if self.memory and not self.memory.nodes:
            raise ValueError("memory names its nodes")


def wanted(words: Pinning, key: str, text: str, observation: Observation) -> Pins:
    """Return the pins that are wanted of a guest; raises HostError for what is not there.

    ``text`` is the guest's document.
    """
    system, cpus, nodes = observation.system, "", ""
    if words.near:
        device = observation.aliases.get(words.near, words.near)
        cpus, nodes = pins.near(system, device)
        if not cpus:
            there = "it is on no bus" if device in observation.links else "there is no such device"
            remedy = "name a physical NIC, or the CPUs"
            raise HostError(key, f"{words.near} to be next to CPUs", there, remedy, "pins.near")
    vcpus, iothreads = _threads(text)
    found: Pins = {
        "vcpus": dict(words.vcpus or (dict.fromkeys(vcpus, cpus) if cpus else {})),
        "emulator": words.emulator or cpus,
        "iothreads": dict(words.iothreads or (dict.fromkeys(iothreads, cpus) if cpus else {})),
        "memory": (words.memory.mode, words.memory.nodes)
        if words.memory
        else ("strict", nodes)
        if nodes
        else ("", ""),
    }
    for name, have in (("vcpus", vcpus), ("iothreads", iothreads)):
        for number in found[name]:
            if number not in have:
                there = f"it has {', '.join(have) or 'none'}"
                remedy = "correct the number, or give the guest one more"
                raise HostError(key, f"a guest with {name} {number}", there, remedy, f"pins.{name}")
    sets = [*found["vcpus"].values(), *found["iothreads"].values(), found["emulator"]]
    _expect(key, "CPU", sets, pins.present(system, pins.CPUS))
    if found["memory"][1]:
        _expect(key, "memory node", [found["memory"][1]], pins.present(system, pins.NODES))
    return found


def _expect(key: str, what: str, sets: list[str], have: str) -> None:
    lacking = set().union(*map(members, sets)) - members(have)
    if lacking:
        raise HostError(
            key,
            f"{what} {words(lacking)}",
            f"this host has {have}",
            "pin to what it has",
            "pins",
        )


def _threads(text: str) -> tuple[list[str], list[str]]:
    """Return the numbers of a guest's vCPUs and I/O threads."""
    root: dict[str, Any] = tree.parse(text)
    vcpu, iothreads = tree.child(root, "vcpu"), tree.child(root, "iothreads")
    count = int(vcpu["text"]) if vcpu else 1
    named = tree.child(root, "iothreadids")
    if named:
        ids = [each["attributes"]["id"] for each in named["children"]]
    else:
        ids = [str(1 + number) for number in range(int(iothreads["text"]) if iothreads else 0)]
    return [str(number) for number in range(count)], ids
