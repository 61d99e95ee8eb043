"""``fleet intent``: what the inventory says, merged, and whether it is sound."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import Here, JsonOption, Scope

app = new_app()


@app.callback(help="Show a host's merged intent, or validate everything. Contacts no host.")
def intent() -> None:
    """Group the intent's commands."""


@command(
    app,
    "show",
    """
    fleet intent show hv-r3-1
    fleet intent show hv-r3-1 --explain     with the file and line of every value
    """,
)
def show(
    here: Here,
    host: Annotated[
        str,
        typer.Argument(
            metavar="HOST", help="A host of the inventory.", autocompletion=complete.hosts
        ),
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each value which file and line it is from.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a host's network should be, after merge and rendering."""
    from fleet.cli.project import open_project
    from fleet.cli.show import show_intent

    show_intent(open_project(here.project), host, explain, as_json)


@command(
    app,
    "validate",
    """
    fleet intent validate
    fleet intent validate --group rack3
    """,
)
def validate(scope: Scope, as_json: JsonOption = False) -> int:
    """Check the whole intent and say where it is wrong: file, line, path, nearest valid key.

    Without a selector every host is checked. All errors are shown, not only the first.
    """
    from fleet.cli.project import open_project
    from fleet.cli.show import validate_intent

    return validate_intent(open_project(scope.project), scope, as_json)
