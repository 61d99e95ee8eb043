"""What ``fleet history`` does: past runs, from the record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Here
from fleet.cli.project import open_project
from fleet.cli.say import print_json
from fleet.report.run import MEANING, Row, run_table, run_text
from fleet.report.text import clean, duration, paint_for, table

if TYPE_CHECKING:
    from fleet.record.reader import PastHost, PastRun


def show_runs(here: Here, last: int, as_json: bool) -> None:
    """Print the last runs, newest first."""
    from fleet.record.reader import runs

    found = runs(open_project(here.project), last)
    if as_json:
        print_json("history", {}, runs=[_run_json(each) for each in found])
        return
    if not found:
        print("no run has been recorded yet")
        return
    heads = ["run", "began", "took", "kind", "hosts", "by", "revision"]
    for line in table([_cells(each) for each in found], heads):
        print(line)


def show_run(here: Here, name: str, as_json: bool) -> None:
    """Print one run in full."""
    from fleet.record.reader import run

    found = run(open_project(here.project), name)
    if as_json:
        hosts = {host: _host_json(each) for host, each in found.hosts.items()}
        print_json("history", hosts, run=_run_json(found))
        return
    for label, text in _facts(found):
        print(f"{label:<10}{text}")
    rows = [_row(each) for each in found.hosts.values()]
    print()
    for line in [*run_text(rows, paint_for()), "", *run_table(rows)]:
        print(line)
    if here.verbose:
        for host in found.hosts.values():
            _print_steps(host)


def _facts(run: PastRun) -> list[tuple[str, str]]:
    facts = [
        ("run", clean(run.id)),
        ("kind", clean(run.kind)),
        ("began", _clock(run.started)),
        ("took", _took(run)),
        ("by", f"{clean(run.controller)} (process {run.pid})"),
        ("revision", clean(run.revision) or "not in git"),
    ]
    said = ", ".join(f"{clean(k)} {clean(v)}" for k, v in run.options.items() if v or v == 0)
    facts += [("options", said)] if said else []
    return facts + ([("stopped", clean(run.stopped, 400))] if run.stopped else [])


def _print_steps(host: PastHost) -> None:
    print(f"\n{clean(host.host)}: {clean(host.outcome)}")
    for phase, began, took in host.phases:
        print(f"  {began:8.2f} s  {clean(phase):<10} {took:.2f} s")
    for address, state, when in host.confirms:
        print(f"  confirm over {clean(address)}: {clean(state)} at {_clock(when)}")


def _cells(run: PastRun) -> list[str]:
    ends = [f"{run.outcomes[o]} {o}" for o in MEANING if run.outcomes.get(o)]
    return [
        clean(run.id),
        _clock(run.started),
        _took(run),
        clean(run.kind),
        ", ".join(ends),
        clean(run.controller),
        _short(run.revision),
    ]


def _short(revision: str) -> str:
    commit, dash, dirty = clean(revision).partition("-")
    return f"{commit[:12]}{dash}{dirty}"


def _took(run: PastRun) -> str:
    return "not ended" if run.ended is None else duration(run.ended - run.started)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _row(host: PastHost) -> Row:
    from fleet.host.change import Problem
    from fleet.host.spec import decode

    return Row(
        host.host,
        host.outcome,
        host.wave,
        host.changes,
        host.seconds,
        host.message,
        tuple(decode(Problem, problem) for problem in host.problems),
        host.transaction,
    )


def _run_json(run: PastRun) -> dict[str, Any]:
    return {
        "run": run.id,
        "kind": run.kind,
        "started": run.started,
        "ended": run.ended,
        "controller": run.controller,
        "revision": run.revision,
        "stopped": run.stopped,
        "outcomes": run.outcomes,
        "options": run.options,
    }


def _host_json(host: PastHost) -> dict[str, Any]:
    return {
        "outcome": host.outcome,
        "wave": host.wave,
        "changes": host.changes,
        "seconds": host.seconds,
        "message": host.message,
        "problems": list(host.problems),
        "transaction": host.transaction,
        "plan": host.plan,
        "phases": [{"phase": p, "began": b, "took": t} for p, b, t in host.phases],
        "confirms": [{"address": a, "state": s, "at": w} for a, s, w in host.confirms],
    }
