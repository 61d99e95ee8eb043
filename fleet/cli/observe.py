"""``fleet observe``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption, OneHost

app = new_app()


@command(
    app,
    "observe",
    """
    fleet observe hv-r3-1
    fleet observe hv-r3-1 --kind bridge --kind veth --json
    fleet observe hv-r3-1 --as-intent             a host that exists, as intent
    """,
)
def observe(
    how: OneHost,
    host: Annotated[
        str,
        typer.Argument(
            metavar="HOST", help="A host of the inventory.", autocompletion=complete.hosts
        ),
    ],
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only this kind of resource. Repeat for more.",
            autocompletion=complete.kinds,
            show_default=False,
        ),
    ] = (),  # type: ignore[assignment]
    as_intent: Annotated[
        bool,
        typer.Option(
            "--as-intent",
            help="Lean: only what somebody configured, ready for the host's data in the inventory.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a host's network as it is, in the words an intent would use. Changes nothing."""
    if as_intent:
        from fleet.cli.adopting import show_intent

        show_intent(how, host, kind, as_json)
        return
    from fleet.cli.reading import show_observation

    show_observation(how, host, kind, as_json)
