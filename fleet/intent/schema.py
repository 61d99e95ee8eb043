"""The JSON Schema of the inventory's files, for editors."""

from __future__ import annotations

from typing import Any


def intent_schema() -> dict[str, Any]:
    """Return the schema."""
    return {}
