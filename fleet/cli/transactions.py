"""``fleet status``, ``fleet confirm`` and ``fleet revert``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import AllowOption, JsonOption, Scope, words

app = new_app()

AllOption = Annotated[bool, typer.Option("--all", help="All that waits, on every host.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

TransactionArgument = Annotated[
    str,
    typer.Argument(
        metavar="TX",
        help="The transaction, as fleet status shows it, which is also the run's name. "
        "Without one: what waits on the hosts of the selectors, or of --all.",
        show_default=False,
        autocompletion=complete.transactions,
    ),
]


@command(
    app,
    "status",
    """
    fleet status                        every host of the inventory
    fleet status --group rack3 --json
    """,
)
def status(scope: Scope, as_json: JsonOption = False) -> int:
    """Show which hosts are armed, how long they wait, and what happens if you do nothing.

    Exit code 5 if a host could not put itself back, 3 if something is in flight, 0 if all is calm.
    """
    from fleet.cli.settling import show_status

    return show_status(scope, as_json)


@command(
    app,
    "confirm",
    """
    fleet status                        names the transaction
    fleet confirm 20260314-101500-7f3a
    fleet confirm --group rack3         whatever waits there, after a question
    fleet confirm --all --yes
    """,
)
def confirm(
    scope: Scope,
    transaction: TransactionArgument = "",
    everything: AllOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Keep a change that waits for its confirmation.

    Each host is dialled anew, so that what is confirmed is a host that can be reached.
    """
    from fleet.cli.settling import confirm_transaction
    from fleet.cli.waiting import Answer

    return confirm_transaction(scope, transaction, Answer(everything, yes, as_json))


@command(
    app,
    "revert",
    """
    fleet status                        names the transaction, fleet history the runs
    fleet revert 20260314-101500-7f3a
    fleet revert --all                  whatever waits; committed hosts stay as they are
    fleet revert 20260314-101500-7f3a --allow foreign    lets go what others changed since
    """,
)
def revert(
    scope: Scope,
    transaction: TransactionArgument = "",
    everything: AllOption = False,
    yes: YesOption = False,
    allow: AllowOption = (),  # type: ignore[assignment]
    as_json: JsonOption = False,
) -> int:
    """Put hosts back: at once where the change still waits, by a rollout where it was committed.

    A committed host goes back to exactly what was there, from the snapshot it kept. What others
    added since stays; what cannot stay refuses the way back, by name. It says what it will do to
    each host, and asks. Without TX only what waits is put back, nothing that was committed.

    Exit code 0 when all are back.
    """
    from fleet.cli.settling import revert_transaction
    from fleet.cli.waiting import Answer

    return revert_transaction(scope, transaction, words(allow), Answer(everything, yes, as_json))
