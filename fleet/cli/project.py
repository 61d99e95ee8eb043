"""The project that a command works in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.complete import find_project
from fleet.errors import UsageError
from fleet.lazy import defer

if TYPE_CHECKING:
    from fleet.intent import Project
    from fleet.lab import Lab


def project_path(named: Path | None) -> Path:
    """Return the project's directory: the named one, else this one or the nearest above."""
    if named is not None:
        if not (named / "inventory").is_dir():
            raise UsageError(f"{named} is not a fleet project: it has no inventory/ directory")
        return named
    found = find_project(Path.cwd())
    if found is None:
        raise UsageError(
            f"no inventory/ in {Path.cwd()} or above it; name the project with --project DIR, "
            "or make one: fleet init DIR"
        )
    return found


def open_project(named: Path | None) -> Project:
    """Load the project; raises InventoryError with file and line."""
    path = project_path(named)
    defer("ruamel.yaml")
    from fleet.intent import load_project

    return load_project(path)


def open_lab(named: Path | None, lab: str, backend: str = "") -> Lab:
    """Return a lab of the project; a backend says what one that is not up is to be."""
    from fleet.lab import open_lab

    return open_lab(lab, project_path(named), backend)
