"""``fleet init``: a new project from the one that fleet carries."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.command import app as new_app
from fleet.cli.command import command

app = new_app()

STARTER = Path(__file__).parents[1] / "_starter"
PARTS = ("inventory", "templates", "tasks")


@command(
    app,
    "init",
    """
    fleet init my-fleet                 make my-fleet/ with the example
    cd my-fleet && fleet intent validate
    """,
)
def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the project goes; made if missing.")
    ],
) -> None:
    """Make a new project: an example inventory, its templates and the standard tasks.

    Nothing that is there already is overwritten.
    """
    from fleet.errors import UsageError

    taken = [part for part in PARTS if os.path.lexists(directory / part)]
    if taken:
        raise UsageError(
            f"{directory}/{taken[0]} is there already, and nothing is overwritten: "
            "name another directory, or move it away"
        )
    copy_starter(directory)
    print(f"{directory} is a fleet project: inventory/ is an example to replace by yours.")
    print(f"Next: cd {directory} && fleet intent validate")


def copy_starter(directory: Path) -> None:
    """Copy the starter's parts into a directory, which is left without a half-copied part."""
    from fleet.errors import UsageError

    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            staged = directory / f".{part}.new"
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(STARTER / part, staged, ignore=shutil.ignore_patterns("__pycache__"))
            staged.rename(directory / part)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error}") from error
