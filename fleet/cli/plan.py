"""``fleet plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption, Scope

app = new_app()


@command(
    app,
    "plan",
    """
    fleet plan --group rack3
    fleet plan --host hv-r3-1 --host hv-r3-2 --json
    fleet plan --group rack3 --out rack3.plan     for: fleet rollout --plan rack3.plan
    """,
)
def plan(
    scope: Scope,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the plan to a file, for rollout --plan.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show what would change on each host, and which guests it touches. Changes nothing.

    + comes, ~ changes, - goes, ! cannot be done as it is. Exit code 3 if something would change,
    0 if nothing would.
    """
    from fleet.cli.reading import show_plan

    return show_plan(scope, out, as_json)
