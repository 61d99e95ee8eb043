"""``fleet audit``."""

from __future__ import annotations

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption, Scope

app = new_app()


@command(
    app,
    "audit",
    """
    fleet audit                         every host of the inventory
    fleet audit --group rack3
    fleet audit --json | jq '.hosts | map_values(.drift | length)'
    """,
)
def audit(scope: Scope, as_json: JsonOption = False) -> int:
    """Report where hosts differ from the intent. Changes nothing.

    A group without drift is one line. Exit code 3 if something has drifted, 1 if a host could not
    be audited, 0 if all is as intended. What no intent names is listed apart and is not drift.
    """
    from fleet.cli.reading import show_audit

    return show_audit(scope, as_json)
