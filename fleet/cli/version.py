"""``fleet version``."""

from __future__ import annotations

import json
import platform

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import JsonOption

app = new_app()


@command(
    app,
    "version",
    """
    fleet version
    fleet version --json
    """,
)
def version(as_json: JsonOption = False) -> None:
    """Print fleet's version, and Python's."""
    from fleet import __version__

    if as_json:
        print(json.dumps({"fleet": __version__, "python": platform.python_version()}))
    else:
        print(f"fleet {__version__} (Python {platform.python_version()})")
