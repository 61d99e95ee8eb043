"""Hugepages of one size, for guests and DPDK: of the whole host, or of each NUMA node.

Linux, admin-guide/mm/hugetlbpage. The number is that of persistent pages: what the kernel lends
beyond it (surplus) is not in it.
"""

from __future__ import annotations

import posix

from fleet.host.change import HostError
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
    from fleet.host.fields import Number
    from fleet.host.machine_fields import Node, PageSize

    #: What a resource is called.
    NAME = PageSize

#: A bare number is that of the whole host.
SHORT = "pages"
_ALL, _NODES = "/sys/kernel/mm/hugepages", "/sys/devices/system/node"
_UNITS = (("G", 1 << 20), ("M", 1 << 10), ("K", 1))


@spec
class Hugepages:
    """How many pages of a size there are, on the whole host or by node."""

    #: The empty text says that the nodes are named.
    pages: Number = ""
    nodes: dict[Node, Number] | None = None

    def __post_init__(self) -> None:
        """Refuse both, and neither; the controller alone comes here."""
        if bool(self.pages) == bool(self.nodes):
            raise ValueError("name either pages, of the whole host, or nodes")


SPEC = Hugepages


def size_of(name: str) -> int:
    """Return a size such as ``2M`` in KiB."""
    return int(name[:-1]) * dict(_UNITS)[name[-1]]


def _name(kibibytes: int) -> str:
    unit, each = next((unit, each) for unit, each in _UNITS if kibibytes >= each)
    return f"{kibibytes // each}{unit}"


def read(system: System) -> Words:
    """Return the pages by size: ``all`` and ``nodes``, each with ``pages`` and ``used``.

    ``available`` is the memory that could become pages, in KiB.
    """
    found: Words = {"sizes": {}, "available": _available(system)}
    for folder in _list(system, _ALL):
        size = int(folder.partition("-")[2][:-2])
        nodes = {
            node[4:]: _counts(system, f"{_NODES}/{node}/hugepages/{folder}")
            for node in _list(system, _NODES)
            if node[4:].isdigit() and _list(system, f"{_NODES}/{node}/hugepages")
        }
        found["sizes"][_name(size)] = {"all": _counts(system, f"{_ALL}/{folder}"), "nodes": nodes}
    return found


def _list(system: System, path: str) -> list[str]:
    try:
        return sorted(posix.listdir(system.root + path))
    except OSError:
        return []


def _counts(system: System, place: str) -> Words:
    numbers = {
        word: int(system.read(f"{place}/{word}_hugepages") or 0)
        for word in ("nr", "free", "surplus")
    }
    return {"pages": numbers["nr"] - numbers["surplus"], "used": numbers["nr"] - numbers["free"]}


def _available(system: System) -> int:
    for line in (system.read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def path_of(name: str, node: str = "") -> str:
    """Return the file that says how many pages of a size there are."""
    folder = f"hugepages-{size_of(name)}kB/nr_hugepages"
    return f"{_NODES}/node{node}/hugepages/{folder}" if node else f"{_ALL}/{folder}"


def _seen(observation: Observation) -> Words:
    found: Words = observation.once("hugepages", read)
    return found


def names(observation: Observation) -> list[str]:
    """Return the sizes of which the host has pages."""
    sizes = _seen(observation)["sizes"]
    return sorted(name for name, size in sizes.items() if size["all"]["pages"])


def observe(observation: Observation, name: str) -> Words | None:
    """Return the pages of a size as intent would write them."""
    size = _seen(observation)["sizes"].get(name)
    if size is None:
        return None
    if len(size["nodes"]) > 1:
        return {"nodes": {node: str(each["pages"]) for node, each in size["nodes"].items()}}
    return {"pages": str(size["all"]["pages"])}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that give a host its pages; raises HostError where it cannot have them."""
    wanted = decode(Hugepages, resource.spec)
    said = dict(wanted.nodes or {}) if not wanted.pages else {"": wanted.pages}
    return _changes(resource, {node: int(pages) for node, pages in said.items()}, observation)


def _changes(resource: Resource | Entry, wanted: dict[str, int], seen: Observation) -> list[Change]:
    found, name, steps = _seen(seen), resource.name, Steps(resource)
    size = found["sizes"].get(name)
    if size is None:
        sizes = ", ".join(sorted(found["sizes"], key=size_of)) or "no hugepages at all"
        raise HostError(
            resource.key, f"pages of {name}", f"the processor has {sizes}", "name one of these"
        )
    more = 0
    for node, pages in wanted.items():
        have = size["nodes"].get(node) if node else size["all"]
        what = f"nodes.{node}" if node else "pages"
        if have is None:
            nodes = ", ".join(size["nodes"])
            raise HostError(
                resource.key, f"the NUMA node {node}", f"only {nodes}", "name one of these", what
            )
        if have["pages"] == pages:
            continue
        more += pages - have["pages"]
        lent = max(0, have["used"] - pages)
        steps.add(
            what,
            have["pages"],
            pages,
            reason=f"{lent} more are in use, and go when they are given back" if lent else "",
            touches=tuple(
                f"value:{path_of(name, each)}"
                for each in ([node] if node else sorted(size["nodes"]) or [""])
            ),
        )
    if steps.changes:
        _check(resource, name, more, found["available"], seen)
    return steps.changes


def _check(
    resource: Resource | Entry, name: str, more: int, available: int, seen: Observation
) -> None:
    if more * size_of(name) > available:
        raise HostError(
            resource.key,
            f"{more} more pages of {name}: {more * size_of(name) >> 10} MiB",
            f"{available >> 10} MiB of memory are available",
            f"name at most {available // size_of(name)} more, or move guests away",
        )
    if not seen.system.writable(path_of(name)):
        raise HostError(
            resource.key,
            "hugepages that are the host's own",
            f"{path_of(name)} cannot be written here",
            "take hugepages away: this host shares its kernel with others; a lab of "
            "--backend vm has a kernel for each",
        )


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the changes that give a host the number it had before fleet came."""
    before = entry.before
    if not before or entry.name not in _seen(observation)["sizes"]:
        return []
    said = before.get("nodes") or {"": before.get("pages") or "0"}
    return _changes(entry, {node: int(pages) for node, pages in said.items()}, observation)


def apply(system: System, change: Change) -> None:
    """Write one number; raises HostError where the kernel finds fewer pages, with how many."""
    node = change.what.partition(".")[2]
    path = path_of(change.name, node)
    try:
        for attempt in range(2):
            system.write(path, f"{change.after}\n")
            got = int(_counts(system, path.rpartition("/")[0])["pages"])
            if got == change.after:
                return
            if not attempt:
                # admin-guide/sysctl/vm: what is free moves together, so that more is whole.
                system.write("/proc/sys/vm/compact_memory", "1\n")
    except OSError as error:
        raise HostError(
            change.key,
            f"{change.after} pages of {change.name}",
            f"the kernel refuses it: {error.strerror}",
            f"look at {path}",
            change.what,
        ) from error
    where = f" on node {node}" if node else ""
    raise HostError(
        change.key,
        f"{change.after} pages of {change.name}{where}",
        f"the kernel found {got}: {change.after - got} too few, for free memory is in pieces",
        f"name at most {got}; or move guests away, reboot, and roll out before they come back",
        change.what,
    )
