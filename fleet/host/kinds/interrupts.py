"""Which CPUs a NIC's queues interrupt (Linux, core-api/irq/irq-affinity).

Queues are numbered as their driver names their interrupts. What belongs to no queue, a NIC's link
and its configuration, is left alone.
"""

from __future__ import annotations

import posix

from fleet.host.change import HostError
from fleet.host.kernel import cpus
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]
    #: CPUs as a list, by the interrupt's number.
    Affinity = dict[str, str]

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import DeviceName, Number, NumberSet

    #: What a resource is called.
    NAME = DeviceName

#: A bare text means the CPUs over which queues are spread.
SHORT = "cpus"


@spec
class Interrupts:
    """The CPUs of one NIC's queues: one each of ``cpus``, or as ``queues`` says."""

    #: ``local`` is the CPUs of the NIC's NUMA node; the empty text is none but those of queues.
    cpus: NumberSet | Literal["local"] = ""
    #: CPUs by the queue's number: all of a queue's interrupts, rx and tx.
    queues: dict[Number, NumberSet] | None = None

    def __post_init__(self) -> None:
        """Refuse to name nothing; the controller alone comes here."""
        if not self.cpus and not self.queues:
            raise ValueError("name cpus, over which queues are spread, or queues")


SPEC = Interrupts

_IRQ = "/proc/irq"
#: How drivers call a queue's interrupt: ``eth0-TxRx-3``, ``virtio4-input.0``, ``mlx5_comp3``.
_QUEUES = ("txrx", "rx", "tx", "input", "output", "comp", "fp", "queue", "q")


def queue_of(action: str) -> str:
    """Return the queue that an interrupt belongs to, by its name, empty for none."""
    name = action.partition("@")[0]
    number = name[len(name.rstrip("0123456789")) :]
    word = name[: len(name) - len(number)].rstrip("-._").lower()
    return number if number and word.endswith(_QUEUES) else ""


def read(system: System, device: str) -> Words:
    """Return a NIC's interrupts by their numbers, those of queues alone.

    Each has its ``name``, its ``queue``'s number and its ``cpus``.
    """
    place = f"{system.root}/sys/class/net/{device}/device"
    numbers: list[str] = []
    for folder in (place, place + "/.."):  # a virtio NIC's are its PCI device's
        try:
            numbers = posix.listdir(folder + "/msi_irqs")
        except OSError:
            continue
        break
    actions = _actions(system) if numbers else {}
    found = {}
    for number in sorted(numbers, key=int):
        name = actions.get(number, "")
        queue = queue_of(name)
        if queue:
            said = cpus.words(cpus.members((system.read(_path(number)) or "").strip()))
            found[number] = {"name": name, "queue": queue, "cpus": said}
    return found


def _actions(system: System) -> dict[str, str]:
    """Return the name of each interrupt's handler."""
    lines = (system.read("/proc/interrupts") or "").splitlines()
    words = (line.split() for line in lines if line.lstrip()[:1].isdigit())
    return {each[0].rstrip(":"): each[-1] for each in words}


def _path(number: str) -> str:
    return f"{_IRQ}/{number}/smp_affinity_list"


def _local(system: System, device: str) -> str:
    place = f"/sys/class/net/{device}/device"
    said = system.read(place + "/local_cpulist") or system.read(place + "/../local_cpulist") or ""
    return said.strip()


def names(observation: Observation) -> list[str]:
    """Return nothing: drivers and irqbalance choose, and only what intent names matters."""
    return []


def observe(observation: Observation, name: str) -> Words | None:
    """Return the CPUs of a NIC's queues as intent would write them."""
    queues: dict[str, str] = {}
    for each in _seen(observation, name).values():
        queues.setdefault(each["queue"], each["cpus"])
    return {"queues": queues} if queues else None


def original(resource: Resource, observation: Observation) -> Words | None:
    """Return the CPUs of each interrupt before fleet came, by its name: a queue may have two."""
    device = device_of(observation, resource.name)
    if device not in observation.links:
        return None
    return {"named": {e["name"]: e["cpus"] for e in _seen(observation, device).values()}}


