"""The state to go back to: what a host had before a run.

It is the state that the record says the host last committed before the run. Where the run was
fleet's first on that host, it is the run's own state with every change of its plan taken back:
the plan has the value each change started from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.host.change import CREATE, DELETE, Change, amended, resource_key
from fleet.host.spec import dashed


def before(state: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """Return a state as plain data with changes taken back, the last one first."""
    old = copy.deepcopy(dict(state))
    resources = {_key(each): each for each in old.get("resources") or []}
    for change in reversed(list(changes)):
        if not change.what and change.action == CREATE:
            resources.pop(change.key, None)
        elif not change.what and change.action == DELETE:
            resources[change.key] = _resource(change)
        elif change.key in resources:
            spec = resources[change.key].setdefault("spec", {})
            _take_back(spec, change)
    old["resources"] = list(resources.values())
    return old


def _key(resource: Mapping[str, Any]) -> str:
    return resource_key(resource.get("namespace", ""), resource["kind"], resource["name"])


def _resource(change: Change) -> dict[str, Any]:
    spec = change.before if isinstance(change.before, Mapping) else {}
    return {
        "namespace": change.namespace, "kind": change.kind, "name": change.name,
        "spec": copy.deepcopy(dict(spec)),
    }


def _take_back(spec: dict[str, Any], change: Change) -> None:
    holder, name = _find(spec, change.what)
    value = holder.get(name)
    if name == "activation_mode":
        # A plan says how a link is; an intent only says where it shall not be as usual, up.
        change = amended(change, before={"up": None, "down": "off"}.get(change.before))
    if isinstance(value, (list, tuple)) and not isinstance(change.before, (list, tuple)):
        entries = [each for each in value if not _same(each, change.after)]
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
