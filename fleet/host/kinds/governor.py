"""How the CPUs choose their frequency (Linux, admin-guide/pm/cpufreq): for all, or for some."""

from __future__ import annotations

import posix

from fleet.host.change import HostError
from fleet.host.kernel import cpus
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

if not ON_HOST:
    from fleet.host.fields import Word
    from fleet.host.machine_fields import CPUs

    #: What a resource is called: ``all``, or a list such as ``0-3,8``.
    NAME = CPUs

#: A bare text is the governor.
SHORT = "governor"
_PLACE = "/sys/devices/system/cpu"


@spec
class Governor:
    """The governor of some CPUs: ``performance``, ``schedutil``, ``powersave``."""

    #: The empty text says that it has to be named.
    governor: Word = ""

    def __post_init__(self) -> None:
        """Refuse CPUs without a governor; the controller alone comes here."""
        if not self.governor:
            raise ValueError("name a governor, such as performance")


SPEC = Governor


def path_of(cpu: int) -> str:
    """Return the file of a CPU's governor."""
    return f"{_PLACE}/cpu{cpu}/cpufreq/scaling_governor"


def read(system: System) -> Words:
    """Return ``cpus``, the governor of each that has one, and ``known``, those it may have."""
    found: dict[str, str] = {}
    known: set[str] = set()
    for name in posix.listdir(system.root + _PLACE):
        if name[:3] != "cpu" or not name[3:].isdigit():
            continue
        said = system.read(path_of(int(name[3:])))
        if said is not None:
            found[name[3:]] = said.strip()
            listed = system.read(f"{_PLACE}/{name}/cpufreq/scaling_available_governors") or ""
            known |= set(listed.split())
    return {"cpus": found, "known": sorted(known)}


def _seen(observation: Observation) -> Words:
    found: Words = observation.once("governors", read)
    return found


def names(observation: Observation) -> list[str]:
    """Return ``all`` where the CPUs have one governor, and none where they differ."""
    return ["all"] if len(set(_seen(observation)["cpus"].values())) == 1 else []


def observe(observation: Observation, name: str) -> Words | None:
    """Return the governor of some CPUs, None where they have none or differ."""
    have = _of(name, _seen(observation)["cpus"])
    return {"governor": next(iter(have.values()))} if len(set(have.values())) == 1 else None


def original(resource: Resource, observation: Observation) -> Words | None:
    """Return the governor that each CPU had before fleet came."""
    return {"cpus": _of(resource.name, _seen(observation)["cpus"])}


def _of(name: str, have: dict[str, str]) -> dict[str, str]:
    if name == "all":
        return dict(have)
    return {str(n): have[str(n)] for n in cpus.members(name) if str(n) in have}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that gives CPUs their governor; raises HostError where they have none."""
    wanted = decode(Governor, resource.spec).governor
    seen = _seen(observation)
    have = _of(resource.name, seen["cpus"])
    if not have:
        raise HostError(
            resource.key,
            "CPUs whose frequency the kernel sets",
            "they have no governor: no driver of cpufreq",
            "take governors away; a virtual machine, or firmware that keeps it, has none",
        )
    absent = [] if resource.name == "all" else cpus.members(resource.name) - {*map(int, have)}
    if absent:
        raise HostError(
            resource.key,
            f"the CPUs {resource.name}",
            f"only {cpus.words(map(int, seen['cpus']))} have a governor",
            "name these",
        )
    if seen["known"] and wanted not in seen["known"]:
        raise HostError(
            resource.key,
            f"the governor {wanted}",
            f"the driver has {', '.join(seen['known'])}",
            "name one of these",
            "governor",
        )
    return _change(resource, have, dict.fromkeys(have, wanted), observation)


def _change(
    resource: Resource | Entry, have: Words, wanted: dict[str, str], observation: Observation
) -> list[Change]:
    changed = {cpu: value for cpu, value in wanted.items() if have.get(cpu) not in (None, value)}
    if not changed:
        return []
    paths = [path_of(int(cpu)) for cpu in sorted(changed, key=int)]
    if not observation.system.writable(paths[0]):
        raise HostError(
            resource.key,
            "CPUs that are the host's own",
            f"{paths[0]} cannot be written here",
            "take governors away: this host shares its kernel with others",
        )
    steps = Steps(resource)
    steps.add(
        "governor",
        _short({cpu: have[cpu] for cpu in changed}),
        _short(changed),
        touches=tuple(f"value:{path}" for path in paths),
    )
    return steps.changes


def _short(each: dict[str, str]) -> Words:
    """Return CPUs by their governor, as lists."""
    words: dict[str, list[int]] = {}
    for cpu, governor in each.items():
        words.setdefault(governor, []).append(int(cpu))
    return {governor: cpus.words(numbers) for governor, numbers in words.items()}


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that gives CPUs the governors they had before fleet came."""
    have = _seen(observation)["cpus"]
    return _change(entry, have, (entry.before or {}).get("cpus") or {}, observation)


def apply(system: System, change: Change) -> None:
    """Give each CPU its governor; raises HostError where its driver does not take it."""
    for governor, numbers in change.after.items():
        for cpu in sorted(cpus.members(numbers)):
            try:
                system.write(path_of(cpu), governor + "\n")
            except OSError as error:
                raise HostError(
                    change.key,
                    f"CPU {cpu} to take the governor {governor}",
                    f"the kernel refuses it: {error.strerror}",
                    f"look at {path_of(cpu)}",
                    "governor",
                ) from error
