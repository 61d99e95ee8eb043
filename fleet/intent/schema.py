"""The JSON Schema of the inventory's files, for editors that complete and check YAML.

It is the specs' own schema, loosened to what may stand in a layer: nothing is required, null
removes, a template may stand for any scalar, and scalars are texts, as netplan reads them.
"""

from __future__ import annotations

from typing import Any

from fleet.host import registry
from fleet.intent.convert import adapter
from fleet.intent.netplan import APPLIED, MANAGER, NETWORK, SECTIONS, Key, device_table
from fleet.intent.source import CONNECTION, DEFAULTS_KEYS, HOST_KEYS, OPTION_KEYS

Schema = dict[str, Any]

_REF = "#/$defs/{model}"
_NULL: Schema = {"type": "null"}
_TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{|\{%"}
_DIGITS: Schema = {"type": "string", "pattern": r"^-?[0-9.]+$"}
_BOOLEANS: Schema = {
    "enum": [
        word
        for low in ("yes", "no", "on", "off", "true", "false", "y", "n")
        for word in (low, low.title(), low.upper())
    ],
}
_TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}


def intent_schema() -> Schema:
    """Return one schema for hosts.yaml, groups.yaml and defaults.yaml.

    Its own properties are those of defaults.yaml; any other key is a host or group.
    """
    from fleet.intent.settings import Settings

    definitions: Schema = {}
    sections = {section: _section(kind, section, definitions) for section, kind in SECTIONS.items()}
    network = _object(
        {
            name: sections.get(name, {"description": key.note})
            for name, key in NETWORK.items()
            if key.verdict in (APPLIED, MANAGER)
        }
    )
    definitions["data"] = {
        "type": ["object", "null"],
        "description": "Intent (network, sysctl, fleet), and variables for templates.",
        "properties": {
            "network": network,
            "sysctl": {
                "type": ["object", "null"],
                "additionalProperties": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
                "description": "Kernel parameters: their names with dots, and their values.",
            },
            "fleet": _settings(_adapted(Settings, definitions), definitions),
        },
    }
    definitions["element"] = _element(HOST_KEYS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A fleet inventory: hosts.yaml, groups.yaml and defaults.yaml",
        "type": ["object", "null"],
        "properties": _element(DEFAULTS_KEYS)["properties"],
        "additionalProperties": {"$ref": "#/$defs/element"},
        "$defs": definitions,
    }


def _object(properties: Schema, description: str = "") -> Schema:
    schema = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    return {**schema, "description": description} if description else schema


def _element(keys: tuple[str, ...]) -> Schema:
    properties: Schema = {key: _TEXT for key in keys if key in CONNECTION}
    properties["port"] = {"type": ["integer", "null"], "minimum": 1, "maximum": 65535}
    if "groups" in keys:
        properties["groups"] = {"type": ["array", "null"], "items": {"type": "string"}}
    if "data" in keys:
        properties["data"] = {"$ref": "#/$defs/data"}
    if "extras" in keys:
        properties["extras"] = {"type": ["object", "null"]}
    if "connection_options" in keys:
        properties["connection_options"] = {
            "type": ["object", "null"],
            "additionalProperties": _element(OPTION_KEYS),
        }
    return _object(properties)


def _adapted(cls: type[Any], definitions: Schema) -> Schema:
    """Return a class's loosened schema; what it refers to goes into the definitions."""
    schema = adapter(cls).json_schema(ref_template=_REF)
    for name, inner in schema.pop("$defs", {}).items():
        definitions[name] = _loose(inner)
    return _loose(schema)


def _section(kind: str, section: str, definitions: Schema) -> Schema:
    device = _adapted(registry.load(kind).SPEC, definitions)
    table = device_table(section)
    properties = device["properties"]
    for name, key in table.items():
        if key.verdict == MANAGER or (key.verdict == APPLIED and name not in properties):
            properties[name] = _manager(key)
        elif key.note and name in properties:
            properties[name] = {**properties[name], "description": key.note}
    options = definitions["Address"]["properties"]
    named = {name: options[name] for name in ("label", "lifetime")}
    properties["addresses"] = {
        "type": ["array", "null"],
        "items": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "maxProperties": 1,
                    "additionalProperties": _object(named),
                },
            ]
        },
        "description": "Addresses with their prefix lengths.",
    }
    properties["routing-policy"] = {
        "type": ["array", "null"],
        "items": _adapted(registry.load("rule").SPEC, definitions),
    }
    definitions[f"device-{kind}"] = device
    reference = {"anyOf": [{"$ref": f"#/$defs/device-{kind}"}, _NULL]}
    return {"type": ["object", "null"], "additionalProperties": reference}


def _manager(key: Key) -> Schema:
    said = "left to the host's manager" if key.verdict == MANAGER else "applied"
    note = {"description": f"{said}: {key.note}" if key.note else said}
    if key.inner and key.verdict == MANAGER:
        return {**_object({name: _manager(inner) for name, inner in key.inner.items()}), **note}
    return note


def _settings(schema: Schema, definitions: Schema) -> Schema:
    """Allow one text where the settings take a list of them."""
    management = definitions["ManagementSettings"]["properties"]
    properties = schema["properties"]
    for owner, name in ((management, "address"), (properties, "gates"), (properties, "ignore")):
        owner[name] = {"anyOf": [owner[name], {"type": "string"}]}
    return schema


def _loose(schema: Schema) -> Schema:
    """Return a schema of a spec as one of a layer."""
    kept = {key: schema[key] for key in ("description",) if key in schema}
    if "$ref" in schema:
        return {"anyOf": [{"$ref": schema["$ref"]}, _NULL, _TEMPLATE], **kept}
    if "anyOf" in schema:
        variants = [inner for inner in schema["anyOf"] if inner != _NULL]
        if len(variants) == 1:
            return {**_loose(variants[0]), **kept}
        return {"anyOf": [*map(_loose, variants), _NULL], **kept}
    if "enum" in schema or "const" in schema:
        words = schema.get("enum", [schema.get("const")])
        numbers = [int(word) for word in words if isinstance(word, str) and word.isdigit()]
        return {"anyOf": [{"enum": [*words, *numbers]}, _NULL, _TEMPLATE], **kept}
    kind = schema.get("type")
    if kind == "object":
        return {**_loose_object(schema), **kept}
    if kind == "array":
        items = _loose(schema["items"]) if "items" in schema else {}
        return {"type": ["array", "null"], "items": items, **kept}
    if kind in ("integer", "number"):
        limits = {key: schema[key] for key in ("minimum", "maximum") if key in schema}
        return {"anyOf": [{"type": kind, **limits}, _DIGITS, _NULL, _TEMPLATE], **kept}
    if kind == "boolean":
        return {"anyOf": [{"type": "boolean"}, _BOOLEANS, _NULL, _TEMPLATE], **kept}
    return {**_TEXT, **kept}


def _loose_object(schema: Schema) -> Schema:
    if "properties" in schema:
        return _object({name: _loose(inner) for name, inner in schema["properties"].items()})
    inner = schema.get("additionalProperties")
    values = _loose(inner) if isinstance(inner, dict) else {}
    return {"type": ["object", "null"], "additionalProperties": values}
