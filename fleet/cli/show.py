"""What ``fleet intent show`` and ``fleet intent validate`` do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Scope
from fleet.cli.say import error_lines, print_json
from fleet.cli.select import select
from fleet.report.intent import explained, intent_lines
from fleet.report.text import counted, paint_for

if TYPE_CHECKING:
    from fleet.errors import IntentError
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
    from fleet.intent import validate

    hosts = select(project.inventory, scope)
    errors = validate(project, hosts)
    code = 2 if errors else 0
    if as_json:
        print_json("intent validate", {}, code, checked=len(hosts), errors=list(map(_json, errors)))
        return code
    for error in errors:
        for line in error_lines(error):
            print(line, file=sys.stderr)
    said = paint_for().added("the intent is sound") if not errors else counted(len(errors), "error")
    print(f"{counted(len(hosts), 'host')}: {said}.")
    return code


def _json(error: IntentError) -> dict[str, Any]:
    return {
        "file": error.file,
        "line": error.line,
        "path": error.path,
        "message": error.message,
        "nearest": error.nearest,
        "remedy": error.remedy,
        "host": error.host,
    }
