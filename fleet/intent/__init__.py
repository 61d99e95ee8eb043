"""The intent: what an operator writes in the inventory, and the states it makes."""

from __future__ import annotations

from fleet.intent.project import (
    Explained,
    Project,
    Revision,
    explain,
    intent_of,
    load_project,
    manager_file,
    render_state,
    settings_of,
    validate,
)
from fleet.intent.schema import intent_schema

__all__ = [
    "Explained",
    "Project",
    "Revision",
    "explain",
    "intent_of",
    "intent_schema",
    "load_project",
    "manager_file",
    "render_state",
    "settings_of",
    "validate",
]
