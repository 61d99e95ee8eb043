"""Shell completion: names read straight from the project's files, nothing heavy imported.

A completion that is slow or prints an error is worse than none: what cannot be read completes to
nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

#: A key at the left margin of a YAML file: every host, every group.
_TOP_KEY = re.compile(r"""^(?:"([^"]+)"|'([^']+)'|([^\s#'"{}\[\]:][^:#\n]*?))\s*:(?:\s|$)""", re.M)
LABS = Path("/run/fleet-lab")


def hosts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a host's name."""
    return _starting(_keys(ctx, "hosts"), incomplete)


def groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a group's name."""
    return _starting(_keys(ctx, "groups"), incomplete)


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a task: the project's, then the starter's."""
    folders = [_project(ctx) / "tasks", Path(__file__).parents[1] / "_starter" / "tasks"]
    names = (path.stem for folder in folders for path in _listed(folder) if path.suffix == ".py")
    return _starting((name for name in names if not name.startswith("_")), incomplete)


def labs(incomplete: str) -> list[str]:
    """Complete the name of a lab that is up."""
    return _starting((path.name for path in _listed(LABS)), incomplete)


def find_project(start: Path) -> Path | None:
    """Return the nearest directory with inventory/ in it, from a directory upward."""
    return next((d for d in (start, *start.parents) if (d / "inventory").is_dir()), None)


def _project(ctx: typer.Context) -> Path:
    given = ctx.params.get("project") or ctx.find_root().params.get("project")
    named = given or os.environ.get("FLEET_PROJECT")
    return Path(named) if named else find_project(Path.cwd()) or Path.cwd()


def _keys(ctx: typer.Context, name: str) -> Iterator[str]:
    path = _project(ctx) / "inventory" / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    for match in _TOP_KEY.finditer(text):
        yield next(filter(None, match.groups()))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _starting(names: Any, incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """Complete the name of a kind."""
    from fleet.host.registry import BY_NAME

    return _starting(BY_NAME, incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a past run, newest first, from a record in SQLite."""
    import sqlite3

    from fleet.errors import UsageError
    from fleet.record.place import record_url, sqlite_file

    try:
        file = sqlite_file(record_url(_project(ctx), make=False))
        if file is None:
            return []
        record = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=0.1)
        try:
            rows = record.execute("SELECT id FROM runs ORDER BY started DESC LIMIT 100").fetchall()
        finally:
            record.close()
    except (sqlite3.Error, UsageError, OSError):
        return []
    return _starting((row[0] for row in rows), incomplete)


#: A transaction carries the name of its run.
transactions = runs
