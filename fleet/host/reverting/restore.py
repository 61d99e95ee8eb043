"""Put a namespace back to a snapshot: a diff from now, repeated until nothing differs.

It uses the plain netlink client only, so that it works from memory when the disk is gone, and it
never trusts what it did: each pass looks again. What already equals the snapshot is not touched.
"""

from __future__ import annotations

import time

from fleet.host.reverting.differences import differences
from fleet.host.reverting.restore_layers import restore_layers, take_groups
from fleet.host.reverting.restore_links import fetch_devices, restore_links
from fleet.host.reverting.restore_step import Step
from fleet.host.reverting.snapshot import capture
from fleet.host.reverting.snapshot_parts import has_switches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Record = dict[str, Any]
    Snapshot = dict[str, Any]

#: Passes at most, and seconds before one that follows a pass without progress.
PASSES, PAUSE = 12, 0.1


def restore(system: System, snapshot: Snapshot) -> list[Record]:
    """Make this namespace, and those of the snapshot's scope, what the snapshot says.

    Ends when two observations in a row find no difference, or when passes stop helping. Returns
    the differences that remain, each with the kernel's ``error`` where it gave one.
    """
    agreed, stuck, last = False, 0, ""
    errors: dict[tuple[str, str, str], str] = {}
    remaining: list[Record] = []
    for _ in range(PASSES):
        now = capture(system, snapshot["scope"], snapshot)
        remaining = differences(snapshot, now)
        if not remaining:
            if agreed:
                return []
            agreed = True
            continue
        agreed = False
        state = repr(remaining)
        stuck = stuck + 1 if state == last else 0
        if stuck == 3:
            break
        if stuck:
            time.sleep(PAUSE * stuck)
        last = state
        errors = {}
        _namespaces(system, snapshot, errors)
        for space, before in spaces(system, snapshot):
            _pass(space, before, snapshot, errors)
    for item in remaining:
        error = errors.get((item["namespace"], item["part"], item["name"]))
        if error:
            item["error"] = error
    return remaining


def _namespaces(
    system: System, snapshot: Snapshot, errors: dict[tuple[str, str, str], str]
) -> None:
    """Make the namespaces that were there, and delete those that were not."""
    from fleet.host.kernel.system import CommandError

    for name, inner in snapshot["namespaces"].items():
        there = system.at(name)
        try:
            if inner is None and there.exists():
                from fleet.host.kernel.spaces import delete_namespace

                delete_namespace(system, name)
            elif inner is not None and not there.exists():
                from fleet.host.kernel.spaces import make_namespace

                make_namespace(system, name)
        except (CommandError, OSError) as error:
            errors[("", "namespaces", name)] = str(error)[:300]


def spaces(system: System, snapshot: Snapshot) -> list[tuple[System, Snapshot]]:
    """Return each namespace that exists and had a form, with that form."""
    found = [(system, snapshot)]
    for name, inner in snapshot["namespaces"].items():
        there = system.at(name)
        if inner is not None and there.exists():
            found.append((there, inner))
    return found


def _pass(
    system: System,
    before: Snapshot,
    root: Snapshot,
    errors: dict[tuple[str, str, str], str],
) -> None:
    step = Step(system, before, errors, root)
    if has_switches(before["scope"]):
        from fleet.host.reverting.restore_switches import restore_switches

        # First, for its bridges' own devices come and go with its database.
        restore_switches(step)
        step.look()
    scope = before["scope"]
    if any(map(scope.get, ("networks", "nwfilters", "guests"))):
        from fleet.host.reverting.restore_networks import restore_networks

        # Before the links: a network's bridge comes and goes with it.
        restore_networks(step)
        step.look()
    if before.get("functions"):
        from fleet.host.reverting.restore_functions import restore_functions

        # Before the links: a function's device comes and goes with it.
        restore_functions(step)
        step.look()
    if before.get("drivers"):
        from fleet.host.reverting.restore_drivers import restore_drivers

        restore_drivers(step)
        step.look()
    fetch_devices(step)
    take_groups(step)
    restore_links(step)
    # Devices going down or away take addresses, routes and neighbours along: look again.
    restore_layers(Step(system, before, errors, root))
