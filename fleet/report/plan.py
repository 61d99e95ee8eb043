"""What would change: plans as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.host.change import CREATE, DELETE, IMPACTS, Change, Plan, Problem
from fleet.host.spec import encode
from fleet.report.text import Paint, block, clean, counted, fold, listed, value

MARKS = {CREATE: "+", DELETE: "-"}
#: Lines of a text, such as a table's rules, that a plan shows by itself.
LINES = 20


def worst(plan: Plan) -> str:
    """Return the worst impact of a plan's changes."""
    return max((change.impact for change in plan.changes), key=_rank, default="none")


def guests_of(changes: Sequence[Change]) -> list[str]:
    """Return the guests that changes touch, each once, in order of appearance."""
    return list(dict.fromkeys(guest for change in changes for guest in change.guests))


def plan_text(
    plans: Mapping[str, Plan],
    failures: Mapping[str, Sequence[str]] | None = None,
    paint: Paint | None = None,
    verbose: bool = False,
) -> list[str]:
    """Return the lines that show plans, hosts with equal plans folded together.

    ``failures`` holds, for hosts without a plan, the lines that say why.
    """
    paint = paint or Paint(False)
    most = 0 if verbose else 6
    changing = {host: plan for host, plan in plans.items() if plan.changes or plan.problems}
    lines: list[str] = []
    bodies = ((host, tuple(_plan_lines(plan, paint, most))) for host, plan in changing.items())
    for hosts, body in fold(bodies):
        heading = paint.strong(f"{listed(hosts, most)}:")
        lines += [f"{heading} {_summary(changing[hosts[0]])}", *body, ""]
    for hosts, body in fold((host, tuple(text)) for host, text in (failures or {}).items()):
        lines += [f"{paint.strong(listed(hosts, most) + ':')} {paint.removed('no plan')}"]
        lines += [*(f"  {clean(line, 400)}" for line in body), ""]
    return [*lines, plan_summary(plans, len(failures or {}))]


def plan_summary(plans: Mapping[str, Plan], failed: int = 0) -> str:
    """Return the one line that counts hosts and changes."""
    changing = [plan for plan in plans.values() if plan.changes]
    blocked = sum(bool(plan.problems) for plan in plans.values())
    same = sum(not plan.changes and not plan.problems for plan in plans.values())
    total = sum(len(plan.changes) for plan in changing)
    parts = []
    if changing:
        parts.append(f"{len(changing)} to change ({counted(total, 'change')})")
    if same:
        parts.append(f"{same} unchanged")
    if blocked:
        parts.append(f"{blocked} with problems")
    if failed:
        parts.append(f"{failed} without a plan")
    return f"{counted(len(plans) + failed, 'host')}: {', '.join(parts) or 'nothing to do'}."


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data; ``docs/guide.md`` documents the keys."""
    return {
        "digest": plan.digest,
        "impact": worst(plan),
        "guests": guests_of(plan.changes),
        "changes": [change_json(change) for change in plan.changes],
        "problems": [problem_json(problem) for problem in plan.problems],
        "unmanaged": list(plan.unmanaged),
    }


def change_json(change: Change) -> dict[str, Any]:
    """Return a change as plain data."""
    return {
        "resource": change.key,
        "action": change.action,
        "attribute": change.what,
        "before": encode(change.before),
        "after": encode(change.after),
        "impact": change.impact,
        "guests": list(change.guests),
        "reason": change.reason,
        **({"lines": list(change.lines)} if change.lines else {}),
    }


def problem_json(problem: Problem) -> dict[str, str]:
    """Return a problem as plain data."""
    return {
        "resource": problem.resource,
        "attribute": problem.what,
        "expected": problem.expected,
        "actual": problem.actual,
        "remedy": problem.remedy,
    }


def problem_lines(problem: Problem, paint: Paint) -> list[str]:
    """Return a problem as lines: what is wrong, what was expected, what is, what to do."""
    subject = " ".join(filter(None, (title(problem.resource), clean(problem.what))))
    lines = [f"{paint.removed('!')} {subject}".rstrip()]
    for word, text in (
        ("expected", problem.expected),
        ("found", problem.actual),
        ("do", problem.remedy),
    ):
        if text:
            lines.append(f"    {word:<9}{clean(text, 400)}")
    return lines


def title(key: str) -> str:
    """Return a resource's key as words: ``ns1:bridge/br0`` is ``bridge br0 in ns1``."""
    head, slash, name = clean(key).partition("/")
    if not slash:
        return head
    namespace, colon, kind = head.rpartition(":")
    return f"{kind} {name} in {namespace}" if colon else f"{head} {name}"


def _rank(impact: str) -> int:
    # An impact this fleet does not know is worse than any it knows.
    return IMPACTS.index(impact) if impact in IMPACTS else len(IMPACTS)


