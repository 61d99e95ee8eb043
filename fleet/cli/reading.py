"""What the commands that only read do: plan, audit, observe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fleet.cli.options import OneHost, Scope
from fleet.cli.say import print_json
from fleet.cli.select import by_group
from fleet.cli.work import (
    Work,
    counting,
    finish,
    trouble_json,
    trouble_lines,
    work_of,
    work_on,
)
from fleet.errors import FleetError
from fleet.progress import Count
from fleet.report.audit import audit_json, audit_text
from fleet.report.plan import plan_json, plan_text
from fleet.report.text import clean, paint_for
from fleet.report.transactions import pending_line

if TYPE_CHECKING:
    from fleet.host.change import Plan
    from fleet.rollout.engine import Engine
    from fleet.rollout.result import HostAudit, HostPlan, Observed

    Read = TypeVar("Read", bound=HostPlan | HostAudit)


def show_plan(scope: Scope, out: Path | None, as_json: bool) -> int:
    """Plan the selected hosts, print the plans, and return the exit code."""
    work = work_of(scope)
    plans = finish(make_plans(work))
    code = exit_of(plans)
    if as_json:
        print_json("plan", {host: _json(each, plan_json) for host, each in plans.items()}, code)
    else:
        print_plans(plans, scope.verbose)
    if out is not None:
        from fleet.plan_file import write
        from fleet.rollout.controller import revision

        write(out, plans, finish(revision(work.project.path)))
    return code


async def make_plans(work: Work) -> dict[str, HostPlan]:
    """Plan the hosts of a work, with a bar if it takes time."""
    with Count("plan", len(work.hosts)) as count:
        async with work.engine(counting(count)) as engine:
            return await engine.plan(work.selection)


def print_plans(plans: Mapping[str, HostPlan], verbose: bool = False, stream: Any = None) -> None:
    """Print plans as text, on stdout unless told otherwise."""
    paint = paint_for(stream)
    for line in plan_text(_plans(plans), _failures(plans), paint, verbose):
        print(line, file=stream)
    for line in _held(plans):
        print(paint.changed(line), file=stream)


def show_audit(scope: Scope, as_json: bool) -> int:
    """Audit the selected hosts, print their drift, and return the exit code."""
    work = work_of(scope)
    audits = finish(_audit(work))
    code = exit_of(audits)
    if as_json:
        print_json("audit", {host: _json(each, audit_json) for host, each in audits.items()}, code)
        return code
    groups = by_group(work.project.inventory, work.hosts, scope.group)
    paint = paint_for()
    text = audit_text(_plans(audits), groups, _failures(audits), paint, scope.verbose)
    for line in [*text, *map(paint.changed, _held(audits))]:
        print(line)
    return code


def show_observation(how: OneHost, host: str, kinds: Sequence[str], as_json: bool) -> None:
    """Observe one host and print what it has, as YAML or JSON."""
    seen = finish(_observe(work_on(how, host), host, kinds))
    if seen.trouble is not None:
        raise FleetError(f"{host}: {seen.trouble.kind}: {seen.trouble.message}")
    sections = as_intent(seen.resources)
    if as_json:
        print_json("observe", {host: {"resources": sections}})
        return
    import yaml

    sections = {
        section: {name: part for name, part in held.items() if part or section != "network"}
        for section, held in sections.items()
    }
    # YAML's own escapes keep what a host sent from reaching the terminal raw.
    print(yaml.safe_dump(sections, sort_keys=False, default_flow_style=None), end="")


def exit_of(read: Mapping[str, HostPlan] | Mapping[str, HostAudit]) -> int:
    """Return 1 if a host could not be asked, 3 if one is not as intended, else 0."""
    if any(each.trouble for each in read.values()):
        return 1
    plans = [each.plan for each in read.values() if each.plan]
    return 3 if any(plan.changes or plan.problems for plan in plans) else 0


async def _audit(work: Work) -> dict[str, HostAudit]:
    with Count("audit", len(work.hosts)) as count:
        async with work.engine(counting(count)) as engine:
            return await engine.audit(work.selection)


async def _observe(work: Work, host: str, kinds: Sequence[str]) -> Observed:
    engine: Engine
    async with work.engine() as engine:
        return await engine.observe(host, kinds)


def _plans(read: Mapping[str, HostPlan] | Mapping[str, HostAudit]) -> dict[str, Plan]:
    return {host: each.plan for host, each in read.items() if each.plan is not None}


def _failures(read: Mapping[str, HostPlan] | Mapping[str, HostAudit]) -> dict[str, list[str]]:
    return {host: trouble_lines(each.trouble) for host, each in read.items() if each.trouble}


def _held(read: Mapping[str, HostPlan] | Mapping[str, HostAudit]) -> list[str]:
    held = [pending_line(host, each.pending) for host, each in read.items() if each.pending]
    return ["", *held, "fleet status says more."] if held else []


def _json(each: HostPlan | HostAudit, form: Callable[[Plan], dict[str, Any]]) -> dict[str, Any]:
    if each.plan is None:
        assert each.trouble is not None
        return trouble_json(each.trouble)
    return {**form(each.plan), "pending": dict(each.pending) if each.pending else None}


def as_intent(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return observed resources, which come by kind, under the sections of an intent."""
    from fleet.adopt import place_rules
    from fleet.host.registry import BY_NAME

    network: dict[str, Any] = {}
    rules: list[Any] = []
    intent: dict[str, Any] = {"network": network}
    for kind, named in resources.items():
        entry = BY_NAME.get(kind)
        if entry is not None and entry.under == "network":
            # Two kinds may share a section.
            network.setdefault(entry.section, {}).update(_plain(named))
        elif kind == "sriov":
            for name, form in _plain(named).items():
                network.setdefault("ethernets", {}).setdefault(name, {}).update(form)
        elif kind == "rule":
            rules = list(_plain(named).values())
        elif kind == "sysctl":
            intent["sysctl"] = {clean(k): v["value"] for k, v in _plain(named).items()}
        else:
            holder = intent.setdefault(entry.under, {}) if entry and entry.under else intent
            holder[entry.section if entry else clean(kind)] = _plain(named)
    if rules and any(network.values()):
        place_rules(network, rules, [])
    elif rules:
        network["routing-policy"] = rules
    return {section: found for section, found in intent.items() if found}


def _plain(data: Any) -> Any:
    """Return plain data with whole numbers whole and nothing that is empty, as a person writes."""
    if isinstance(data, Mapping):
        pairs = ((clean(key), _plain(inner)) for key, inner in data.items())
        return {key: inner for key, inner in pairs if inner is not None and inner != {}}
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data
