"""Bridges of Open vSwitch as pictures: what its database holds of one, by names in place of UUIDs.

A picture has the bridge's own columns, ``controllers`` by target, ``mirrors`` and ``ports`` by
name; a port has its columns, its ``qos`` and its ``interfaces`` by name. What the switch writes
(states, statistics) is not in it. ovs-vswitchd.conf.db(5) has the columns.
"""

from __future__ import annotations

from fleet.host.switches.ovsdb import Database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System

    Row = dict[str, Any]
    Picture = dict[str, Any]

#: What an operator sets, by table, with the form a value has: a scalar, one or none, many, a map.
ONE, MAYBE, MANY, MAP = "one", "maybe", "many", "map"
COLUMNS: dict[str, dict[str, str]] = {
    "Bridge": {
        "datapath_type": ONE, "fail_mode": MAYBE, "stp_enable": ONE, "rstp_enable": ONE,
        "mcast_snooping_enable": ONE, "protocols": MANY, "flood_vlans": MANY,
        "other_config": MAP, "external_ids": MAP,
    },
    "Port": {
        "tag": MAYBE, "trunks": MANY, "cvlans": MANY, "vlan_mode": MAYBE, "mac": MAYBE,
        "bond_mode": MAYBE, "lacp": MAYBE, "bond_updelay": ONE, "bond_downdelay": ONE,
        "protected": ONE, "other_config": MAP, "external_ids": MAP,
    },
    "Interface": {
        "type": ONE, "options": MAP, "ingress_policing_rate": ONE, "ingress_policing_burst": ONE,
        "mac": MAYBE, "mtu_request": MAYBE, "ofport_request": MAYBE, "bfd": MAP, "lldp": MAP,
        "other_config": MAP, "external_ids": MAP,
    },
    "Mirror": {
        "select_all": ONE, "select_vlan": MANY, "output_vlan": MAYBE, "snaplen": MAYBE,
        "external_ids": MAP,
    },
    "QoS": {"type": ONE, "other_config": MAP, "external_ids": MAP},
    "Queue": {"dscp": MAYBE, "other_config": MAP, "external_ids": MAP},
    "Controller": {
        "connection_mode": MAYBE, "max_backoff": MAYBE, "inactivity_probe": MAYBE,
        "other_config": MAP, "external_ids": MAP,
    },
}  # fmt: skip
#: What points from one row to others.
REFERENCES = {
    "Bridge": ("name", "ports", "mirrors", "controller"),
    "Port": ("name", "interfaces", "qos"),
    "Interface": ("name",),
    "Mirror": ("name", "select_src_port", "select_dst_port", "output_port"),
    "QoS": ("queues",),
    "Queue": (),
    "Controller": ("target",),
}
#: A mirror's columns that name ports.
MIRRORED = {"select_src_port": MANY, "select_dst_port": MANY, "output_port": MAYBE}


class Rows:
    """The rows of the database that make up bridges, by UUID."""

    def __init__(self, database: Database) -> None:
        wanted = {table: (*COLUMNS[table], *REFERENCES[table]) for table in COLUMNS}
        self.by_table = {
            table: {row["_uuid"]: row for row in rows}
            for table, rows in database.tables(wanted).items()
        }

    def named(self, table: str) -> dict[str, Row]:
        """Return the rows of a table by name; for controllers, by target."""
        key = "target" if table == "Controller" else "name"
        return {row[key]: row for row in self.by_table[table].values()}

    def of(self, table: str, pointers: Any) -> list[Row]:
        """Return the rows that a column points to."""
        several = pointers if isinstance(pointers, list) else [pointers]
        rows = self.by_table[table]
        return [rows[uuid] for uuid in several if uuid in rows]


def bridges(observation: Observation) -> dict[str, Picture]:
    """Return the host's bridges, read once; raises HostError where the host has no database."""
    found: dict[str, Picture] = observation.once("switches", read)
    return found


def read(system: System) -> dict[str, Picture]:
    """Return every bridge's picture; raises HostError where the database does not answer."""
    with Database(system) as database:
        return pictures(Rows(database))


def datapath_types(system: System) -> list[str]:
    """Return the types of datapath that ovs-vswitchd has; raises HostError without a database."""
    with Database(system) as database:
        rows = database.tables({"Open_vSwitch": ("datapath_types",)})["Open_vSwitch"]
    return formed(MANY, rows[0]["datapath_types"]) if rows else []


def pictures(rows: Rows) -> dict[str, Picture]:
    """Return the pictures of the bridges in rows, by name."""
    return {name: _bridge(row, rows) for name, row in sorted(rows.named("Bridge").items())}


def _bridge(row: Row, rows: Rows) -> Picture:
    ports = {port["name"]: port for port in rows.of("Port", row["ports"])}
    controllers = rows.of("Controller", row["controller"])
    return {
        **columns("Bridge", row),
        "controllers": {each["target"]: columns("Controller", each) for each in controllers},
        "ports": {name: _port(port, rows) for name, port in sorted(ports.items())},
        "mirrors": {
            mirror["name"]: _mirror(mirror, rows) for mirror in rows.of("Mirror", row["mirrors"])
        },
    }


def _port(row: Row, rows: Rows) -> Picture:
    found = columns("Port", row)
    interfaces = rows.of("Interface", row["interfaces"])
    found["interfaces"] = {each["name"]: columns("Interface", each) for each in interfaces}
    qos = rows.of("QoS", row["qos"])
    found["qos"] = _qos(qos[0], rows) if qos else None
    return found


def _qos(row: Row, rows: Rows) -> Picture:
    queues = row["queues"].items()
    found = {str(n): columns("Queue", queue) for n, at in queues for queue in rows.of("Queue", at)}
    return {**columns("QoS", row), "queues": found}


def _mirror(row: Row, rows: Rows) -> Picture:
    found = columns("Mirror", row)
    for column, form in MIRRORED.items():
        named = sorted(port["name"] for port in rows.of("Port", row[column]))
        found[column] = named if form == MANY else (named[0] if named else None)
    return found


def columns(table: str, row: Row) -> Row:
    """Return a row's settings, each in its one form."""
    return {name: formed(form, row[name]) for name, form in COLUMNS[table].items()}


def formed(form: str, value: Any) -> Any:
    """Return a value in its column's form: sets sorted, one or none as None, whole maps."""
    several = isinstance(value, (list, tuple))
    if form == MAYBE:
        return (value[0] if value else None) if several else value
    if form == MANY:
        return sorted(value) if several else ([] if value is None else [value])
    if form == MAP:
        return dict(value or {})
    return value


def delta(wanted: Any, now: Any) -> Any:
    """Return the part of a picture that differs, with what it shall be; {} where nothing does.

    ``wanted`` names some of what ``now`` has, or more; None takes a column's value, a key, a port
    or a mirror away.
    """
    found: Row = {}
    for key, value in wanted.items():
        have = (now or {}).get(key)
        if isinstance(value, dict):
            if have is None:
                found[key] = value
            else:
                inner = delta(value, have)
                if inner:
                    found[key] = inner
        elif value != have:
            found[key] = value
    return found


def part(picture: Any, like: Any) -> Any:
    """Return what a picture has where a delta has something; None where it has nothing."""
    if not isinstance(like, dict):
        return picture
    if not isinstance(picture, dict):
        return None
    return {key: part(picture.get(key), inner) for key, inner in like.items()}
