"""``fleet rollout``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import AllowOption, JsonOption, Scope, words

app = new_app()


def _wave(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[1-9]\d{0,6}|(?:[1-9]\d?|100)%", text):
        raise typer.BadParameter(f"{text!r} is neither a number of hosts (10) nor a share (25%)")
    return text


@command(
    app,
    "rollout",
    """
    fleet rollout --group rack3
    fleet rollout --group rack3 --canary 1 --wave 25% --soak 60 --max-failures 1
    fleet rollout --plan rack3.plan --yes         exactly what was reviewed
    fleet rollout --host hv-r3-1 --allow drain    permit what guests must leave for
    fleet rollout --resume RUN                    go on with a run that was killed
    fleet rollout --resume RUN --max-failures 3   with another option from now on
    """,
)
def rollout(
    scope: Scope,
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="Run a plan written by plan --out, and nothing else; a host that has moved since "
            "refuses it.",
            show_default=False,
        ),
    ] = None,
    canary: Annotated[
        int | None,
        typer.Option(
            "--canary",
            metavar="N",
            min=0,
            help="Hosts that change first.",
            show_default="the intent's, or 1",
        ),
    ] = None,
    wave: Annotated[
        str | None,
        typer.Option(
            "--wave",
            metavar="N|P%",
            callback=_wave,
            help="Hosts that change together after that: a number, or a share of all.",
            show_default="the intent's, or the rest at once",
        ),
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option(
            "--soak",
            metavar="S",
            min=0,
            help="Seconds to watch each wave before the next one, and the last one before the end; "
            "then its hosts are audited.",
            show_default="the intent's, or 0",
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures",
            metavar="N",
            min=0,
            help="Failed hosts to bear, over all waves.",
            show_default="the intent's, or 0",
        ),
    ] = None,
    confirm_timeout: Annotated[
        int | None,
        typer.Option(
            "--confirm-timeout",
            metavar="S",
            min=10,
            max=86400,
            help="Seconds until a host that is not confirmed puts itself back.",
            show_default="the intent's, or 120",
        ),
    ] = None,
    allow: AllowOption = (),  # type: ignore[assignment]
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that was killed or stopped; hosts it committed are skipped. "
            "Its options hold, save those given now.",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Change hosts to what the intent says: canary first, then in waves.

    Shows the plan and asks. Each host arms its own dead-man switch before the first change, and is
    confirmed over a new connection; a host that cannot be reached puts itself back. Ctrl-C once
    settles what is in flight and stops; twice stops at once.

    Exit code 4 if hosts were put back, 1 if some failed before anything changed, 5 if a host needs
    a person.
    """
    from fleet.cli.changing import Wishes, roll_out

    wishes = Wishes(
        canary=canary,
        wave=wave,
        soak=soak,
        max_failures=max_failures,
        confirm_timeout=confirm_timeout,
        allow=words(allow),
        resume=resume,
        yes=yes,
        as_json=as_json,
    )
    return roll_out(scope, plan_file, wishes)
