"""A bridge of Open vSwitch in intent's words, as a picture of its database, and back; pure."""

from __future__ import annotations

from fleet.host.switches.picture import COLUMNS, MIRRORED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Words = dict[str, Any]

#: What a column has where nobody set it (vswitch.ovsschema).
_INTERFACE = {"type": "", "ingress_policing_rate": 0, "ingress_policing_burst": 0}
_PORT = {
    "trunks": [], "cvlans": [], "bond_updelay": 0, "bond_downdelay": 0, "protected": False,
    "interfaces": {"*": _INTERFACE},
}  # fmt: skip
#: The same as a tree, for what is named no longer; None takes a value or a key away.
DEFAULTS: Words = {
    "datapath_type": "", "stp_enable": False, "rstp_enable": False,
    "mcast_snooping_enable": False, "protocols": [], "flood_vlans": [], "ports": {"*": _PORT},
    "controllers": {"*": {}}, "mirrors": {"*": {}},
}  # fmt: skip

#: Intent's word of a bridge, and the column.
_BRIDGE = {
    "fail_mode": "fail_mode", "mcast_snooping": "mcast_snooping_enable", "rstp": "rstp_enable",
    "stp": "stp_enable", "datapath_type": "datapath_type", "protocols": "protocols",
    "external_ids": "external_ids", "other_config": "other_config",
}  # fmt: skip
#: A port's words that are its one interface's.
_OF_INTERFACE = (
    "type", "options", "mtu_request", "ingress_policing_rate", "ingress_policing_burst",
)  # fmt: skip
_OF_PORT = (
    "tag", "trunks", "vlan_mode", "bond_mode", "lacp", "bond_updelay", "bond_downdelay",
    "protected", "external_ids", "other_config",
)  # fmt: skip


def wanted_picture(name: str, words: Words) -> Words:
    """Return the part of a bridge's picture that a spec, as plain data, names."""
    words = _underscored(words)
    switch = words.get("openvswitch") or {}
    found: Words = {}
    for word, column in _BRIDGE.items():
        if switch.get(word) is not None:
            found[column] = _value(switch[word])
    if found.get("datapath_type") == "system":
        found["datapath_type"] = ""  # the schema's word for it
    controller = switch.get("controller") or {}
    if controller.get("addresses") is not None:
        mode = controller.get("connection_mode")
        form = {"connection_mode": mode} if mode else {}
        found["controllers"] = {target: dict(form) for target in controller["addresses"]}
    ports: Words = {port: {} for port in words.get("interfaces") or ()}
    ports.update(switch.get("ports") or {})
    found["ports"] = {port: _port(port, form or {}) for port, form in ports.items()}
    if words.get("mtu"):
        own = found["ports"].setdefault(name, _port(name, {"type": "internal"}))
        own["interfaces"][name]["mtu_request"] = words["mtu"]
    if switch.get("mirrors") is not None:
        found["mirrors"] = {
            mirror: {key: _value(value) for key, value in form.items()}
            for mirror, form in switch["mirrors"].items()
        }
    return found


def _port(name: str, words: Words) -> Words:
    found = {key: _value(words[key]) for key in _OF_PORT if words.get(key) is not None}
    if words.get("qos") is not None:
        qos = words["qos"]
        found["qos"] = {key: _value(qos[key]) for key in ("type", "other_config") if key in qos}
        found["qos"]["queues"] = dict(qos.get("queues") or {})
    members = words.get("members")
    if members:
        found["interfaces"] = {each: dict(form or {}) for each, form in members.items()}
    else:
        own = {key: words[key] for key in _OF_INTERFACE if words.get(key) is not None}
        found["interfaces"] = {name: own}
    return found


def _value(value: Any) -> Any:
    """Sets have no order in the database."""
    return sorted(value) if isinstance(value, (list, tuple)) else value


def _underscored(value: Any) -> Any:
    """Return words with fields as Python spells them; keys that operators chose stay."""
    if not isinstance(value, dict):
        return value
    free = ("external_ids", "other_config", "options")
    found = {}
    for key, inner in value.items():
        spelt = key.replace("-", "_")
        word = spelt if spelt in _KNOWN else key
        found[word] = inner if word in free else _underscored(inner)
    return found


_KNOWN = frozenset(
    (
        *_BRIDGE, *_OF_INTERFACE, *_OF_PORT, "openvswitch", "interfaces", "controller",
        "addresses", "connection_mode", "ports", "mirrors", "members", "qos", "queues", "mtu",
        *COLUMNS["Mirror"], *MIRRORED,
    )
)  # fmt: skip


def said(name: str, now: Words) -> Words:
    """Return a bridge's picture in intent's words, without what nobody set."""
    switch = {
        word.replace("_", "-"): now[column]
        for word, column in _BRIDGE.items()
        if now[column] not in (None, "", False, [], {})
    }
    if now["controllers"]:
        modes = {form["connection_mode"] for form in now["controllers"].values()} - {None}
        switch["controller"] = {"addresses": sorted(now["controllers"])}
        if modes:
            switch["controller"]["connection-mode"] = sorted(modes)[0]
    ports = {
        port: words
        for port, form in now["ports"].items()
        if (words := _said_port(port, form)) and (port != name or words != {"type": "internal"})
    }
    if ports:
        switch["ports"] = ports
    if now["mirrors"]:
        switch["mirrors"] = {mirror: _set(form) for mirror, form in now["mirrors"].items()}
    interfaces = [port for port in now["ports"] if port != name]
    return {"interfaces": interfaces, "openvswitch": switch}


def _said_port(name: str, form: Words) -> Words:
    words = _set({key: form[key] for key in _OF_PORT})
    members = {each: _set(inner) for each, inner in form["interfaces"].items()}
    if set(members) == {name}:
        words.update({key: value for key, value in members[name].items() if key not in words})
    else:
        words["members"] = members
    if form["qos"]:
        queues = {number: _set(queue) for number, queue in form["qos"]["queues"].items()}
        words["qos"] = {**_set({**form["qos"], "queues": None}), "queues": queues}
    return words


def _set(form: Words) -> Words:
    """Return what somebody set, with dashes."""
    nothing: tuple[Any, ...] = (None, "", False, 0, [], {})
    return {key.replace("_", "-"): v for key, v in form.items() if v not in nothing}
