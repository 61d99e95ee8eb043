"""``fleet run``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption, Scope

app = new_app()


@command(
    app,
    "run",
    """
    fleet run observe --group rack3
    fleet run drain --host hv-r3-1 -- wait=300 force=false
    """,
)
def run(
    scope: Scope,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A function in the project's tasks/ of the same name as its file, or in fleet's.",
            autocompletion=complete.tasks,
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- KEY=VALUE...]", help="The task's arguments.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run one Nornir task of the project on the selected hosts."""
    from fleet.cli.tasks import run_task

    return run_task(scope, task, arguments or [], as_json)
