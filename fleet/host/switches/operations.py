"""From a delta of pictures to one OVSDB transaction, and to the switch having followed it."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.switches.ovsdb import Database, Reference, framed
from fleet.host.switches.picture import COLUMNS, MAP, MIRRORED, Rows, pictures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Row = dict[str, Any]
    Picture = dict[str, Any]


def put(
    system: System,
    deltas: dict[str, Picture | None],
    check: bool = True,
    follow: bool = True,
) -> None:
    """Carry out deltas of bridges in one transaction; None deletes a bridge.

    Waits until ovs-vswitchd has followed, unless ``follow`` says that it does not run yet;
    ``check`` asks it then whether all ports work. Raises HostError: with the database's reason,
    and then nothing changed; with the switch's, where it could not do what the database says.
    """
    with Database(system) as database:
        rows = Rows(database)
        number = _transact(database, Operations(rows, deltas))
        if follow:
            database.settle(number)
        touched = [name for name, change in deltas.items() if change is not None]
        for bridge in touched if check else ():
            _check(database, bridge)


def _transact(database: Database, operations: Operations) -> int:
    """Carry out operations; return the number that ovs-vswitchd has then to come to."""
    where: list[Any] = []
    count = {"op": "mutate", "table": "Open_vSwitch", "where": where}
    results = database.transact(
        [
            *operations.made(),
            {**count, "mutations": [["next_cfg", "+=", 1]]},
            {"op": "select", "table": "Open_vSwitch", "where": where, "columns": ["next_cfg"]},
        ]
    )
    return int(results[-1]["rows"][0]["next_cfg"])


def _check(database: Database, bridge: str) -> None:
    """Raise HostError where the switch says that an interface of a bridge does not work."""
    rows = database.tables(
        {
            "Bridge": ("name", "ports"),
            "Port": ("interfaces",),
            "Interface": ("name", "error", "ofport"),
        }
    )
    own = {port for row in rows["Bridge"] if row["name"] == bridge for port in _many(row["ports"])}
    inside = {
        each for row in rows["Port"] if row["_uuid"] in own for each in _many(row["interfaces"])
    }
    for row in rows["Interface"]:
        if row["_uuid"] in inside and row["error"]:
            raise HostError(
                f"openvswitch/{bridge}",
                f"{row['name']} to be a port of {bridge}",
                str(row["error"]),
                "put the device there, or take the port out",
                "ports",
            )
        if row["_uuid"] in inside and row["name"] == bridge and row["ofport"] == []:
            # The database takes a bridge of any kind; only the switch's log says what it lacks.
            raise HostError(
                f"openvswitch/{bridge}",
                "ovs-vswitchd to make the bridge",
                "it could not",
                "look at its log: the kernel may have no openvswitch module "
                "(datapath-type: netdev forwards without)",
            )


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Operations:
    """The operations of one transaction; rows that it inserts are known by a name of its own."""

    def __init__(self, rows: Rows, deltas: dict[str, Picture | None]) -> None:
        self.rows, self._deltas = rows, deltas
        self._now = pictures(rows)
        self._found: list[Row] = []
        self._number = 0
        #: Ports that point no longer to the QoS they had.
        self._let_go: set[str] = set()

    def made(self) -> list[Row]:
        """Return the operations."""
        for bridge, change in self._deltas.items():
            row = self.rows.named("Bridge").get(bridge)
            if change is None:
                if row is not None:
                    self._point("Open_vSwitch", None, "bridges", "delete", Reference(row["_uuid"]))
                    for port in self.rows.of("Port", row["ports"]):
                        self._leave_qos(port)
            elif row is None:
                self._new_bridge(bridge, change)
            else:
                self._old_bridge(bridge, row, change)
        self._delete_qos()
        return self._found

    def _leave_qos(self, port: Row) -> None:
        """References count until the transaction ends, those of a port that goes with it too."""
        self._let_go.add(port["_uuid"])
        if port["qos"]:
            self._set("Port", port, qos=[])

    def _delete_qos(self) -> None:
        """Rows of QoS and Queue are roots of the database: they stay where nothing points to them.

        Deleted are those that only the ports of this transaction had.
        """
        ports = self.rows.by_table["Port"].values()
        rows = self.rows.by_table["QoS"]
        kept = {uuid for p in ports if p["_uuid"] not in self._let_go for uuid in _many(p["qos"])}
        gone = {uuid for p in ports if p["_uuid"] in self._let_go for uuid in _many(p["qos"])}
        queues = {uuid: {*row["queues"].values()} for uuid, row in rows.items()}
        gone -= kept
        spare = {each for uuid in gone for each in queues[uuid]}
        spare -= {each for uuid in queues.keys() - gone for each in queues[uuid]}
        for table, uuids in (("QoS", gone), ("Queue", spare)):
            for uuid in sorted(uuids):
                where = [["_uuid", "==", ["uuid", uuid]]]
                self._found.append({"op": "delete", "table": table, "where": where})

    def _new_bridge(self, name: str, change: Picture) -> None:
        ports = {name: {"interfaces": {name: {"type": "internal"}}}, **(change.get("ports") or {})}
        made = {port: self._new_port(port, form) for port, form in ports.items() if form}
        own = self._insert(
            "Bridge", change, name=name, ports=list(made.values()),
            controller=self._controllers(change), mirrors=self._mirrors(change, made),
        )  # fmt: skip
        self._point("Open_vSwitch", None, "bridges", "insert", own)

    def _old_bridge(self, name: str, row: Row, change: Picture) -> None:
        self._update("Bridge", row, change)
        ports = {p["name"]: p for p in self.rows.of("Port", row["ports"])}
        known = {port: Reference(each["_uuid"]) for port, each in ports.items()}
        for port, form in (change.get("ports") or {}).items():
            if form is None:
                if port in ports:
                    self._point("Bridge", row, "ports", "delete", known.pop(port))
                    self._leave_qos(ports[port])
            elif port in ports:
                self._old_port(ports[port], form)
            else:
                known[port] = self._new_port(port, form)
                self._point("Bridge", row, "ports", "insert", known[port])
        if "controllers" in change:
            whole = _merged(self._now[name]["controllers"], change["controllers"])
            self._set("Bridge", row, controller=self._controllers({"controllers": whole}))
        if "mirrors" in change:
            whole = _merged(self._now[name]["mirrors"], change["mirrors"])
            self._set("Bridge", row, mirrors=self._mirrors({"mirrors": whole}, known))

    def _new_port(self, name: str, form: Picture) -> Reference:
        interfaces = form.get("interfaces") or {name: {}}
        made = [self._insert("Interface", each or {}, name=n) for n, each in interfaces.items()]
        return self._insert("Port", form, name=name, interfaces=made, qos=self._qos(form))

    def _old_port(self, row: Row, form: Picture) -> None:
        self._update("Port", row, form)
        now = {each["name"]: each for each in self.rows.of("Interface", row["interfaces"])}
        for name, each in (form.get("interfaces") or {}).items():
            if each is None:
                if name in now:
                    gone = Reference(now[name]["_uuid"])
                    self._point("Port", row, "interfaces", "delete", gone)
            elif name in now:
                self._update("Interface", now[name], each)
            else:
                new = self._insert("Interface", each, name=name)
                self._point("Port", row, "interfaces", "insert", new)
        if "qos" in form:
            bridges = self._now.values()
            own = next(b["ports"][row["name"]] for b in bridges if row["name"] in b["ports"])
            whole = form["qos"] and _merged(own["qos"] or {}, form["qos"])
            self._let_go.add(row["_uuid"])
            self._set("Port", row, qos=self._qos({"qos": whole}))

    def _qos(self, form: Picture) -> list[Reference]:
        qos = form.get("qos")
        if not qos:
            return []
        queues = (qos.get("queues") or {}).items()
        made = [
            [int(number), self._insert("Queue", each)]
            for number, each in queues
            if each is not None
        ]
        return [self._insert("QoS", qos, queues=("map", made))]

    def _controllers(self, form: Picture) -> list[Reference]:
        targets = (form.get("controllers") or {}).items()
        return [
            self._insert("Controller", each, target=t) for t, each in targets if each is not None
        ]

    def _mirrors(self, form: Picture, ports: dict[str, Reference]) -> list[Reference]:
        found = []
        for name, each in (form.get("mirrors") or {}).items():
            if each is None:
                continue
            named: Row = {}
            for column in MIRRORED:
                value = each.get(column)
                several = value if isinstance(value, (list, tuple)) else [value] if value else []
                named[column] = [_port_named(name, port, ports) for port in several]
            found.append(self._insert("Mirror", each, name=name, **named))
        return found

    def _insert(self, table: str, form: Picture, **more: Any) -> Reference:
        self._number += 1
        name = f"row{self._number}"
        row = {c: framed(form[c]) for c in COLUMNS[table] if form.get(c) not in (None, [], {})}
        for column, value in more.items():
            if isinstance(value, tuple):
                row[column] = ["map", [[key, framed(inner)] for key, inner in value[1]]]
            else:
                row[column] = framed(value)
        self._found.append({"op": "insert", "table": table, "row": row, "uuid-name": name})
        return Reference(name, new=True)

    def _update(self, table: str, row: Row, form: Picture) -> None:
        whole: Row = {}
        for column, kind in COLUMNS[table].items():
            if column not in form:
                continue
            if kind == MAP:
                merged = _merged(row[column] or {}, form[column] or {})
                if merged != row[column]:
                    self._keys(table, row, column, form[column] or {})
            else:
                whole[column] = form[column]
        if whole:
            self._set(table, row, **whole)

    def _keys(self, table: str, row: Row, column: str, change: Row) -> None:
        """Set and take away keys of a map, and leave those that others put there meanwhile."""
        taken = ["set", list(change)]
        given = [[key, value] for key, value in change.items() if value is not None]
        mutations: list[Any] = [[column, "delete", taken]]
        if given:
            mutations.append([column, "insert", ["map", given]])
        where = [["_uuid", "==", ["uuid", row["_uuid"]]]]
        self._found.append({"op": "mutate", "table": table, "where": where, "mutations": mutations})

    def _set(self, table: str, row: Row, **values: Any) -> None:
        where = [["_uuid", "==", ["uuid", row["_uuid"]]]]
        framed_row = {column: framed(value) for column, value in values.items()}
        self._found += [
            # An update of a row that is gone would succeed and do nothing.
            {
                "op": "wait", "table": table, "where": where, "columns": ["_uuid"],
                "until": "==", "rows": [{"_uuid": ["uuid", row["_uuid"]]}], "timeout": 0,
            },
            {"op": "update", "table": table, "where": where, "row": framed_row},
        ]  # fmt: skip

    def _point(self, table: str, row: Row | None, column: str, how: str, to: Reference) -> None:
        where = [] if row is None else [["_uuid", "==", ["uuid", row["_uuid"]]]]
        mutation = [column, how, ["set", [framed(to)]]]
        self._found.append(
            {"op": "mutate", "table": table, "where": where, "mutations": [mutation]}
        )


def _port_named(mirror: str, port: str, ports: dict[str, Reference]) -> Reference:
    if port not in ports:
        raise HostError(
            "openvswitch", f"the port {port}, which the mirror {mirror} names", "no such port"
        )
    return ports[port]


def _merged(now: Any, change: Any) -> Any:
    """Return a picture's part with a delta carried out."""
    if not isinstance(change, dict) or not isinstance(now, dict):
        return change
    found = dict(now)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(now.get(key), value)
    return found
