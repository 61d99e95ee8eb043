"""Nornir as fleet sets it up, and the loading of a project's tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class Tasks:
    """A project's Nornir tasks by name: ``tasks.push``; the project's own before the starter's."""

    def names(self) -> list[str]:
        """Return the names of all tasks, each a module with a function of its name."""
        raise NotImplementedError

    def find(self, name: str) -> Callable[..., Any]:
        """Return a task's function; raises UsageError with the nearest name."""
        raise NotImplementedError


def load_tasks(path: Path) -> Tasks:
    """Return the tasks of the project at ``path``; modules are imported when first used."""
    raise NotImplementedError
