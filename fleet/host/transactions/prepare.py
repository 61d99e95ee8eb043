"""PREPARED: everything a commit or a revert will need is on the host before anything is armed."""

from __future__ import annotations

import os

from fleet.host import wire
from fleet.host.change import DELETE
from fleet.host.planning import ledger
from fleet.host.preflight import problem
from fleet.host.refusal import Refused
from fleet.host.spec import encode
from fleet.host.transactions import (
    crash,
    fence,
    files,
    first_boot,
    lasting,
    manager,
    persist,
    units,
)
from fleet.host.transactions.journal import PREPARED, Journal
from fleet.host.transactions.transaction import Transaction, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Plan
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.state import State
    from fleet.host.transactions.files import Paths

#: Bytes of a journal: for its fixed records, and for the two records of each change.
_FIXED, _PER_CHANGE = 128 << 10, 2048

LEDGER = f"/var/lib/fleet/{ledger.NAME}"
COMMITTED_STATE = f"/var/lib/fleet/{lasting.STATE}"


def prepare(
    paths: Paths,
    name: str,
    system: System,
    wanted: dict[str, tuple[str | None, int]],
    snapshot: Any,
    facts: dict[str, Any],
) -> tuple[Transaction, list[Any]]:
    """Allocate the journal, stage the files, store the snapshot; return the undo entries too.

    ``wanted`` are the persistent files as ``persist.stage`` takes them. Raises Refused, and then
    nothing of the transaction is left.
    """
    crash.point("prepare.begin")
    directory = paths.of(name)
    try:
        journal = Journal.create(directory, _FIXED + _PER_CHANGE * int(facts["changes"]))
    except FileExistsError:
        raise Refused("refused", f"there has been a transaction {name} on this host") from None
    except OSError as error:
        _drop(paths, directory)
        raise _no_room(error) from error
    try:
        crash.point("prepare.journal.allocated")
        entries = persist.stage(paths, directory, wanted, _record(paths, name, facts))
        crash.point("prepare.files.staged")
        sealed = files.seal(wire.dumps(snapshot))
        files.create(f"{directory}/snapshot", sealed)
        remove_tree(paths.live(name))
        files.make_private(paths.live(name))
        files.create(f"{paths.live(name)}/snapshot", sealed)
        files.create(f"{paths.live(name)}/settling", b"")
        manager.remember(paths.live(name), paths.root, system, entries)
        crash.point("prepare.snapshot.written")
        journal.append(
            PREPARED,
            prepared_at=system.boottime(),
            boot_id=system.boot_id(),
            helper=fence.identity(os.getpid()),
            **facts,
        )
        return Transaction(paths, name, journal), entries
    except OSError as error:
        journal.close()
        _drop(paths, directory)
        remove_tree(paths.live(name))
        raise _no_room(error) from error


def _record(paths: Paths, name: str, facts: dict[str, Any]) -> Any:
    """Return what makes the record for the first boot, None where no unit of ours would read it."""
    if not os.path.isdir(paths.root + units.BOOTED):
        return None
    return lambda entries: {
        first_boot.RECORD: (first_boot.record_text(paths, entries, facts, name), 0o600)
    }


def _no_room(error: OSError) -> Refused:
    what = error.filename or "the journal"
    return Refused(
        "refused",
        f"cannot prepare: {what}: {error.strerror}; nothing was changed",
        [
            problem(
                str(what),
                "to be written before anything changes",
                str(error.strerror),
                "make room, or make it writable, and try again",
            )
        ],
    )


def _drop(paths: Paths, directory: str) -> None:
    try:
        persist.drop_staged(paths, persist.load(directory))
    except (OSError, ValueError):
        pass  # nothing was staged, or not even its record was written
    remove_tree(directory)


