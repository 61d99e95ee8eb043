"""``fleet preset``."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import Here, JsonOption

app = new_app()


@command(
    app,
    "preset",
    """
    fleet preset                        their names, and what each is for
    fleet preset low-latency            what it says, to read or to copy into presets/
    """,
)
def preset(
    here: Here,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A preset to print.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the presets that a host may name under `presets:`, or print one.

    A file of the project's presets/ takes the place of fleet's own of that name.
    """
    from fleet.cli.project import open_project
    from fleet.cli.say import print_json
    from fleet.errors import UsageError

    presets = open_project(here.project).source.presets
    texts = {
        each: file.read_text(encoding="utf-8")
        for each in ([name] if name else presets.names())
        if (file := presets.file(each)) is not None
    }
    if name and not texts:
        raise UsageError(f"there is no preset {name!r}; there are {', '.join(presets.names())}")
    if as_json:
        print_json("preset", {"presets": texts})
    elif name:
        print(texts[name], end="")
    else:
        for each, text in texts.items():
            print(f"{each:<16}{text.partition(chr(10))[0].lstrip('# ')}")
