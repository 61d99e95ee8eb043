"""One lab host from the inside: its root, its devices, its sshd, and the init that ends it.

All of this runs in a process that the warden forked as PID 1 of a new PID namespace. What it
mounts is in its own mount namespace and goes with it.
"""

from __future__ import annotations

import os
import signal
import stat
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fleet.lab import daemons, linux
from fleet.lab.wires import Wires

SSHD = "/usr/sbin/sshd"
SSHD_PID = "/run/sshd.pid"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds for sshd to listen; a loaded machine starts hundreds of them.
_PATIENCE = 60.0

SSHD_CONFIG = f"""\
Port {{port}}
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile {SSHD_PID}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 1000
MaxSessions 1000
Subsystem sftp internal-sftp
"""

#: Devices of a host: name, type and number, mode. No /dev/kvm: where it opens but does not work,
#: libvirt probes it for seconds on every call.
_DEVICES = {
    "null": (1, 3, 0o666), "zero": (1, 5, 0o666), "full": (1, 7, 0o666), "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666), "tty": (5, 0, 0o666), "net/tun": (10, 200, 0o666),
    "vhost-net": (10, 238, 0o660),
}  # fmt: skip
#: What of the machine's own files a host does not see.
_HIDDEN = {
    "root": 0o700, "home": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "etc/ssh": 0o755,
    "var/lib/fleet": 0o700, "etc/netplan": 0o755, "etc/systemd/network": 0o755,
    **daemons.FOLDERS,
}  # fmt: skip


