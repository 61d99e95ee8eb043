"""What ``observe --as-intent`` and ``adopt`` do."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.adopt import Adopted, adopted, text_of
from fleet.cli.options import OneHost, Scope
from fleet.cli.say import print_json
from fleet.cli.work import Work, counting, finish, trouble_lines, work_of, work_on
from fleet.errors import FleetError, UsageError
from fleet.progress import Count
from fleet.report.text import clean, counted

if TYPE_CHECKING:
    from fleet.rollout.result import HostPlan, Observed


def show_intent(how: OneHost, host: str, kinds: Sequence[str], as_json: bool) -> None:
    """Print a running host as lean intent, YAML or JSON; what is left out goes to stderr."""
    if kinds:
        raise UsageError("--as-intent is about the whole host: leave --kind out")
    work = work_on(how, host)
    found = finish(_observe(work))[host]
    if as_json:
        print_json("observe", {host: {"intent": found.intent, "notes": found.notes}})
        return
    # YAML's own escapes keep what a host sent from reaching the terminal raw.
    print(text_of(found.intent) if found.intent else "{}\n", end="")
    _say_notes({host: found})


def _say_notes(found: Mapping[str, Adopted]) -> None:
    for host, each in found.items():
        for note in each.notes:
            print(f"{clean(host)}: {clean(note)}", file=sys.stderr)


async def _observe(work: Work) -> dict[str, Adopted]:
    """Return every host of a work as intent; raises FleetError where one cannot be asked."""
    from fleet.intent.project import settings_of

    project = work.project
    ignore = {host: settings_of(project, host).ignore for host in work.hosts}
    with Count("observe", len(work.hosts)) as count:
        async with work.engine(counting(count)) as engine:
            seen = await engine.observe_lean(ignore)
    _raise_trouble(seen)
    return {
        host: adopted(
            host,
            each.resources,
            str(project.source.connection(host, "hostname") or host),
            project.assembler,
        )
        for host, each in seen.items()
    }


def _raise_trouble(seen: Mapping[str, Observed]) -> None:
    lines = [
        f"{host}: {line}"
        for host, each in seen.items()
        if each.trouble is not None
        for line in trouble_lines(each.trouble)[:1]
    ]
    if lines:
        what = "; ".join(lines)
        raise FleetError(f"{what}; what hosts share is known only when each of them answers")


def adopt(scope: Scope, write: bool, as_json: bool) -> int:
    """Print the inventory's diff that takes hosts in, write it where asked, return the exit code.

    The plans of the hosts with the new inventory are made before anything is written.
    """
    from fleet.cli.reading import exit_of, print_plans
    from fleet.inventory_diff import Draft

    if not scope.narrowed:
        raise UsageError("say which hosts: --group, --host or a filter")
    work = work_of(scope)
    found = finish(_observe(work))
    draft = Draft(work.project, found, scope.group)
    diff = draft.diff()
    if not as_json:
        print(diff, end="")
    _say_notes(found)
    for path, block, why in draft.refused:
        print(f"{path}: {why}; write this by hand:\n{block}", file=sys.stderr)
    plans = finish(_plans(work, draft.files))
    if as_json:
        hosts = {
            host: {
                "intent": each.intent,
                "notes": each.notes,
                "changes": len(plans[host].plan.changes) if plans[host].plan else None,  # type: ignore[union-attr]
            }
            for host, each in found.items()
        }
        print_json("adopt", hosts, exit_of(plans), diff=diff, written=write)
    elif exit_of(plans):
        print_plans(plans, scope.verbose, sys.stderr)
    if write:
        draft.write()
    if not as_json:
        _say(draft.files, plans, write, len(found))
    return 2 if draft.refused else exit_of(plans)


async def _plans(work: Work, files: Mapping[Path, str]) -> dict[str, HostPlan]:
    """Plan hosts as the changed inventory would have them, from a copy of it."""
    import shutil
    import tempfile
    from dataclasses import replace

    from fleet.intent import load_project

    with tempfile.TemporaryDirectory(prefix="fleet-adopt-") as folder:
        copy = Path(folder)
        shutil.copytree(work.project.path / "inventory", copy / "inventory")
        for name in ("templates", "tasks"):
            if (work.project.path / name).is_dir():
                (copy / name).symlink_to((work.project.path / name).resolve())
        for path, text in files.items():
            (copy / path).write_text(text, encoding="utf-8")
        tried = replace(work, project=load_project(copy))
        with Count("plan", len(work.hosts)) as count:
            async with tried.engine(counting(count)) as engine:
                return await engine.plan(work.selection)


def _say(files: Mapping[Path, str], plans: Mapping[str, Any], write: bool, hosts: int) -> None:
    differing = [h for h, p in plans.items() if p.plan is None or p.plan.changes or p.plan.problems]
    said = f"{counted(hosts, 'host')}: "
    if not files:
        said += "the inventory has all of it already"
    elif write:
        said += f"written to {', '.join(str(path) for path in files)}"
    else:
        said += "nothing was written; --write does it"
    if differing:
        said += f"; plan would still change {', '.join(differing)}, see above"
    else:
        said += "; with it every plan is empty"
    print(said, file=sys.stderr)
