"""A small OVSDB client (RFC 7047) on the host's own socket: select, transact, wait for the switch.

``ovsdbapp`` imports in a third of a second and ``ovs-vsctl`` takes 17 ms a call; a call here takes
less than one.
"""

from __future__ import annotations

import time

from fleet.host import wire
from fleet.host.change import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Row = dict[str, Any]

SOCKET = "/run/openvswitch/db.sock"
DATABASE = "Open_vSwitch"
#: Seconds for one answer, and for the switch to do what the database says (ovs-vsctl waits too).
ANSWER, SETTLED = 10.0, 15.0
_REMEDY = "look at the host's openvswitch-switch service and its logs"


class Database:
    """One connection to a host's ovsdb-server; raises HostError where it does not answer."""

    def __init__(self, system: System) -> None:
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

        self._number = 0
        self._coming = b""
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self._socket.settimeout(ANSWER)
        try:
            self._socket.connect(system.root + SOCKET)
        except OSError as error:
            self._socket.close()
            raise HostError(
                "openvswitch",
                f"ovsdb-server at {SOCKET}",
                error.strerror or str(error),
                "install openvswitch-switch and start it",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the result of one call; raises HostError where it is an error, or late."""
        self._number += 1
        request = {"method": method, "params": params, "id": self._number}
        try:
            self._socket.sendall(wire.dumps(request).encode("ascii"))
            while True:
                answer = self._document()
                if answer.get("method") == "echo":
                    # RFC 7047, 4.1.11: a server asks so whether we live.
                    echo = {"id": answer.get("id"), "result": answer.get("params"), "error": None}
                    self._socket.sendall(wire.dumps(echo).encode("ascii"))
                elif answer.get("id") == self._number:
                    break
        except (OSError, ValueError, EOFError) as error:
            raise _silent(str(error) or type(error).__name__) from error
        if answer.get("error"):
            raise _refused(answer["error"])
        return answer["result"]

    def _document(self) -> Any:
        """Return the next JSON document; the protocol puts nothing between two."""
        depth, quoted, escaped, seen = 0, False, False, 0
        while True:
            for at in range(seen, len(self._coming)):
                byte = self._coming[at]
                if escaped:
                    escaped = False
                elif byte == 0x5C:
                    escaped = quoted
                elif byte == 0x22:
                    quoted = not quoted
                elif not quoted and byte in b"{[":
                    depth += 1
                elif not quoted and byte in b"}]":
                    depth -= 1
                    if not depth:
                        text, self._coming = self._coming[: at + 1], self._coming[at + 1 :]
                        return wire.loads(text.decode())
            seen = len(self._coming)
            more = self._socket.recv(1 << 20)
            if not more:
                raise EOFError("ovsdb-server closed the connection")
            self._coming += more

    def transact(self, operations: list[Row]) -> list[Any]:
        """Carry out operations as one transaction; raises HostError, and then changed nothing."""
        results = self.call("transact", [DATABASE, *operations])
        for result in results:
            if isinstance(result, dict) and result.get("error"):
                raise _refused(result)
        return list(results)

    def tables(self, columns: dict[str, tuple[str, ...]]) -> dict[str, list[Row]]:
        """Return all rows of tables, each with the named columns, as plain values."""
        operations = [
            {"op": "select", "table": table, "where": [], "columns": ["_uuid", *names]}
            for table, names in columns.items()
        ]
        results = self.transact(operations)
        return {
            table: [{name: plain(value) for name, value in row.items()} for row in result["rows"]]
            for table, result in zip(columns, results)
        }

    def settle(self, number: int) -> None:
        """Wait until ovs-vswitchd has done what the database said at ``number`` (``next_cfg``)."""
        end = time.monotonic() + SETTLED
        pause = 0.002
        while True:
            rows = self.tables({"Open_vSwitch": ("cur_cfg",)})["Open_vSwitch"]
            if rows and rows[0]["cur_cfg"] >= number:
                return
            if time.monotonic() > end:
                raise HostError(
                    "openvswitch",
                    f"ovs-vswitchd to follow its database within {SETTLED:g} s",
                    "it did not",
                    _REMEDY,
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)


def _silent(why: str) -> HostError:
    return HostError("openvswitch", "ovsdb-server to answer", why, _REMEDY)


def _refused(error: Any) -> HostError:
    said = error if isinstance(error, str) else f"{error.get('error')}: {error.get('details')}"
    return HostError("openvswitch", "ovsdb-server to take the transaction", str(said)[:300])


def plain(value: Any) -> Any:
    """Return an OVSDB value as plain data: lists for sets, mappings for maps, texts for UUIDs.

    A set of one is written without its frame (RFC 7047, 5.1), so it is not told from a scalar.
    """
    if isinstance(value, list) and len(value) == 2:
        if value[0] == "set":
            return [plain(item) for item in value[1]]
        if value[0] == "map":
            return {plain(key): plain(item) for key, item in value[1]}
        if value[0] in ("uuid", "named-uuid"):
            return value[1]
    return value


def framed(value: Any) -> Any:
    """Return plain data as an OVSDB value; None is the empty set."""
    if value is None:
        return ["set", []]
    if isinstance(value, (list, tuple)):
        return ["set", [framed(item) for item in value]]
    if isinstance(value, dict):
        return ["map", [[key, framed(item)] for key, item in value.items()]]
    if isinstance(value, Reference):
        return [value.word, value.name]
    return value


class Reference:
    """A row that another one points to: by its UUID, or by the name it has in a transaction."""

    def __init__(self, name: str, new: bool = False) -> None:
        self.name = name
        self.word = "named-uuid" if new else "uuid"
