"""What has drifted: audits as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.host.change import CREATE, DELETE, FILE, Change, Plan
from fleet.host.spec import encode
from fleet.report.plan import problem_json, problem_lines, title
from fleet.report.text import Paint, clean, counted, fold, listed, value


def audit_text(
    plans: Mapping[str, Plan],
    groups: Mapping[str, Sequence[str]],
    failures: Mapping[str, Sequence[str]] | None = None,
    paint: Paint | None = None,
    verbose: bool = False,
) -> list[str]:
    """Return the lines of an audit: one for a group without drift, more for one with.

    ``groups`` maps each group to its hosts; ``failures`` holds, for hosts that could not be
    audited, the lines that say why.
    """
    paint, most = paint or Paint(False), 0 if verbose else 6
    failures = failures or {}
    lines: list[str] = []
    for group, hosts in groups.items():
        audited = {host: plans[host] for host in hosts if host in plans}
        failed = {host: tuple(failures[host]) for host in hosts if host in failures}
        drifted = {host: plan for host, plan in audited.items() if plan.changes or plan.problems}
        lines.append(_group_line(group, len(hosts), len(drifted), len(failed), paint))
        for names, body in fold((h, tuple(_host_lines(p, paint))) for h, p in drifted.items()):
            lines.append(f"  {paint.strong(listed(names, most) + ':')}")
            lines += [f"    {line}" for line in body]
        for names, body in fold(failed.items()):
            lines.append(
                f"  {paint.strong(listed(names, most) + ':')} {paint.removed('not audited')}"
            )
            lines += [f"    {clean(line, 400)}" for line in body]
    return lines + _unmanaged_lines(plans, most, paint)


def audit_json(plan: Plan) -> dict[str, Any]:
    """Return one host's audit as plain data; ``docs/guide.md`` documents the keys."""
    return {
        "drift": [_difference_json(change) for change in differences(plan)],
        "problems": [problem_json(problem) for problem in plan.problems],
        "unmanaged": list(plan.unmanaged),
    }


def differences(plan: Plan) -> list[Change]:
    """Return the changes that are drift: what only stays as it is while others change is none."""
    return [c for c in plan.changes if not c.what or c.before != c.after]


def when(change: Change) -> str:
    """Return when a difference is felt: ``now``, or ``at next boot``, which alone reads files."""
    return "at next boot" if change.kind == FILE else "now"


def _group_line(group: str, hosts: int, drifted: int, failed: int, paint: Paint) -> str:
    parts = []
    if drifted:
        parts.append(paint.changed(f"drift on {drifted}"))
    if failed:
        parts.append(paint.removed(f"{failed} not audited"))
    said = ", ".join(parts) or paint.added("no drift")
    return f"{paint.strong(clean(group))}: {counted(hosts, 'host')}, {said}"


def _host_lines(plan: Plan, paint: Paint) -> list[str]:
    resources: dict[str, list[Change]] = {}
    for change in differences(plan):
        resources.setdefault(change.key, []).append(change)
    lines = []
    for key, changes in resources.items():
        whole = next((c for c in changes if not c.what and c.action in (CREATE, DELETE)), None)
        if whole:
            # What a missing resource lacks, and what one too many has, needs no list.
            said = "expected, not there" if whole.action == CREATE else "there, not expected"
            lines.append(f"{paint.changed(f'{title(key)}: {said}')} {_felt(whole, paint)}")
            continue
        lines.append(f"{paint.changed(title(key))} {_felt(changes[0], paint)}")
        width = max(len(clean(change.what)) for change in changes)
        for change in changes:
            lines += _difference_lines(change, width)
    for problem in plan.problems:
        lines += problem_lines(problem, paint)
    return lines


def _felt(change: Change, paint: Paint) -> str:
    return paint.faint(f"({when(change)})")


def _difference_lines(change: Change, width: int) -> list[str]:
    what = f"  {clean(change.what):<{width}}"
    if not change.lines:
        return [f"{what}  expected {value(change.after)}, found {value(change.before)}"]
    words = {"+": "expected", "-": "found   "}
    return [
        f"{what if number == 0 else ' ' * len(what)}  {words[line[0]]} {clean(line[2:])}"
        for number, line in enumerate(change.lines)
    ]


def _difference_json(change: Change) -> dict[str, Any]:
    return {
        "resource": change.key,
        "attribute": change.what,
        "expected": encode(change.after),
        "actual": encode(change.before),
        "action": change.action,
        "when": when(change),
        **({"lines": list(change.lines)} if change.lines else {}),
    }


def _unmanaged_lines(plans: Mapping[str, Plan], most: int, paint: Paint) -> list[str]:
    bodies = (
        (host, tuple(title(key) for key in plan.unmanaged))
        for host, plan in plans.items()
        if plan.unmanaged
    )
    lines = [f"  {listed(hosts, most)}: {listed(keys, 0)}" for hosts, keys in fold(bodies)]
    if not lines:
        return []
    return ["", paint.faint("unmanaged (no intent names them; fleet leaves them alone):"), *lines]
