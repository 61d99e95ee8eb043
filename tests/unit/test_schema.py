"""The JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fleet.intent import intent_schema

ROOT = Path(__file__).parents[2]
SCHEMA = intent_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def complaints(data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def test_the_example_inventory_is_valid() -> None:
    """The schema is one, and takes all three files of the example."""
    VALIDATOR.check_schema(SCHEMA)
    for name in ("hosts", "groups", "defaults"):
        text = (ROOT / "inventory" / f"{name}.yaml").read_text()
        assert complaints(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    "network",
    [
        {"ethernets": {"e": {"mtu": "{{ x }}", "dhcp4": True, "addresses": None}}},
        {"ethernets": {"e": None}},
        {"bridges": {"b": {"parameters": {"stp": "yes", "forward-delay": "4"}}}},
        {"bridges": {"b": {"addresses": [{"10.0.0.1/24": {"lifetime": 0}}]}}},
    ],
)
def test_layers_may_hold_templates_nulls_and_texts(network: dict[str, Any]) -> None:
    """Nothing is required of a layer, and what the intent takes the editor takes."""
    assert complaints({"g": {"data": {"network": network, "mine": 1}}}) == []


@pytest.mark.parametrize(
    "data",
    [
        {"network": {"ethernts": {}}},
        {"network": {"ethernets": {"e": {"mut": 1}}}},
        {"network": {"ethernets": {"e": {"mtu": 10}}}},
        {"network": {"bridges": {"b": {"parameters": {"stp": "maybe"}}}}},
        {"fleet": {"gate": []}},
        {"fleet": {"on-failure": "panic"}},
    ],
)
def test_what_is_wrong_is_marked(data: dict[str, Any]) -> None:
    """Unknown keys and values out of bounds are marked in the editor."""
    assert complaints({"g": {"data": data}}) != []
    assert complaints({"data": data}) != []
