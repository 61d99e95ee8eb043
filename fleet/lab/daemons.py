"""What runs in a lab host besides its sshd: Open vSwitch of its own, where its intent names any.

It forwards in user space (``--disable-system``): the kernel's datapath, where a machine has it, is
not a namespace's.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

OPENVSWITCH = "openvswitch"
_RUN, _STATE = "/run/openvswitch", "/etc/openvswitch"
_DATABASE = f"{_STATE}/conf.db"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_CREATE = ["/usr/bin/ovsdb-tool", "create", _DATABASE, _SCHEMA]
_QUIET = ["--detach", "--no-chdir", "-vconsole:off", "-vsyslog:off"]
_SERVER = [
    "/usr/sbin/ovsdb-server", _DATABASE, f"--remote=punix:{_RUN}/db.sock",
    f"--pidfile={_RUN}/ovsdb-server.pid", "--log-file=/var/log/openvswitch/ovsdb-server.log",
    *_QUIET,
]  # fmt: skip
_INIT = ["/usr/bin/ovs-vsctl", "--no-wait", "init"]
_SWITCH = [
    "/usr/sbin/ovs-vswitchd", f"unix:{_RUN}/db.sock", f"--pidfile={_RUN}/ovs-vswitchd.pid",
    "--log-file=/var/log/openvswitch/ovs-vswitchd.log", "--disable-system", *_QUIET,
]  # fmt: skip
#: Folders that are a host's own, not the machine's.
FOLDERS = {"etc/openvswitch": 0o755, "var/log/openvswitch": 0o755, "var/lib/openvswitch": 0o755}
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def needed(network: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the daemons that a host's intent needs."""
    bridges = network.get("bridges")
    specs = bridges.values() if isinstance(bridges, dict) else ()
    switched = any(isinstance(spec, dict) and "openvswitch" in spec for spec in specs)
    return (OPENVSWITCH,) if switched or network.get("flows") else ()


def start(names: list[str]) -> None:
    """Start daemons inside a host, from where it is; raises RuntimeError where one does not start.

    A machine that has no such program has hosts without it: a plan says so, as for any host.
    """
    if OPENVSWITCH not in names or not os.access(_SWITCH[0], os.X_OK):
        return
    os.makedirs(_RUN, 0o755, exist_ok=True)
    commands = [_SERVER, _INIT, _SWITCH]
    if not os.path.exists(_DATABASE):
        commands.insert(0, _CREATE)
    for argv in commands:
        done = subprocess.run(argv, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{argv[0]} exited {done.returncode}: {done.stderr.strip()}")
