"""One lab host that is a QEMU guest, and the init that ends it.

As for a host of namespaces, all of this runs in a process that the warden forked as PID 1 of a new
PID namespace: killing it is a power cut. It stays where the controller stands, and starts QEMU in a
root, a mount and an empty network namespace of its own.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fleet.lab import linux
from fleet.lab.vm import command, identity
from fleet.lab.vm.wire import GuestError, Monitor, agent_of
from fleet.lab.wires import Within

#: Seconds for a boot where every instruction is emulated and the machine busy with others.
PATIENCE = 900.0
#: include/uapi/linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TAP, _NO_PI, _MULTI_QUEUE, _VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000


def write_disk(disk: str, host: Mapping[str, Any]) -> None:
    """Make a guest's disk and what makes it itself; once, not at each boot."""
    machine = host["machine"]
    os.makedirs(disk, 0o700, exist_ok=True)
    os.makedirs(machine["guest"], 0o700, exist_ok=True)
    with open(f"{machine['image']}/initrd", "rb") as file:
        common = file.read()
    with open(f"{machine['guest']}/initrd", "wb") as out:
        out.write(common + identity.initrd(host))
    below = f"{command.GOLDEN}/disk.qcow2" if machine["golden"] else f"{command.IMAGE}/image.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2"]
    pid = start([*words, f"{command.DISK}/disk.qcow2"], machine, disk)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{host['name']}: {_last_words(machine['guest'])}")


def become_guest(
    disk: str, host: Mapping[str, Any], router: int, first: bool, go: int, answer: int
) -> None:
    """Be the init of a guest until it ends; never returns.

    Says and awaits what inside.become_host does; ``router`` is the descriptor of the network
    namespace that its taps are made in. ``first`` says that the disk was never booted: only then
    it fits the golden host's RAM.
    """
    try:
        pid = os.readlink("/proc/self")
        if host["cgroup"]:
            with open(f"{host['cgroup']}/cgroup.procs", "w") as file:
                file.write("0")
        machine = host["machine"]
        clone = bool(first and machine["golden"])
        for name in ("agent", "qmp"):
            with suppress(FileNotFoundError):
                os.unlink(f"{machine['guest']}/{name}")
        queues = [_open_tap(router, nic) for nic in host["nics"]]
        words = command.command(
            machine["accelerator"], machine["memory"], f"{command.DISK}/disk.qcow2"
        )
        words += command.taps(host["nics"], queues)
        if clone:
            words += ["-incoming", f"file:{command.GOLDEN}/ram"]
        qemu = start(words, machine, disk, [each for some in queues for each in some])
        for each in (each for some in queues for each in some):
            os.close(each)
        os.write(answer, f"pid {pid}\n".encode())
        if not os.read(go, 1):
            os._exit(1)
        _bring_up(host, qemu, clone)
        os.write(answer, b"up\n")
    except BaseException as error:
        said = str(error).replace("\n", " ")
        os.write(answer, f"error {type(error).__name__}: {said}\n".encode())
        os._exit(1)
    os.close(go)
    os.close(answer)
    _outlive(qemu)


def start(
    words: Sequence[str], machine: Mapping[str, Any], disk: str, keep: Sequence[int] = ()
) -> int:
    """Start a program of QEMU's root as a child; return its pid.

    It sees its image, its disk and its guest's folder, and no network. What it says is in the
    guest's folder, in ``qemu.log``.
    """
    child = os.fork()
    if child:
        return child
    try:
        # Whoever brings a golden host up may be killed.
        linux.die_with_parent()
        log = os.open(f"{machine['guest']}/qemu.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        linux.unshare(linux.NEWNS | linux.NEWNET | linux.NEWIPC)
        linux.mount("", "/", flags=linux.REC | linux.PRIVATE)
        _enter_root(machine, disk)
        for each in keep:
            os.set_inheritable(each, True)
        os.execve(f"/usr/bin/{words[0]}", list(words), {"PATH": "/usr/bin", "LANG": "C.UTF-8"})
    except BaseException as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(127)


def _enter_root(machine: Mapping[str, Any], disk: str) -> None:
    root = f"{machine['image']}/qemu"
    linux.mount(root, root, flags=linux.BIND)
    linux.mount("folders", f"{root}/run", "tmpfs", linux.NOSUID | linux.NODEV, "mode=755")
    linux.mount("devices", f"{root}/dev", "tmpfs", linux.NOSUID, "mode=755")
    devices = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}
    if machine["accelerator"] == "kvm":
        devices["kvm"] = (10, 232)
    for name, (major, minor) in devices.items():
        os.mknod(f"{root}/dev/{name}", stat.S_IFCHR | 0o600, os.makedev(major, minor))
    folders = {command.IMAGE: machine["image"], command.DISK: disk, command.GUEST: machine["guest"]}
    if machine["golden"]:
        folders[command.GOLDEN] = machine["golden"]
    for inside, outside in folders.items():
        os.mkdir(f"{root}{inside}")
        linux.mount(outside, f"{root}{inside}", flags=linux.BIND)
    linux.change_root(root)


