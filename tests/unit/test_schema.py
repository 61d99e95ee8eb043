"""The JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fleet.host import registry
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
        {"bridges": {"b": {"openvswitch": {"fail-mode": "secure"}, "interfaces": ["e"]}}},
        {"ethernets": {"e": {"match": {"macaddress": "02:00:00:00:00:01"}, "set-name": "lan0"}}},
        {"ethernets": {"e": {"routing-policy": [{"from": "10.0.0.0/8", "table": 7}]}}},
        {"nftables": {"inet ours": "chain c {}"}, "flows": {"br0": {"flows": "actions=NORMAL"}}},
        {"neighbours": {"e": [{"address": "10.0.0.9", "macaddress": "02:00:00:00:00:09"}]}},
        {"shaping": {"e": {"classes": [{"name": "gold", "rate": "1mbit"}]}}},
        {"namespaces": {"dmz": {"taps": {"t": {}}, "sysctl": {"net.ipv4.ip_forward": 1}}}},
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
        {"network": {"bridges": {"b": {"openvswitch": {"fail-mode": "maybe"}}}}},
        {"network": {"policies": {"br0": {"isolated": True}}}},
        {"network": {"namespaces": {"dmz": {"namespaces": {}}}}},
        {"network": {"ethernets": {"e": {"match": {"rate": "1mbit"}}}}},
        {"libvirt": {"network": {"default": "<network/>"}}},
        {"fleet": {"gate": []}},
        {"fleet": {"on-failure": "panic"}},
    ],
)
def test_what_is_wrong_is_marked(data: dict[str, Any]) -> None:
    """Unknown keys and values out of bounds are marked in the editor."""
    assert complaints({"g": {"data": data}}) != []
    assert complaints({"data": data}) != []


@pytest.mark.parametrize("path", sorted((ROOT / "tests/golden").glob("*/*.yaml")), ids=str)
def test_every_golden_entry_is_valid(path: Path) -> None:
    """What the cases of the kinds that are no devices want of a host, the editor takes."""
    case = yaml.safe_load(path.read_text())
    wanted = {"policy/br0": case["policy"]} if "policy" in case else case.get("state", {})
    for key, spec in (wanted.get("resources") or wanted).items():
        kind, _, name = key.rpartition(":")[2].partition("/")
        entry = registry.BY_NAME.get(kind)
        if entry and not entry.device and entry.under != "device" and kind not in OWN:
            section = {entry.section: {name: dashed(spec)}}
            assert complaints({"data": {entry.under: section} if entry.under else section}) == []


#: Their entries are written in another form than the host's.
OWN = ("namespace", "sysctl")


def dashed(spec: Any) -> Any:
    """Return a spec with the host's words as an intent writes them."""
    if isinstance(spec, dict):
        return {str(key).replace("_", "-"): dashed(value) for key, value in spec.items()}
    return [dashed(each) for each in spec] if isinstance(spec, list) else spec