def wanted_files(
    paths: Paths,
    state: State,
    state_text: str,
    manager: dict[str, Any],
    plan: Plan,
    entries: dict[str, ledger.Entry],
    observation: Observation,
) -> dict[str, tuple[str | None, int]]:
    """Return the persistent files of a commit: the manager's, sysctl's, the ledger, the state."""
    wanted = lasting.wanted(paths, state, manager, entries)
    from fleet.host.planning.plan import committed_entries

    wanted[LEDGER] = (ledger_text(committed_entries(state, entries, plan, observation)), 0o600)
    wanted[COMMITTED_STATE] = (files.seal(state_text).decode("ascii"), 0o600)
    return wanted


def ledger_text(entries: dict[str, ledger.Entry]) -> str:
    """Return the ledger's file as ``ledger.load`` reads it."""
    listed = [encode(entries[key]) for key in sorted(entries)]
    document = {
        "version": ledger.VERSION,
        "checksum": ledger.checksum(listed),
        "entries": listed,
    }
    return wire.dumps(document) + "\n"


def scope_of(plan: Plan) -> dict[str, Any]:
    """Return what a plan touches as ``snapshot.capture`` takes it, other namespaces inside it."""
    here = _scope()

    def of(namespace: str) -> dict[str, Any]:
        if not namespace:
            return here
        scope: dict[str, Any] = here["namespaces"].setdefault(namespace, _scope())
        return scope

    for change in plan.changes:
        for touched in change.touches:
            space, apart, name = touched.rpartition("|")
            scope = of(space if apart else change.namespace)
            sort, _, rest = name.partition(":")
            if sort == "openvswitch":
                _of_switch(scope, rest, change)
            elif sort == "libvirt":
                scope["networks"] = sorted({*scope["networks"], rest})
                # A network that forwards turns this on when it starts, and never off.
                scope["sysctls"] = sorted({*scope["sysctls"], "net.ipv4.ip_forward"})
            elif sort == "nwfilter":
                scope["nwfilters"] = sorted({*scope["nwfilters"], rest})
            elif sort == "guest":
                scope["guests"] = sorted({*scope["guests"], rest})
            elif sort == "nftables":
                scope["tables"] = sorted({*scope["tables"], rest})
            elif sort in ("driver", "module", "mount", "value"):
                scope[sort + "s"] = sorted({*scope[sort + "s"], rest})
            elif sort == "namespace":
                inner = of(rest)
                inner["whole"] = inner["whole"] or change.action == DELETE
            else:
                scope["devices"] = sorted({*scope["devices"], name})
        if change.kind == "ethtool":
            scope = of(change.namespace)
            scope["settings"] = sorted({*scope["settings"], *change.touches})
        if change.kind == "sriov":
            scope = of(change.namespace)
            scope["functions"] = sorted({*scope["functions"], change.touches[0]})
        if change.kind == "sysctl":
            scope = of(change.namespace)
            scope["sysctls"] = sorted({*scope["sysctls"], change.name})
        scope = of(change.namespace)
        scope["rules"] = scope["rules"] or change.kind == "rule"
    return here


def _of_switch(scope: dict[str, Any], bridge: str, change: Change) -> None:
    """The bridge's part of the database, or what it forwards by, whole where it is made again."""
    if change.kind == "flows":
        from fleet.host.switches.forwarding import exchanged, numbers

        scope["flows"].setdefault(bridge, numbers(*exchanged(change)))
        return
    after = change.after if isinstance(change.after, dict) else {}
    scope["switches"][bridge] = after
    from fleet.host.switches.openflow import FLUSHING

    if change.action == DELETE or not FLUSHING.isdisjoint(after):
        scope["flows"][bridge] = None


def _scope() -> dict[str, Any]:
    return {
        "devices": [],
        "sysctls": [],
        "files": [],
        "tables": [],
        "settings": [],
        "functions": [],
        "drivers": [],
        "modules": [],
        "mounts": [],
        "values": [],
        "switches": {},
        "flows": {},
        "networks": [],
        "nwfilters": [],
        "guests": [],
        "rules": False,
        "whole": False,
        "namespaces": {},
    }
