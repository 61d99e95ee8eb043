"""``fleet adopt``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption, Scope

app = new_app()


@command(
    app,
    "adopt",
    """
    fleet adopt --group rack3                 the diff to review
    fleet adopt --group rack3 --write
    fleet adopt --host hv-r3-1 --host hv-r3-2
    """,
)
def adopt(
    scope: Scope,
    write: Annotated[
        bool, typer.Option("--write", help="Write the diff into inventory/, comments kept.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Take hosts that already run into the inventory: what a group's hosts share goes up into it.

    Prints a unified diff of the inventory, and says what plan would do with it. Exit code 3 if a
    plan would still change something, 2 if a part of it has to be written by hand.
    """
    from fleet.cli.adopting import adopt as carry_out

    return carry_out(scope, write, as_json)