def _summary(plan: Plan) -> str:
    parts = [counted(len(plan.changes), "change")] if plan.changes else []
    if plan.problems:
        parts.append(counted(len(plan.problems), "problem"))
    impact = worst(plan)
    if impact != "none":
        guests = guests_of(plan.changes)
        parts.append(
            f"impact {clean(impact)}" + (f" on {counted(len(guests), 'guest')}" if guests else "")
        )
    return ", ".join(parts)


def _plan_lines(plan: Plan, paint: Paint, most: int) -> list[str]:
    resources: dict[str, list[Change]] = {}
    for change in plan.changes:
        resources.setdefault(change.key, []).append(change)
    lines: list[str] = []
    for key, changes in resources.items():
        whole = next((c for c in changes if not c.what and c.action in MARKS), None)
        mark = MARKS[whole.action] if whole else "~"
        head = f"{mark} {title(key)}"
        if len(changes) == 1 and changes[0].what == "value":
            # A sysctl is its value: one line says both.
            first, *notes = _change_lines(changes[0], paint, most)
            mark = MARKS[CREATE] if changes[0].before is None else mark
            said = first.strip().replace(f"{mark} value", f"{mark} {title(key)}", 1)
            lines += [f"  {said}", *notes]
            continue
        lines.append(f"  {_marked(mark, head, paint)}")
        for change in changes:
            lines += _change_lines(change, paint, most)
    for problem in plan.problems:
        lines += [f"  {line}" for line in problem_lines(problem, paint)]
    return lines


def _change_lines(change: Change, paint: Paint, most: int) -> list[str]:
    lines = (
        [_marked(*line, paint) for line in _attribute_lines(change, most)] if change.what else []
    )
    note = _note(change, most)
    if note:
        painted = paint.faint(note) if change.impact == "none" else paint.changed(note)
        # An impact alone is a word on the line it belongs to; guests and reasons get their own.
        if change.what and not change.guests and not change.reason:
            lines[-1] += f"  {painted}"
        else:
            lines.append(f"  {painted}" if change.what else painted)
    if not change.what and change.action == CREATE:
        lines += [_marked("+", line, paint) for line in _created(change, LINES if most else 0)]
    return [f"      {line}" for line in lines]


def _created(change: Change, most: int) -> list[str]:
    """Return what a new resource has, a line each."""
    if isinstance(change.after, str):
        return [f"  {line}" for line in block(change.after, most)]
    lines = []
    for name, data in change.after.items() if isinstance(change.after, dict) else ():
        if isinstance(data, str) and "\n" in data.rstrip("\n"):
            lines += [f"+ {clean(name)}", *(f"    {line}" for line in block(data, most))]
        # A rule's name is all that it has.
        elif data is not None and f"{name} {data}" not in change.name:
            lines.append(f"+ {clean(name)} {value(data)}")
    return lines


def _attribute_lines(change: Change, most: int) -> list[tuple[str, str]]:
    """Return a mark and a text for each line; of lines of a file, those that come and go."""
    before, after, what = change.before, change.after, clean(change.what)
    if change.lines:
        shown = change.lines[: LINES if most else None]
        more = counted(len(change.lines) - len(shown), "more line")
        rest = [] if len(shown) == len(change.lines) else [("~", f"  … {more}; --verbose shows it")]
        return [("~", f"~ {what}"), *((line[:1], f"    {clean(line)}") for line in shown), *rest]
    if not isinstance(before, (list, tuple)) or not isinstance(after, (list, tuple)):
        return [attribute_line(change)]
    gone = [("-", f"- {what} {value(each)}") for each in before if each not in after]
    come = [("+", f"+ {what} {value(each)}") for each in after if each not in before]
    return [*gone, *come] or [attribute_line(change)]


def attribute_line(change: Change) -> tuple[str, str]:
    """Return the mark and the text of a change of one attribute."""
    what = clean(change.what)
    if change.before is None:
        return "+", f"+ {what} {value(change.after)}"
    if change.after is None:
        return "-", f"- {what} {value(change.before)}"
    if change.before == change.after:
        return "=", f"= {what} stays {value(change.after)}"
    return "~", f"~ {what} {value(change.before)} → {value(change.after)}"


def _note(change: Change, most: int) -> str:
    parts = []
    if change.impact != "none":
        parts.append(f"impact {clean(change.impact)}")
    if change.guests:
        noun = "guest" if len(change.guests) == 1 else "guests"
        parts.append(f"{noun} {listed(change.guests, most)}")
    if change.reason:
        parts.append(clean(change.reason))
    return ": ".join(parts[:2]) + (f" ({parts[2]})" if len(parts) > 2 else "")


def _marked(mark: str, text: str, paint: Paint) -> str:
    paints = {"+": paint.added, "-": paint.removed, "=": paint.faint}
    return paints.get(mark, paint.changed)(text)
