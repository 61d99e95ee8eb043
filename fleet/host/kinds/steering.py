"""Which CPUs work on a device's packets (Linux, networking/scaling): RPS, RFS and XPS.

A value for all queues, and ``queues`` for single ones by the kernel's names, ``rx-0`` and ``tx-0``.
"""

from __future__ import annotations

import posix

from fleet.host.change import HostError
from fleet.host.kernel import cpus
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]
    #: What is to be in the files, by queue and word.
    Values = dict[str, dict[str, Any]]

if not ON_HOST:
    from typing import Annotated

    from fleet.host.fields import Bound, DeviceName
    from fleet.host.machine_fields import CPUsOrNone, QueueName

    #: What a resource is called.
    NAME = DeviceName


@spec
class Queue:
    """What works on one queue's packets; ``none`` is the CPU that the queue interrupts."""

    rps_cpus: CPUsOrNone | None = None
    #: How many flows a queue keeps (RFS); the kernel rounds up to a power of two.
    rps_flow_cnt: Annotated[int, Bound(0, 1 << 24)] | None = None
    xps_cpus: CPUsOrNone | None = None


@spec
class Steering(Queue):
    """The same of all queues of a device, and of single ones."""

    queues: dict[QueueName, Queue] | None = None

    def __post_init__(self) -> None:
        """Refuse what is of the other direction; the controller alone comes here."""
        for name, queue in (self.queues or {}).items():
            other = (
                queue.xps_cpus if name.startswith("rx") else queue.rps_cpus or queue.rps_flow_cnt
            )
            if other is not None:
                raise ValueError(f"{name}: rps is of receive queues, xps of transmit queues")


SPEC = Steering

#: Each word's direction.
_WORDS = {"rps-cpus": "rx-", "rps-flow-cnt": "rx-", "xps-cpus": "tx-"}


def path_of(device: str, queue: str, word: str) -> str:
    """Return the file of one word of a queue."""
    return f"/sys/class/net/{device}/queues/{queue}/{word.replace('-', '_')}"


def read(system: System, device: str) -> Values:
    """Return what each queue of a device has, in intent's words, without what it cannot have."""
    try:
        queues = posix.listdir(f"{system.root}/sys/class/net/{device}/queues")
    except OSError:
        return {}
    found: Values = {}
    for queue in sorted(queues, key=lambda name: (name[:2], int(name[3:]))):
        found[queue] = {}
        for word, start in _WORDS.items():
            if not queue.startswith(start):
                continue
            try:
                said = system.read(path_of(device, queue, word))
            except OSError:
                continue  # of a device with one transmit queue there is nothing to choose
            if said is not None:
                found[queue][word] = _value(word, said.strip())
    return found


def _value(word: str, said: str) -> Any:
    if word == "rps-flow-cnt":
        return int(said)
    return cpus.words(cpus.of_mask(said)) or "none"


def names(observation: Observation) -> list[str]:
    """Return nothing: only what intent names matters."""
    return []


def observe(observation: Observation, name: str) -> Words | None:
    """Return a device's queues as intent would write them."""
    found = _seen(observation, name)
    return {"queues": found} if found else None


def _seen(observation: Observation, device: str) -> Values:
    found: Values = observation.once(f"steering {device}", lambda system: read(system, device))
    return found


def wanted_of(data: Words, have: Values) -> Values:
    """Return what each queue that there is shall have."""
    said = encode(decode(Steering, data))
    single = said.pop("queues", None) or {}
    every = {dashed(word): value for word, value in said.items() if value is not None}
    found: Values = {}
    for queue in have:
        own = {w: v for w, v in every.items() if queue.startswith(_WORDS[w])}
        own |= {dashed(w): v for w, v in (single.get(queue) or {}).items() if v is not None}
        if own:
            found[queue] = {word: _rounded(word, value) for word, value in own.items()}
    return found


