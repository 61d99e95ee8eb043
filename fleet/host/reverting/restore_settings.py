"""Put back what ethtool(8) sets: channels, rings, coalescing, pause, flags and features."""

from __future__ import annotations

from fleet.host.kernel import ethtool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

#: Queues first: a driver may tie the rest to them.
_ORDER = ("channels", "rings", "coalesce", "pause", "private-flags", "features")


def read_settings(system: System, device: str) -> Record | None:
    """Return a device's settings by part; None where there is no such device, or it has none.

    Of the features those that can be changed, as somebody wanted them: what is active follows.
    """
    try:
        found = ethtool.read(system, device)
    except OSError:
        return None
    settings = {part: found[part] for part in _ORDER if part in found}
    features = settings.get("features") or {}
    settings["features"] = {n: f["wanted"] for n, f in features.items() if f["changeable"]}
    return {part: values for part, values in settings.items() if values} or None


def settings_differences(snapshot: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Return the settings that a device had and has no more, by device, as (then, now)."""
    found = {}
    for device, then in snapshot["settings"].items():
        have = now["settings"].get(device)
        if then is None or have is None:
            continue  # a device that is not there is a difference of its own
        changed = _changed(then, have)
        if changed:
            was = {part: {w: have[part].get(w) for w in words} for part, words in changed.items()}
            found[device] = (changed, was)
    return found


def _changed(then: Record, have: Record) -> Record:
    found = {}
    for part, words in then.items():
        told = have.get(part) or {}
        changed = {w: value for w, value in words.items() if w in told and told[w] != value}
        if changed:
            found[part] = changed
    return found


def restore_settings(step: Step) -> None:
    """Set each part of each device to what it was."""
    for device, (changed, _) in settings_differences(step.then, step.now).items():
        for part in _ORDER:
            if part in changed:
                step.attempt(
                    "settings", device, ethtool.write, step.system, device, part, changed[part]
                )
