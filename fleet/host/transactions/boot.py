"""The committed state once more after a boot: what no network manager keeps."""

from __future__ import annotations

import sys

from fleet.host import registry, wire
from fleet.host.planning import ledger
from fleet.host.state import decode_state
from fleet.host.transactions import files, lasting, manager
from fleet.host.transactions.files import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: Seconds that the host's own manager is given to configure what it can.
MANAGER_BUDGET = 30.0
#: Kinds that must be as they should before the network starts. What of them needs a device that is
#: not there yet, a parameter of a bridge for one, is applied with the rest.
EARLY = (
    "module", "sysctl", "hugepages", "mount", "governor", "driver", "nftables", "policy", "sriov",
)  # fmt: skip
#: What a switch forgets whenever it starts, not only at a boot.
SWITCH = ("flows",)
#: What is in books of its own that last, and whose server starts after all units of fleet's.
LASTING = ("network", "nwfilter", "guest")
#: The phases that apply some kinds alone; ``late`` applies all.
PHASES = {"early": EARLY, "switch": SWITCH}


def apply_committed(system: System, paths: Paths, phase: str) -> int:
    """Apply the committed state's changes, in the phase ``late`` all; return how many failed then.

    Each change is tried for itself: after a boot a host is better off with most of its network
    than with none. What fails, and what the host lacks, is said on stderr. Raises
    ValueError where the stored state is damaged.
    """
    from fleet.host.planning.plan import make_plan

    try:
        text = files.unseal(files.read(f"{paths.state}/{lasting.STATE}"))
    except FileNotFoundError:
        return 0
    data = dict(wire.loads(text))
    files_ = (data.pop("manager", None) or {}).get("files")
    if files_ and phase == "late":
        # Without this both would make what networkd is still about to make.
        manager.await_links(system.root, MANAGER_BUDGET, lambda: None)
    # libvirt starts after this, and its own books last.
    data["resources"] = [
        each for each in data.get("resources") or () if each["kind"] not in LASTING
    ]
    entries = {
        key: entry for key, entry in ledger.load(paths.state).items() if entry.kind not in LASTING
    }
    plan = make_plan(decode_state(data), entries, system)
    if phase in PHASES:
        own = [c for c in plan.changes if c.kind in PHASES[phase] and not c.namespace]
        for change in plan.changes:
            if change in own or _raises_for(change, own):
                _try(system, change)
        return 0
    for problem in plan.problems:
        sys.stderr.write(
            f"fleet: {problem.resource} {problem.what}: expected {problem.expected}, "
            f"found {problem.actual}; {problem.remedy}\n"
        )
    return len(plan.problems) + sum(not _try(system, change) for change in plan.changes)


def _raises_for(change: Change, others: list[Change]) -> bool:
    """Say whether a change brings up the NIC that another one, of a function's driver, needs up."""
    up = {token for token in change.provides if token.startswith("up:")}
    return any(not up.isdisjoint(other.requires) for other in others)


def _try(system: System, change: Change) -> bool:
    where = system.at(change.namespace) if change.namespace else system
    try:
        registry.load(change.kind).apply(where, change)
    except Exception as error:
        sys.stderr.write(f"fleet: {change.key} {change.what}: {error}\n")
        return False
    # The unit's log says what no manager had brought back by then.
    sys.stderr.write(f"fleet: {change.key} {change.what}: applied\n")
    return True
