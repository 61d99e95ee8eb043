"""``fleet history``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import Here, JsonOption

app = new_app()


@command(
    app,
    "history",
    """
    fleet history                       the last runs, newest first
    fleet history --last 100 --json
    fleet history 17                    one run in full
    """,
)
def history(
    here: Here,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="One run in full.",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=1, help="How many runs to list.")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show past runs: when, who, which revision of the inventory, how each host ended."""
    from fleet.cli.past import show_run, show_runs

    if run is None:
        show_runs(here, last, as_json)
    else:
        show_run(here, run, as_json)