def _open_tap(router: int, nic: Mapping[str, Any]) -> list[int]:
    """Make a tap in the router's namespace; return a descriptor for each of its queues."""
    count = command.QUEUES if nic["model"] == "virtio-net-pci" else 1
    flags = _TAP | _NO_PI | _VNET_HDR | (_MULTI_QUEUE if count > 1 else 0)
    queues = []
    with Within(router):
        for _ in range(count):
            queue = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(queue, _TUNSETIFF, struct.pack("16sH22x", nic["port"].encode(), flags))
            queues.append(queue)
    return queues


def _bring_up(host: Mapping[str, Any], qemu: int, clone: bool) -> None:
    end = time.monotonic() + PATIENCE
    monitor = Monitor(f"{host['machine']['guest']}/qmp")
    try:
        while clone and monitor.ask("query-status")["status"] == "inmigrate":
            _check(qemu, host, end)
            time.sleep(0.05)  # QEMU has no event for it without a capability of the snapshot's
        for number, nic in enumerate(host["nics"]):
            if not clone:
                monitor.ask("device_add", **command.device(number, nic))
        monitor.ask("cont")
        if clone:
            _make_itself(host, monitor)
    finally:
        monitor.close()
    while not _greets(host["address"], host["port"]):
        _check(qemu, host, end)
        time.sleep(0.1)  # a guest that has no network yet tells nobody when it gets one


def _make_itself(host: Mapping[str, Any], monitor: Monitor) -> None:
    """Make a clone of the golden host another one, then plug in its NICs."""
    with agent_of(host["machine"]["guest"], 60) as agent:
        agent.ask("guest-set-time", time=time.time_ns())
        steps: list[tuple[list[str], bytes]] = [
            (["tar", "-C", "/", "--no-overwrite-dir", "-xf", "-"], identity.archive(host)),
            (["sh", "-s"], identity.SETTLE.encode()),
        ]
        for argv, stdin in steps:
            _run(agent, argv, stdin)
        for number, nic in enumerate(host["nics"]):
            monitor.ask("device_add", **command.device(number, nic))
        names = [nic["name"] for nic in host["nics"]]
        _run(agent, ["sh", "-s", *names], identity.PLUGGED.encode())


def _run(agent: Any, argv: list[str], stdin: bytes) -> None:
    code, out, err = agent.run(argv, stdin, 120)
    if code:
        said = (err or out).decode(errors="replace").strip()
        raise GuestError(f"{argv[0]} in a clone of the golden host: {code}: {said}")


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _check(qemu: int, host: Mapping[str, Any], end: float) -> None:
    """Raise RuntimeError with what is known where QEMU has ended or time is up."""
    ended, _ = os.waitpid(qemu, os.WNOHANG)
    folder = host["machine"]["guest"]
    if ended:
        raise RuntimeError(f"QEMU ended: {_last_words(folder)}")
    if time.monotonic() > end:
        raise RuntimeError(
            f"no ssh in {PATIENCE:g} s; its console: {_last_words(folder, 'serial')}"
        )


def _last_words(folder: str, name: str = "qemu") -> str:
    try:
        with open(f"{folder}/{name}.log", errors="replace") as file:
            return " | ".join(file.read().split("\n")[-4:]).strip(" |")
    except FileNotFoundError:
        return "nothing was said"


def _outlive(qemu: int) -> None:
    """End when QEMU does, or at a SIGTERM, and everything else here with it."""
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    while True:
        with suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                if ended == qemu:
                    os._exit(0)
        if signal.sigwait(signals) != signal.SIGCHLD:
            os._exit(0)
