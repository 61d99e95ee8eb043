"""``fleet schema``."""

from __future__ import annotations

import json

from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import Here, JsonOption

app = new_app()


@command(
    app,
    "schema",
    """
    fleet schema > intent.schema.json
    # yaml-language-server: $schema=../intent.schema.json     first line of inventory/groups.yaml
    """,
)
def schema(here: Here, as_json: JsonOption = False) -> None:
    """Print the JSON Schema of the intent, for editors that complete and check YAML.

    It is JSON with --json and without.
    """
    from fleet.intent import intent_schema

    print(json.dumps(intent_schema(), indent=2))
