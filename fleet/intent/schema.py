"""The JSON Schema of the inventory's files, for editors that complete and check YAML.

It is the specs' own schema, loosened to what may stand in a layer: nothing is required, null
removes, a template may stand for any scalar, and scalars are texts, as netplan reads them.
"""

from __future__ import annotations

from typing import Any

from fleet.host import registry
from fleet.intent.convert import adapter
from fleet.intent.netplan import APPLIED, MANAGER, MARKED, NETWORK, SECTIONS, Key, device_table
from fleet.intent.other import HOLDERS, KINDS
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
_SYSCTL: Schema = {
    "type": ["object", "null"],
    "additionalProperties": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "description": "Kernel parameters: their names with dots, and their values.",
}
_PRESETS: Schema = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["array", "null"], "items": {"type": "string"}},
    "description": "Presets by name, each with the NICs that it is for.",
}


def intent_schema() -> Schema:
    """Return one schema for hosts.yaml, groups.yaml and defaults.yaml.

    Its own properties are those of defaults.yaml; any other key is a host or group.
    """
    from fleet.intent.settings import Settings

    definitions: Schema = {}
    sections = {section: _devices(kind, section, definitions) for section, kind in SECTIONS.items()}
    sections |= _others("network", definitions)
    network: Schema = {
        name: sections.get(name, {"description": key.note})
        for name, key in NETWORK.items()
        if key.verdict in (APPLIED, MANAGER)
    }
    inside = {name: inner for name, inner in network.items() if name != "namespaces"}
    definitions["namespace"] = _object(inside | {"sysctl": _SYSCTL})
    network["namespaces"] = _named({"$ref": _REF.format(model="namespace")})
    definitions["data"] = {
        "type": ["object", "null"],
        "description": "Intent, and variables for templates.",
        "properties": {
            "network": _object(network),
            "sysctl": _SYSCTL,
            "presets": _PRESETS,
            "fleet": _settings(_adapted(Settings, definitions), definitions),
            **{
                holder: _object(_others(holder, definitions))
                for holder in HOLDERS
                if holder != "network"
            },
            **_others("", definitions),
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
    """Return a class's loosened schema; what it refers to goes into the definitions.

    Where two kinds have a class of one name, the second's carry its own name in front.
    """
    for prefix in ("", f"{cls.__name__}-"):
        schema = adapter(cls).json_schema(ref_template=_REF.format(model=prefix + "{model}"))
        inner = {prefix + name: _loose(each) for name, each in schema.pop("$defs", {}).items()}
        if all(definitions.get(name, each) == each for name, each in inner.items()):
            break
    definitions.update(inner)
    return _loose(schema)


def _named(entry: Schema) -> Schema:
    """Return the schema of a section: entries by name."""
    return {"type": ["object", "null"], "additionalProperties": {"anyOf": [entry, _NULL]}}


def _others(holder: str, definitions: Schema) -> Schema:
    """Return the sections under a key of the data whose entries are no devices, by name."""
    return {
        entry.section: _named(_other(entry.kind, definitions))
        for entry in KINDS
        if entry.under == holder
    }


def _other(kind: str, definitions: Schema) -> Schema:
    """Return the schema of an entry that is no device, with the short form that its kind takes."""
    module: Any = registry.load(kind)
    name = f"entry-{kind}"
    definitions[name] = _adapted(module.SPEC, definitions)
    forms: list[Schema] = [{"$ref": _REF.format(model=name)}]
    if kind == "network":
        from fleet.intent.libvirt_network import NetworkWords

        definitions["network-words"] = _adapted(NetworkWords, definitions)
        forms.append({"$ref": _REF.format(model="network-words")})
    short = getattr(module, "SHORT", "")
    if short:
        forms.append(definitions[name]["properties"][short])
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _devices(kind: str, section: str, definitions: Schema) -> Schema:
    """Return the schema of a section of devices, of each kind that a mark makes of one too."""
    kinds = [kind, MARKED[section][1]] if section in MARKED else [kind]
    for each in kinds:
        definitions[f"device-{each}"] = _device(each, section, definitions)
    references = [{"$ref": _REF.format(model=f"device-{each}")} for each in kinds]
    return _named(references[0] if len(references) == 1 else {"anyOf": references})


def _device(kind: str, section: str, definitions: Schema) -> Schema:
    device = _adapted(registry.load(kind).SPEC, definitions)
    table = device_table(section, "" if SECTIONS[section] == kind else kind)
    properties = device["properties"]
    for name, key in table.items():
        if key.verdict == MANAGER or (key.verdict == APPLIED and name not in properties):
            properties[name] = _manager(key)
        elif key.note and name in properties:
            properties[name] = {**properties[name], "description": key.note}
    options = definitions["Address"]["properties"]
    named = {name: options[name] for name in ("label", "lifetime")}
    address: Schema = {
        "anyOf": [
            {"type": "string"},
            {"type": "object", "maxProperties": 1, "additionalProperties": _object(named)},
        ]
    }
    properties["addresses"] = {
        "type": ["array", "null"],
        "items": address,
        "description": "Addresses with their prefix lengths.",
    }
    rules = _adapted(registry.load("rule").SPEC, definitions)
    properties["routing-policy"] = {"type": ["array", "null"], "items": rules}
    if kind == "ethernet":
        properties.update(_adapted(registry.load("sriov").SPEC, definitions)["properties"])
    return device


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
