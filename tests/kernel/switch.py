"""A host with Open vSwitch: its own database and its own switch, forwarding in user space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypervisor import Hypervisor, hypervisor

START = """
set -e
mkdir -p /run/openvswitch /var/lib/ovs
ovsdb-tool create /var/lib/ovs/conf.db /usr/share/openvswitch/vswitch.ovsschema
"""
DATABASE = (
    "ovsdb-server /var/lib/ovs/conf.db --remote=punix:/run/openvswitch/db.sock "
    "--unixctl=/run/openvswitch/db.ctl --pidfile=/run/openvswitch/ovsdb-server.pid "
    "--detach --no-chdir -vconsole:off -vsyslog:off --log-file=/run/openvswitch/db.log"
)
SWITCH = (
    "ovs-vswitchd unix:/run/openvswitch/db.sock --unixctl=/run/openvswitch/switch.ctl "
    "--pidfile=/run/openvswitch/ovs-vswitchd.pid "
    "--detach --no-chdir -vconsole:off -vsyslog:off --log-file=/run/openvswitch/switch.log"
)


class SwitchHost(Hypervisor):
    """A host, and ovs-vsctl and ovs-ofctl to judge it by."""

    def start(self) -> None:
        self.sh("sh", "-c", START + DATABASE)
        self.sh("ovs-vsctl", "--no-wait", "init")
        self.sh("sh", "-c", SWITCH)

    def vsctl(self, *words: str) -> str:
        return self.sh("ovs-vsctl", "--timeout=10", *" ".join(words).split())

    def row(self, table: str, name: str) -> dict[str, Any]:
        """One row of the database as ovs-vsctl prints it."""
        found = json.loads(self.sh("ovs-vsctl", "--format=json", "list", table, name))
        return dict(zip(found["headings"], found["data"][0], strict=True))

    def flows(self, bridge: str) -> list[str]:
        out = self.sh("ovs-ofctl", "--no-stats", "dump-flows", bridge)
        return sorted(line.strip() for line in out.splitlines() if "actions=" in line)

    def database(self) -> Any:
        """All that operators set, by names and without the rows' own numbers."""
        volatile = {
            "_uuid", "bridges", "ports", "interfaces", "mirrors", "qos", "queues", "controller",
            "statistics", "status", "cur_cfg", "next_cfg", "ofport", "ifindex", "mac_in_use",
            "link_resets", "select_src_port", "select_dst_port", "output_port", "datapath_id",
            "datapath_version", "link_state", "admin_state", "link_speed", "duplex", "mtu",
            "rstp_status", "is_connected", "role",
        }  # fmt: skip
        tables = []
        for table in ("Bridge", "Port", "Interface", "Mirror", "QoS", "Queue", "Controller"):
            found = json.loads(self.sh("ovs-vsctl", "--format=json", "list", table) or "{}")
            rows = [dict(zip(found["headings"], row, strict=True)) for row in found.get("data", [])]
            kept = [{k: v for k, v in row.items() if k not in volatile} for row in rows]
            tables.append([table, sorted(kept, key=json.dumps)])
        return tables


@contextmanager
def switch_host() -> Iterator[SwitchHost]:
    with hypervisor() as plain:
        host = SwitchHost(plain.keeper)
        host.helpers = plain.helpers
        host.start()
        yield host
