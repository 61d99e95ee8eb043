"""Where hugepages are mounted (Linux, admin-guide/mm/hugetlbpage): for DPDK and guests."""

from __future__ import annotations

import os

from fleet.host.change import CREATE, DELETE, UPDATE, HostError
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

if not ON_HOST:
    from fleet.host.fields import Number
    from fleet.host.machine_fields import FileMode, MountPath, PageSize

    #: What a resource is called.
    NAME = MountPath


@spec
class Mount:
    """One mounted hugetlbfs; what is not named is as the kernel has it."""

    pagesize: PageSize = "2M"
    mode: FileMode | None = None
    uid: Number | None = None
    gid: Number | None = None


SPEC = Mount

_UNITS = {"K": 1, "M": 1 << 10, "G": 1 << 20}


def read(system: System) -> dict[str, Words]:
    """Return the mounted hugetlbfs by their paths, in intent's words."""
    found = {}
    for line in (system.read("/proc/self/mountinfo") or "").splitlines():
        words, _, rest = line.partition(" - ")
        sort, _, options = rest.split(" ", 2)
        if sort == "hugetlbfs":
            said = dict(o.partition("=")[::2] for o in options.split(","))
            path = words.split()[4].replace("\\\\040", " ")
            found[path] = {
                "pagesize": _size(said.get("pagesize", "2M")),
                # show_options() leaves out what is as the kernel begins with.
                "mode": f"{int(said.get('mode', '755'), 8):04o}",
                "uid": said.get("uid", "0"),
                "gid": said.get("gid", "0"),
            }
    return found


def _size(text: str) -> str:
    """Return a size in its largest unit: the kernel says 1024M."""
    size = int(text[:-1]) * _UNITS[text[-1]]
    unit = next(u for u in ("G", "M", "K") if size >= _UNITS[u])
    return f"{size // _UNITS[unit]}{unit}"


def _seen(observation: Observation) -> dict[str, Words]:
    found: dict[str, Words] = observation.once("mounts", read)
    return found


def names(observation: Observation) -> list[str]:
    """Return where hugepages are mounted."""
    return sorted(_seen(observation))


def observe(observation: Observation, name: str) -> Words | None:
    """Return one mount as intent would write it."""
    return _seen(observation).get(name)


def lean(form: Words, observation: Observation, name: str) -> Words | None:
    """Return None for what systemd mounts by itself (dev-hugepages.mount)."""
    return None if name == "/dev/hugepages" else form


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that mounts hugepages where and as the spec says."""
    said = encode(decode(Mount, resource.spec))
    wanted = {dashed(word): value for word, value in said.items() if value is not None}
    have = _seen(observation).get(resource.name)
    if have is not None and all(have[word] == value for word, value in wanted.items()):
        return []
    steps = Steps(resource)
    steps.add(
        "",
        have and {word: have[word] for word in wanted},
        wanted,
        action=UPDATE if have else CREATE,
        # It is mounted anew: who has files of it open keeps them, and nobody opens new ones.
        impact="blip" if have else "none",
        touches=(f"mount:{resource.name}",),
    )
    return steps.changes


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that takes away what fleet mounted."""
    have = _seen(observation).get(entry.name)
    if have is None or not entry.created:
        return []
    steps = Steps(entry)
    steps.add("", have, None, action=DELETE, impact="blip", touches=(f"mount:{entry.name}",))
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Mount, mount anew or unmount; raises HostError with mount's words."""
    from fleet.host.kernel.system import CommandError

    try:
        if change.before is not None:
            unmount(system, change.name)
        if change.after is not None:
            mount(system, change.name, change.after)
    except (CommandError, OSError) as error:
        raise HostError(
            change.key,
            "to unmount it" if change.after is None else f"hugepages at {change.name}",
            str(error)[:300],
            f"end what uses it: fuser -vm {change.name}",
        ) from error


def mount(system: System, path: str, words: Words) -> None:
    """Mount a hugetlbfs, its directory made where it is missing; raises CommandError, OSError."""
    os.makedirs(system.root + path, 0o755, exist_ok=True)
    options = ",".join(f"{word}={value}" for word, value in words.items())
    system.run(["mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", path])


def unmount(system: System, path: str) -> None:
    """Unmount it; raises CommandError where something uses it."""
    system.run(["umount", "--", path])