def _seen(observation: Observation, device: str) -> Words:
    found: Words = observation.once(f"interrupts {device}", lambda system: read(system, device))
    return found


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that gives a NIC's queues their CPUs; raises HostError for one that the
    host has not, and where irqbalance would move them again."""
    device = device_of(observation, resource.name)
    steps = Steps(resource, device)
    wanted = decode(Interrupts, resource.spec)
    _check(resource, wanted, device, observation)
    have = _seen(observation, device) if device in observation.links else {}
    if not have:
        # A driver asks for its interrupts when its NIC comes up.
        if not (observation.links.get(device) or {}).get("up"):
            steps.add("affinity", None, _said(wanted), requires=(f"up:{device}",))
            return steps.changes
        raise HostError(
            resource.key,
            f"interrupts of {device}'s queues",
            "its driver has none that are named by queue",
            f"look at /proc/interrupts; take {resource.key} away",
        )
    chosen = choose(_said(wanted), have, _local_of(observation, device))
    missing = sorted(set(wanted.queues or {}) - {each["queue"] for each in have.values()})
    if missing:
        most = max((each["queue"] for each in have.values()), key=int)
        raise HostError(
            resource.key,
            f"a queue {missing[0]} of {device}",
            f"the last is {most}",
            f"name queues up to {most}, or give {device} more: ethtool -L",
            f"queues.{missing[0]}",
        )
    changed = {n: value for n, value in chosen.items() if have[n]["cpus"] != value}
    if changed:
        steps.add(
            "affinity",
            {have[n]["queue"]: have[n]["cpus"] for n in changed},
            _said(wanted),
            touches=(device, *(f"value:{_path(number)}" for number in changed)),
        )
    return steps.changes


def again(resource: Resource, observation: Observation) -> Change:
    """Return the change that places the interrupts of queues which a driver is about to make."""
    device = device_of(observation, resource.name)
    steps = Steps(resource, device)
    needs = (f"up:{device}",)
    steps.add("affinity", None, _said(decode(Interrupts, resource.spec)), requires=needs)
    return steps.changes[0]


def _said(wanted: Interrupts) -> Words:
    said: Words = {"cpus": wanted.cpus} if wanted.cpus else {}
    return {**said, "queues": dict(wanted.queues)} if wanted.queues else said


def choose(said: Words, have: Words, local: str) -> Affinity:
    """Return the CPUs of each interrupt that ``said`` has something of: intent's words, or
    ``named``, each by its name."""
    if "named" in said:
        back = said["named"]
        return {n: back[each["name"]] for n, each in have.items() if each["name"] in back}
    named: dict[str, str] = dict(said.get("queues") or {})
    if said.get("cpus"):
        whole = cpus.members(local if said["cpus"] == "local" else said["cpus"])
        queues = {int(each["queue"]) for each in have.values()}
        for queue, cpu in cpus.spread(whole, queues).items():
            named.setdefault(str(queue), str(cpu))
    return {n: named[each["queue"]] for n, each in have.items() if each["queue"] in named}


def _local_of(observation: Observation, device: str) -> str:
    found: str = observation.once(f"local {device}", lambda system: _local(system, device))
    return found


def _check(resource: Resource, wanted: Interrupts, device: str, observation: Observation) -> None:
    on: set[int] = observation.once("cpus", cpus.online)
    listed = [*(wanted.queues or {}).values(), wanted.cpus if wanted.cpus != "local" else ""]
    for text in listed:
        lacking = cpus.members(text) - on
        if lacking:
            raise HostError(
                resource.key,
                f"the CPUs {text}",
                f"the host has {cpus.words(on)}",
                "name CPUs that are on",
                "cpus",
            )
    if observation.once("irqbalance", irqbalance):
        raise HostError(
            resource.key,
            "nobody else to place interrupts",
            "irqbalance runs, and would move them again",
            "systemctl disable --now irqbalance, or have it leave them alone: --policyscript",
        )
    if not observation.system.writable(_IRQ + "/default_smp_affinity"):
        raise HostError(
            resource.key,
            "interrupts that are the host's own",
            f"{_IRQ} cannot be written here",
            "take interrupts away: this host shares its kernel with others; a lab of "
            "--backend vm has a kernel for each",
        )


def irqbalance(system: System) -> bool:
    """Say whether an irqbalance runs that nobody told to leave interrupts alone (irqbalance(1))."""
    for name in posix.listdir(system.root + "/proc"):
        if not name.isdigit():
            continue
        try:
            if (system.read(f"/proc/{name}/comm") or "").strip() != "irqbalance":
                continue
            said = system.read(f"/proc/{name}/cmdline") or ""
        except OSError:
            continue  # it has ended meanwhile
        if not any(word in said for word in ("--policyscript", "--banirq", "--banmod")):
            return True
    return False


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that gives the queues the CPUs they had before fleet came."""
    device = device_of(observation, entry.name)
    before = {"named": (entry.before or {}).get("named") or {}}
    have = _seen(observation, device) if device in observation.links else {}
    chosen = choose(before, have, "")
    changed = [number for number, value in chosen.items() if have[number]["cpus"] != value]
    if not changed:
        return []
    steps = Steps(entry, device)
    steps.add(
        "affinity",
        {have[n]["name"]: have[n]["cpus"] for n in changed},
        {"named": {have[n]["name"]: chosen[n] for n in changed}},
        touches=(device, *(f"value:{_path(number)}" for number in changed)),
    )
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Place a NIC's interrupts; raises HostError where the kernel keeps one for itself."""
    device = change.touches[0]
    have = read(system, device)
    for number, value in choose(change.after, have, _local(system, device)).items():
        try:
            system.write(_path(number), value + "\n")
        except OSError as error:
            queue = have[number]["queue"]
            raise HostError(
                change.key,
                f"interrupt {number} of queue {queue} on CPUs {value}",
                f"the kernel refuses it: {error.strerror}",
                "some drivers place theirs for good (managed interrupts): take the queue away",
                "affinity",
            ) from error
