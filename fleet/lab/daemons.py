"""What runs in a lab host besides its sshd: Open vSwitch and libvirt, where its intent names any.

The switch forwards in user space (``--disable-system``): the kernel's datapath, where a machine has
it, is not a namespace's. libvirt's books, sockets and networks are the host's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

OPENVSWITCH, LIBVIRT = "openvswitch", "libvirt"
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
_LIBVIRTD = "/usr/sbin/libvirtd"
_SOCKET = "/run/libvirt/libvirt-sock"
#: libvirt as a host without systemd and of a cgroup that is not its own can run it: no groups of
#: controllers, no namespaces within one, guests' output in files where virtlogd would hold it.
_SETTINGS = {
    "libvirtd.conf": 'auth_unix_rw = "none"\nunix_sock_group = "root"\n'
    'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n',
    "qemu.conf": 'cgroup_controllers = [ ]\nnamespaces = [ ]\nsecurity_driver = "none"\n'
    'user = "root"\ngroup = "root"\nstdio_handler = "file"\n',
    "network.conf": "",
}
_SHIPPED = "/usr/share/libvirt/nwfilter"
#: Folders that are a host's own, not the machine's.
FOLDERS = {
    "etc/openvswitch": 0o755,
    "var/log/openvswitch": 0o755,
    "var/lib/openvswitch": 0o755,
    "etc/libvirt": 0o755,
    "var/cache/libvirt": 0o755,
    "var/lib/libvirt": 0o755,
    "var/log/libvirt": 0o755,
}
#: Seconds for libvirtd to listen; a loaded machine starts many of them.
_PATIENCE = 60.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def needed(network: dict[str, Any], libvirt: object = None) -> tuple[str, ...]:
    """Return the names of the daemons that a host's intent needs."""
    bridges = network.get("bridges")
    specs = bridges.values() if isinstance(bridges, dict) else ()
    switched = any(isinstance(spec, dict) and "openvswitch" in spec for spec in specs)
    wanted = ((OPENVSWITCH, switched or network.get("flows")), (LIBVIRT, libvirt is not None))
    return tuple(name for name, needs in wanted if needs)


def start(names: list[str]) -> None:
    """Start daemons inside a host, from where it is; raises RuntimeError where one does not start.

    A machine that has no such program has hosts without it: a plan says so, as for any host.
    """
    if OPENVSWITCH in names and os.access(_SWITCH[0], os.X_OK):
        _start_switch()
    if LIBVIRT in names and os.access(_LIBVIRTD, os.X_OK):
        _start_libvirt()


def _start_switch() -> None:
    os.makedirs(_RUN, 0o755, exist_ok=True)
    if not os.path.exists(_DATABASE):
        _run(_CREATE)
    for argv in (_SERVER, _INIT, _SWITCH):
        _run(argv)


def _start_libvirt() -> None:
    folder = "/etc/libvirt"
    for name, text in _SETTINGS.items():
        if not os.path.exists(f"{folder}/{name}"):
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
    # Where its package would have put them; at the next start they may be other ones.
    if os.path.isdir(_SHIPPED) and not os.path.isdir(f"{folder}/nwfilter"):
        shutil.copytree(_SHIPPED, f"{folder}/nwfilter")
    os.makedirs("/run/libvirt", 0o755, exist_ok=True)
    _run([_LIBVIRTD, "-d", "-f", f"{folder}/libvirtd.conf"])
    end = time.monotonic() + _PATIENCE
    while not os.path.exists(_SOCKET):
        if time.monotonic() > end:
            raise TimeoutError("libvirtd did not listen in time")
        time.sleep(0.01)


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} exited {done.returncode}: {done.stderr.strip()}")