def _rounded(word: str, value: Any) -> Any:
    """store_rps_dev_flow_table_cnt(): roundup_pow_of_two()."""
    return 1 << (value - 1).bit_length() if word == "rps-flow-cnt" and value else value


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return a change for each queue that is not as its spec says; raises HostError for queues and
    CPUs that the host has not."""
    device = device_of(observation, resource.name)
    steps = Steps(resource, device)
    spec_ = resource.spec or {}
    _check(resource, spec_, observation)
    if device not in observation.links:
        steps.add("queues", None, spec_)
        return steps.changes
    have = _seen(observation, device)
    absent = sorted(set(spec_.get("queues") or {}) - set(have))
    if absent:
        raise HostError(
            resource.key,
            f"a queue {absent[0]} of {device}",
            f"it has {', '.join(have) or 'none here'}",
            f"name one of these, or give {device} more: ethtool -L",
            f"queues.{absent[0]}",
        )
    _steps(steps, device, wanted_of(spec_, have), have)
    return steps.changes


def _steps(steps: Steps, device: str, wanted: Values, have: Values) -> None:
    for queue, words in wanted.items():
        lacking = [word for word in words if word not in have[queue]]
        if lacking:
            raise HostError(
                steps.resource.key,
                f"{lacking[0]} of {queue}",
                f"{device} has one such queue, or its kernel has no such thing",
                f"take {lacking[0]} away",
                f"queues.{queue}",
            )
        changed = {word: value for word, value in words.items() if have[queue][word] != value}
        if changed:
            steps.add(
                f"queues.{queue}",
                {word: have[queue][word] for word in changed},
                changed,
                touches=(device, *(f"value:{path_of(device, queue, word)}" for word in changed)),
            )


def _check(resource: Resource, data: Words, observation: Observation) -> None:
    on: set[int] = observation.once("cpus", cpus.online)
    each = [data, *(data.get("queues") or {}).values()]
    for text in (words.get(word) for words in each for word in ("rps_cpus", "xps_cpus")):
        lacking = cpus.members(text) - on if text and text != "none" else set()
        if lacking:
            raise HostError(
                resource.key,
                f"the CPUs {text}",
                f"the host has {cpus.words(on)}",
                "name CPUs that are on",
            )
    if resource.namespace:
        raise HostError(
            resource.key,
            "a device of the host's own namespace",
            f"it is in {resource.namespace}, whose /sys nothing shows",
            "take steering away from the namespace",
        )


def again(resource: Resource, observation: Observation) -> Change:
    """Return the change for queues which a driver is about to make."""
    steps = Steps(resource, device_of(observation, resource.name))
    steps.add("queues", None, resource.spec)
    return steps.changes[0]


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the changes that give the queues what they had before fleet came."""
    device = device_of(observation, entry.name)
    before: Values = (entry.before or {}).get("queues") or {}
    if device not in observation.links:
        return []
    have = _seen(observation, device)
    named = wanted_of(entry.spec or {}, have)
    wanted = {
        queue: {word: before[queue][word] for word in words if word in before.get(queue, {})}
        for queue, words in named.items()
    }
    steps = Steps(entry, device)
    _steps(steps, device, wanted, have)
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Write what a queue shall have; raises HostError where the kernel refuses it."""
    device = change.touches[0]
    queue = change.what.partition(".")[2]
    have = read(system, device)
    wanted = {queue: change.after} if queue else wanted_of(change.after, have)
    for name, words in wanted.items():
        for word, value in words.items():
            said = (
                cpus.mask(cpus.members(value) if value != "none" else ())
                if "cpus" in word
                else value
            )
            try:
                system.write(path_of(device, name, word), f"{said}\n")
            except OSError as error:
                raise HostError(
                    change.key,
                    f"{name} to take {word} {value}",
                    f"the kernel refuses it: {error.strerror}",
                    "CPUs that are isolated from the kernel's work (nohz_full) take none",
                    f"queues.{name}",
                ) from error