def write_disk(disk: str, host: Mapping[str, Any]) -> None:
    """Write what makes a host itself into the upper layer of its root; once, not at each boot."""
    upper = f"{disk}/upper"
    for folder in (upper, f"{disk}/work", f"{disk}/root"):
        os.makedirs(folder, 0o755)
    for name, mode in _HIDDEN.items():
        os.makedirs(f"{upper}/{name}", 0o755, exist_ok=True)
        os.chmod(f"{upper}/{name}", mode)
        os.setxattr(f"{upper}/{name}", "trusted.overlay.opaque", b"y")
    name = host["name"]
    files = {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n",
        "etc/machine-id": f"{uuid.uuid5(uuid.NAMESPACE_DNS, name).hex}\n",
        "etc/resolv.conf": "# A lab has no name servers.\n",
        "etc/ssh/sshd_config": SSHD_CONFIG.format(port=host["port"]),
        "etc/ssh/ssh_host_ed25519_key": host["host_key"],
        "root/.ssh/authorized_keys": host["authorized_key"],
    }
    os.mkdir(f"{upper}/root/.ssh", 0o700)
    for path, text in files.items():
        mode = 0o600 if "key" in path else 0o644
        descriptor = os.open(f"{upper}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


def become_host(disk: str, host: Mapping[str, Any], go: int, answer: int) -> None:
    """Be the init of a lab host until it ends; never returns.

    Writes "pid PID" to ``answer`` once its namespaces and mounts are there, waits for a byte on
    ``go`` (its NICs are plugged in), and writes "up" once its sshd listens; "error TEXT" where
    something failed.
    """
    try:
        # The machine's /proc is still what is mounted: the pid as the machine counts.
        pid = os.readlink("/proc/self")
        _join_cgroup(host["cgroup"])
        kinds = linux.NEWNS | linux.NEWUTS | linux.NEWIPC | linux.NEWNET
        linux.unshare(kinds | (linux.NEWCGROUP if host["cgroup"] else 0))
        _mount_all(disk, bool(host["cgroup"]))
        linux.set_hostname(host["name"])
        os.write(answer, f"pid {pid}\n".encode())
        if not os.read(go, 1):
            os._exit(1)
        _set_network(host)
        sshd = start_sshd()
        _await_sshd(sshd)
        daemons.start(host["daemons"])
        os.write(answer, b"up\n")
    except BaseException as error:
        os.write(answer, f"error {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os.close(go)
    os.close(answer)
    _reap()


def _join_cgroup(path: str) -> None:
    if path:
        with open(f"{path}/cgroup.procs", "w") as file:
            file.write("0")


def _mount_all(disk: str, cgroup: bool) -> None:
    root = f"{disk}/root"
    layers = f"lowerdir=/,upperdir={disk}/upper,workdir={disk}/work"
    linux.mount("overlay", root, "overlay", 0, layers)
    linux.mount("proc", f"{root}/proc", "proc", linux.NOSUID | linux.NODEV | linux.NOEXEC)
    linux.mount("sysfs", f"{root}/sys", "sysfs", linux.NOSUID | linux.NODEV | linux.NOEXEC)
    if cgroup:
        linux.mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2")
    linux.mount("tmpfs", f"{root}/run", "tmpfs", linux.NOSUID | linux.NODEV, "mode=755")
    os.mkdir(f"{root}/run/sshd", 0o755)
    os.mkdir(f"{root}/run/lock", 0o1777)
    _make_devices(f"{root}/dev")
    linux.change_root(root)
    _guard_machine()


def _make_devices(dev: str) -> None:
    linux.mount("tmpfs", dev, "tmpfs", linux.NOSUID, "mode=755")
    for folder in ("net", "pts", "shm"):
        os.mkdir(f"{dev}/{folder}")
    os.chmod(f"{dev}/shm", 0o1777)
    for name, (major, minor, mode) in _DEVICES.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | mode, os.makedev(major, minor))
        os.chmod(f"{dev}/{name}", mode)
    linux.mount(
        "devpts", f"{dev}/pts", "devpts", linux.NOSUID, "newinstance,ptmxmode=0666,mode=620"
    )
    for name, target in {
        "ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    }.items():  # fmt: skip
        os.symlink(target, f"{dev}/{name}")


#: Hugepages, processors, drivers, interrupts: read here, and written by nobody.
_MACHINES = ("/sys/kernel", "/sys/devices/system", "/sys/bus", "/sys/module", "/proc/irq")


def _guard_machine() -> None:
    """Keep a host's root from what is the machine's.

    Of /proc/sys only ``net`` is a namespace's, and of /sys only the network devices.
    """
    linux.mount("/proc/sys", "/proc/sys", flags=linux.BIND)
    linux.mount("", "/proc/sys", flags=linux.REMOUNT | linux.BIND | linux.RDONLY)
    linux.mount("/proc/sys/net", "/proc/sys/net", flags=linux.BIND)
    linux.mount("", "/proc/sys/net", flags=linux.REMOUNT | linux.BIND)
    for place in _MACHINES:
        with suppress(FileNotFoundError):
            linux.mount(place, place, flags=linux.BIND)
            linux.mount("", place, flags=linux.REMOUNT | linux.BIND | linux.RDONLY)
    with suppress(FileNotFoundError):
        linux.mount("/dev/null", "/proc/sysrq-trigger", flags=linux.BIND)
    with open("/run/.boot_id", "w") as file:
        file.write(f"{uuid.uuid4()}\n")
    linux.mount("/run/.boot_id", "/proc/sys/kernel/random/boot_id", flags=linux.BIND)


def _set_network(host: Mapping[str, Any]) -> None:
    wires = Wires()
    wires.set_up("lo")
    for nic in host["nics"]:
        if nic["addresses"]:
            wires.set_up(nic["name"])
        for address in nic["addresses"]:
            wires.add_address(nic["name"], address)
            if nic["gateway"]:
                alone = address.endswith(("/32", "/128"))
                wires.add_default(nic["name"], nic["gateway"], onlink=alone)
    wires.close()


def start_sshd() -> int:
    """Start sshd as a child in a session of its own; return its pid."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        log = os.open("/var/log/sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.closerange(3, 256)
        os.execve(SSHD, [SSHD, "-D", "-e"], {"PATH": PATH, "LANG": "C.UTF-8"})
    finally:
        os._exit(127)


def _await_sshd(sshd: int) -> None:
    # It writes its pid file once it listens (sshd.c, main).
    end = time.monotonic() + _PATIENCE
    while not os.path.exists(SSHD_PID):
        ended, status = os.waitpid(sshd, os.WNOHANG)
        if ended:
            with open("/var/log/sshd.log") as file:
                raise RuntimeError(f"sshd ended with {status}: {file.read().strip()}")
        if time.monotonic() > end:
            raise TimeoutError("sshd did not listen in time")
        time.sleep(0.003)


def _reap() -> None:
    """Wait for whatever is left to this init; a SIGTERM ends the host, and all its processes."""
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if signal.sigwait(signals) != signal.SIGCHLD:
            os._exit(0)
