"""What ``fleet intent show`` and ``fleet intent validate`` do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Scope
from fleet.cli.say import error_lines, print_json
from fleet.cli.select import select
from fleet.errors import IntentError
from fleet.report.intent import explained, intent_lines
from fleet.report.text import Paint, colourful, counted, paint_for

if TYPE_CHECKING:
    from fleet.intent import Project


def show_intent(project: Project, host: str, explain: bool, as_json: bool) -> None:
    """Print a host's intent; the state is made too, so what is wrong with it is said."""
    from fleet.intent import intent_of, render_state

    select(project.inventory, Scope(host=[host]))
    tree = intent_of(project, host)
    if as_json:
        state = render_state(project, host)
        print_json("intent show", {host: {"values": explained(tree), "state": state.wire()}})
        return
    for line in intent_lines(tree, explain, paint_for()):
        print(line)


def validate_intent(project: Project, scope: Scope, as_json: bool) -> int:
    """Make the state of every selected host; print what is wrong and return 2, or 0."""
    from fleet.intent import render_state

    hosts = select(project.inventory, scope)
    wrong: dict[str, IntentError] = {}
    for host in hosts:
        try:
            render_state(project, host)
        except IntentError as error:
            wrong[host] = error
    code = 2 if wrong else 0
    if as_json:
        print_json("intent validate", {host: _json(wrong.get(host)) for host in hosts}, code)
    elif wrong:
        _print_wrong(wrong)
    else:
        said = Paint(colourful(sys.stdout)).added("the intent is sound")
        print(f"{counted(len(hosts), 'host')}: {said}.")
    return code


def _print_wrong(wrong: dict[str, IntentError]) -> None:
    # What a group says wrongly is wrong on each of its hosts: once is enough.
    seen: dict[str, list[str]] = {}
    for host, error in wrong.items():
        for each in (error, *error.others):
            seen.setdefault(error_lines(_alone(each))[0], []).append(host)
    for line, hosts in seen.items():
        more = f" (on {counted(len(hosts), 'host')})" if len(hosts) > 1 else f" (on {hosts[0]})"
        print(f"{line}{more}", file=sys.stderr)


def _alone(error: IntentError) -> IntentError:
    return IntentError(
        error.message, error.place, error.path, nearest=error.nearest, remedy=error.remedy
    )


def _json(error: IntentError | None) -> dict[str, Any]:
    found = [] if error is None else [error, *error.others]
    return {
        "errors": [
            {
                "file": each.file,
                "line": each.line,
                "path": each.path,
                "message": each.message,
                "nearest": each.nearest,
                "remedy": each.remedy,
            }
            for each in found
        ]
    }
