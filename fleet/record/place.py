"""Where the record and the nonces lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fleet.errors import UsageError

VARIABLE = "FLEET_RECORD"
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


def state_directory(project: Path, make: bool = True) -> Path:
    """Return the private directory of a project's own state, mode 0700.

    It is ``.fleet`` in the project where that can be written, else one under XDG_STATE_HOME named
    for the project. Raises UsageError where neither can be made.
    """
    project = project.resolve()
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    short = sha256(str(project).encode()).hexdigest()[:12]
    elsewhere = Path(home) / "fleet" / f"{project.name}-{short}"
    here = project / ".fleet"
    for place in (here, elsewhere):
        if place.is_dir() and os.access(place, os.W_OK):
            return place
    if not make:
        return here
    failure: OSError | None = None
    for place in (here, elsewhere):
        try:
            place.mkdir(mode=0o700, parents=place is elsewhere, exist_ok=True)
            # Whatever git the project is kept in, a record and nonces are not for it.
            (place / ".gitignore").write_text("*\n")
            return place
        except OSError as error:
            failure = error
    raise UsageError(f"no place for the record: {failure}") from failure


def record_url(project: Path, config: Mapping[str, Any] | None = None, make: bool = True) -> str:
    """Return the record's URL for SQLAlchemy.

    FLEET_RECORD wins over ``fleet: {record: URL}`` of the inventory's defaults; without either it
    is a SQLite file in the project's state directory. ``postgresql://`` goes through psycopg.
    """
    said = os.environ.get(VARIABLE) or str((config or {}).get("record") or "")
    if not said:
        return f"sqlite:///{state_directory(project, make) / 'record.sqlite'}"
    scheme, colon, rest = said.partition("://")
    if not colon:
        return f"sqlite:///{(project / said).resolve()}"
    if scheme not in DRIVERS and scheme.partition("+")[0] not in ("sqlite", "postgresql"):
        raise UsageError(f"the record is {scheme}://…; fleet keeps it in sqlite or postgresql")
    return f"{DRIVERS.get(scheme, scheme)}://{rest}"


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite URL, None for any other."""
    scheme, _, rest = url.partition(":///")
    return Path(rest) if scheme.startswith("sqlite") and rest not in ("", ":memory:") else None
