"""Each case is a state, what a host was observed to have, and the changes that must follow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.host.change import Change, Plan
from fleet.host.planning.ledger import Entry
from fleet.host.planning.plan import plan_from
from fleet.host.state import decode_state

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from observed import Observed

#: Those of test_golden_tables.py and test_golden_libvirt.py.
ELSEWHERE = ("nftables", "policy", "network", "nwfilter", "guest")
CASES = sorted(p for p in Path(__file__).parent.glob("*/*.yaml") if p.parent.name not in ELSEWHERE)


def words(change: Change) -> str:
    """Return a change as a line: what a case expects."""
    value = ""
    if change.before is not None or change.after is not None:
        value = f"{change.what}: {short(change.before)} -> {short(change.after)}".lstrip(": ")
    tail = "" if change.impact == "none" else f" [{change.impact}]"
    guests = f" guests {', '.join(change.guests)}" if change.guests else ""
    why = f" ({change.reason})" if change.reason else ""
    return f"{change.action} {change.key} {value}{tail}{guests}{why}".strip()


def short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {short(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)


def split(key: str) -> dict[str, str]:
    """Return the parts of ``kind/name`` or ``namespace:kind/name``."""
    kind, _, name = key.partition("/")
    namespace, _, kind = kind.rpartition(":")
    return {"namespace": namespace, "kind": kind, "name": name}


def plan_of(case: dict[str, Any]) -> Plan:
    state = {"host": "host", **(case.get("state") or {})}
    state["resources"] = [
        {**split(key), "spec": spec or {}} for key, spec in (state.get("resources") or {}).items()
    ]
    entries = (case.get("ledger") or {}).items()
    ledger = {key: Entry(**split(key), **entry) for key, entry in entries}
    observed: Any = Observed(case.get("observed") or {})
    return plan_from(decode_state(state), ledger, observed)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path) -> None:
    """The plan of a state on an observed host is the expected one."""
    case = yaml.safe_load(path.read_text())
    plan = plan_of(case)
    assert [words(change) for change in plan.changes] == (case.get("changes") or [])
    problems = [
        f"{p.resource} {p.what}".strip() + f": expected {p.expected}, found {p.actual}; {p.remedy}"
        for p in plan.problems
    ]
    assert problems == (case.get("problems") or [])
    if "unmanaged" in case:
        assert list(plan.unmanaged) == case["unmanaged"]
    if "settle" in case:
        assert plan.settle == case["settle"]
