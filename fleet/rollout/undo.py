"""The state to go back to: what a host had before a run.

It is the state that the record says the host last committed before the run. Where the run was
fleet's first on that host, or found it elsewhere (drifted, or made anew under the same name), it
is the run's own state with every change of its plan taken back: the plan has the value each
change started from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.host import registry
from fleet.host.change import CREATE, DELETE, FILE, Change, amended, resource_key
from fleet.host.spec import dashed, field_names


def before(state: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """Return a state as plain data with changes taken back, the last one first.

    The manager's file of then is not known, so there is none: fleet's units bring the state back.
    """
    old = copy.deepcopy(dict(state))
    old.pop("manager", None)
    changes = [change for change in changes if change.kind != FILE]
    resources = {_key(each): each for each in old.get("resources") or []}
    for change in reversed(changes):
        if not change.what and change.action == CREATE:
            resources.pop(change.key, None)
        elif not change.what and change.action == DELETE:
            if not isinstance(change.before, str) or _short(change.kind):
                resources[change.key] = _resource(change)
        elif change.key in resources:
            spec = resources[change.key].setdefault("spec", {})
            if _says(change):
                _take_back(spec, change)
        if change.what == "routes" and isinstance(change.before, Mapping):
            _give_back(resources.values(), change)
    old["resources"] = list(resources.values())
    return old


def _give_back(resources: Iterable[dict[str, Any]], change: Change) -> None:
    """Put a route that moved here back into the routes of the device it was on."""
    route = {key: value for key, value in change.before.items() if key != "dev"}
    device = change.before.get("dev")
    for each in resources:
        if device and (each.get("namespace", ""), each["name"]) == (change.namespace, device):
            spec = each.setdefault("spec", {})
            if not any(_same(entry, route) for entry in spec.get("routes") or ()):
                spec["routes"] = [*(spec.get("routes") or ()), route]


def was_in(earlier: Mapping[str, Any], state: Mapping[str, Any], changes: Iterable[Change]) -> bool:
    """Return whether a plan towards ``state`` started from a host that was in ``earlier``."""
    old = {_key(each): each.get("spec") or {} for each in earlier.get("resources") or []}
    new = {_key(each): each.get("spec") or {} for each in state.get("resources") or []}
    for change in changes:
        if change.kind == FILE:
            continue
        if not change.what and change.action in (CREATE, DELETE):
            if (change.action == CREATE) == (change.key in old):
                return False
        elif change.key in old and old[change.key] == new.get(change.key):
            return False
    return True


def _key(resource: Mapping[str, Any]) -> str:
    return resource_key(resource.get("namespace", ""), resource["kind"], resource["name"])


def _resource(change: Change) -> dict[str, Any]:
    spec: Mapping[str, Any] = {}
    if isinstance(change.before, str):
        spec = {_short(change.kind): change.before}
    elif isinstance(change.before, Mapping):
        spec = change.before
    return {
        "namespace": change.namespace,
        "kind": change.kind,
        "name": change.name,
        "spec": copy.deepcopy(dict(spec)),
    }


def _short(kind: str) -> str:
    """Return the field that a bare text in an intent means, empty where a kind has none."""
    return str(getattr(registry.load(kind), "SHORT", ""))


def _says(change: Change) -> bool:
    """Tell whether an intent has words for what a change started from; a snapshot always has."""
    first = change.what.partition(".")[0].partition("[")[0].replace("-", "_")
    return not change.lines and first in field_names(registry.load(change.kind).SPEC)


def _take_back(spec: dict[str, Any], change: Change) -> None:
    holder, name = _find(spec, change.what)
    value = holder.get(name)
    if isinstance(value, str) and isinstance(change.before, (list, tuple)):
        return  # a plan shows the lines of a text that differ; the host's own snapshot has them all
    if name == "activation_mode":
        # A plan says how a link is; an intent only says where it shall not be as usual, up.
        change = amended(change, before={"up": None, "down": "off"}.get(change.before))
    if isinstance(value, (list, tuple)) and not isinstance(change.before, (list, tuple)):
        entries = [each for each in value if not _same(each, change.after)]
        texts = any(isinstance(each, str) for each in value)
        if change.what == "addresses" and isinstance(change.before, str) and not texts:
            # A plan shows an address that has nothing but itself as that, a state as an entry.
            change = amended(change, before={"address": change.before})
        holder[name] = [*entries, change.before] if change.before is not None else entries
    elif change.before is None:
        holder.pop(name, None)
    else:
        holder[name] = copy.deepcopy(change.before)


def _find(spec: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds a path's last name, and that name as the spec has it.

    Names of devices may hold dots (``eth0.100``), so the longest known key is taken first.
    """
    known = sorted((key for key in spec if _leads(key, path)), key=len, reverse=True)
    if not known:
        first, dot, rest = path.partition(".")
        if not dot:
            return spec, first.replace("-", "_")
        return _find(spec.setdefault(first.replace("-", "_"), {}), rest)
    key = known[0]
    rest = path[len(key) + 1 :]
    if not rest:
        return spec, key
    inner = spec[key]
    if not isinstance(inner, dict):
        inner = spec[key] = {}
    return _find(inner, rest)


def _leads(key: str, path: str) -> bool:
    return any(path == word or path.startswith(f"{word}.") for word in {key, dashed(key)})


def _same(entry: Any, other: Any) -> bool:
    if isinstance(entry, Mapping) != isinstance(other, Mapping):
        return bool(_bare(entry) == _bare(other))
    if isinstance(entry, Mapping) and isinstance(other, Mapping):
        both = {key for key in entry if entry[key] is not None and key in other}
        return bool(both) and all(entry[key] == other[key] for key in both)
    return bool(entry == other)


def _bare(entry: Any) -> Any:
    return entry.get("address") if isinstance(entry, Mapping) else entry
