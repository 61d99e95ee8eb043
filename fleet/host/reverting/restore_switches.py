"""Put back what Open vSwitch had: a bridge's part of the database, then what it forwards by.

OVSDB is durable at once, so the old form is in the snapshot and each part goes back whole: one
transaction for all bridges, one bundle for a bridge's flows. What others added meanwhile, a guest's
port for one, stays: only what the plan named is taken away.
"""

from __future__ import annotations

from fleet.host.kernel.system import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]


def read_switches(system: System, scope: Record) -> Record:
    """Return the pictures of the bridges in a scope by name, None for one that is not there."""
    from fleet.host.switches import picture

    found = picture.read(system) if scope else {}
    return {name: found.get(name) for name in scope}


def read_flows(system: System, scope: Record) -> Record:
    """Return what the bridges in a scope forward by, None for a bridge that is not there."""
    from fleet.host.switches import forwarding

    found: Record = {}
    for name in scope:
        try:
            found[name] = forwarding.read(system, name)
        except CommandError:
            found[name] = None
    return found


def switch_differences(snapshot: Record, now: Record) -> dict[str, Any]:
    """Return what would make each bridge what it was, by name; None deletes one."""
    found: dict[str, Any] = {}
    for name, made in (snapshot["scope"].get("switches") or {}).items():
        then, have = snapshot["switches"].get(name), now["switches"].get(name)
        if then is None:
            if have is not None:
                found[name] = None
        elif have is None:
            found[name] = then
        else:
            back = _back(then, have, made or {})
            if back:
                found[name] = back
    return found


def _back(then: Record, now: Record, made: Any) -> Record:
    """Return the delta from now to then; what only now has goes where the plan made it."""
    found: Record = {}
    for key, value in then.items():
        have = now.get(key)
        inner = made.get(key) if isinstance(made, dict) else None
        if isinstance(value, dict) and isinstance(have, dict):
            nested = _back(value, have, inner or {})
            if nested:
                found[key] = nested
        elif value != have:
            found[key] = value
    for key in now:
        if key not in then and isinstance(made, dict) and key in made:
            found[key] = None
    return found


def flow_differences(snapshot: Record, now: Record) -> dict[str, tuple[Record, Record]]:
    """Return the flows, groups and meters that are missing and those that are too much, by bridge.

    ``scope["flows"]`` has the cookies and numbers that a plan changes; None stands for all, where
    the bridge itself is made again.
    """
    from fleet.host.switches.forwarding import missing as lacking
    from fleet.host.switches.forwarding import number_of

    found = {}
    for name, own in (snapshot["scope"].get("flows") or {}).items():
        then, have = snapshot["flows"].get(name), now["flows"].get(name)
        if then is None or have is None:
            continue
        missing, extra = (
            {
                part: [text for text in texts if _counts(number_of(part, text), part, own)]
                for part, texts in side.items()
            }
            for side in (lacking(then, have), lacking(have, then))
        )
        for part in ("groups", "meters"):
            # One that has another form is changed: deleted, it would take flows of others along.
            numbers = {number_of(part, text) for text in missing[part]}
            extra[part] = [text for text in extra[part] if number_of(part, text) not in numbers]
        if any(missing.values()) or any(extra.values()):
            found[name] = (missing, extra)
    return found


def _counts(number: int, part: str, own: Record | None) -> bool:
    return own is None or number in own[part] or (part == "flows" and number == 0)


def restore_switches(step: Step) -> None:
    """Make the bridges of the scope what they were."""
    changed = switch_differences(step.then, step.now)
    if changed:
        step.attempt("switches", ",".join(changed), _put, step.system, changed)
    for name, (missing, extra) in flow_differences(step.then, step.now).items():
        step.attempt("flows", name, _exchange, step.system, name, missing, extra)


def needed(snapshot: Record) -> bool:
    """Say whether a boot has to put something of a snapshot back (``transactions.points``)."""
    return bool((snapshot.get("scope") or {}).get("switches"))


def put_back(system: System, snapshot: Record) -> list[str]:
    """Make the database what it was, before ovs-vswitchd starts; return what could not be.

    Flows are not in it: a switch that starts has none, and those of the committed state come with
    the boot's own units.
    """
    from fleet.host.switches.operations import put

    now = {"switches": read_switches(system, snapshot["scope"]["switches"])}
    changed = switch_differences(snapshot, now)
    if changed:
        put(system, changed, check=False, follow=False)
    left = switch_differences(
        snapshot, {"switches": read_switches(system, snapshot["scope"]["switches"])}
    )
    return [f"the bridge {name} of Open vSwitch is not as it was" for name in left]


def _put(system: System, changed: dict[str, Any]) -> None:
    from fleet.host.switches.operations import put

    # A port's device may be on its way back too: the switch takes it up when it comes.
    put(system, changed, check=False)


def _exchange(system: System, name: str, missing: Record, extra: Record) -> None:
    from fleet.host.switches.forwarding import put

    put(system, name, missing, extra)
