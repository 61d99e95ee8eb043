"""The one process that a lab hangs on: PID 1 of a PID namespace around all of its hosts.

Its mount namespace holds the hosts' disks, its network namespace is the controller's, and it keeps
the router's open. So killing it ends everything: the kernel kills all processes of the namespace,
and mounts and networks go with the last of them. It takes orders over a unix socket, one line of
JSON each; whoever started it and dies before the first order is done takes it along.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.lab import daemons, inside, linux
from fleet.lab.vm import guest
from fleet.lab.wires import SWITCH_MTU, Wires

#: Hosts in the making at once: more than that only wait for the processors.
ABREAST = 16
#: Seconds for one host to come up on a machine that is busy with hundreds.
PATIENCE = 120.0
UPLINK, DOWNLINK = "controller", "hosts"
#: RFC 5180's range, for labs with IPv6.
CONTROLLER_6, ROUTER_6 = "2001:2:0:ffff::1/64", "2001:2:0:ffff::2/64"
_HERE = str(Path(__file__).resolve().parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from fleet.lab.warden import main; "
    "sys.exit(main(sys.argv[2], *map(int, sys.argv[3:])))"
)


def start(folder: str) -> socket.socket:
    """Start the warden of the lab in a folder; return the connection it takes orders from."""
    ours, theirs = socket.socketpair()
    with open(f"{folder}/log", "ab") as log, theirs:
        # Isolated: neither the operator's directory nor her environment says what runs as root.
        argv = [sys.executable, "-I", "-c", _PROGRAM, _HERE, folder]
        argv += [str(theirs.fileno()), str(os.getpid())]
        starter = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
        )
    if starter.wait() != 0:
        ours.close()
        with open(f"{folder}/log", errors="replace") as log_file:
            last = log_file.read().strip().splitlines()[-1:]
        raise OSError(f"the lab's warden did not start: {' '.join(last)}")
    return ours


def identity(pid: int) -> str:
    """Return "PID START", which no later process has; raises OSError where there is none."""
    with open(f"/proc/{pid}/stat") as file:
        return f"{pid} {file.read().rpartition(')')[2].split()[19]}"


def running(path: str) -> int:
    """Return the pid of the very process that a file names, 0 where it has ended."""
    try:
        with open(path) as file:
            text = file.read().strip()
        pid = int(text.split()[0])
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError, IndexError):
        return 0
    return pid if text == f"{pid} {fields[19]}" and fields[0] not in "ZX" else 0


def write(path: str, text: str) -> None:
    """Write a file in one step, for root only."""
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


@dataclass
class Making:
    """A host on its way up."""

    host: dict[str, Any]
    pid: int
    go: int
    answer: int
    deadline: float
    text: bytes = b""


class Warden:
    """The hosts of a lab, and what they are plugged into."""

    def __init__(self, folder: str, own_pids: int, router: int) -> None:
        self.folder = folder
        self._router_namespace = router
        self.hosts: dict[str, dict[str, Any]] = {}
        self._own_pids = own_pids
        self._router = Wires(router)
        self._switches: dict[str, int] = {}
        self._pids: dict[int, str] = {}
        self._ports: dict[str, list[str]] = {}
        self._count = 0

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order and return the answer; raises OSError or RuntimeError."""
        if order["op"] == "add":
            for network in order["networks"]:
                self._add_network(network)
            for host in order["hosts"]:
                host["number"] = len(self.hosts) + 1
                self.hosts[host["name"]] = host
                if host["machine"]:
                    host["machine"]["guest"] = f"{self.folder}/guests/{host['number']}"
                    guest.write_disk(self._disk(host), host)
                else:
                    inside.write_disk(self._disk(host), host)
            self._boot(order["hosts"])
        elif order["op"] == "boot":
            self._boot([self.hosts[name] for name in order["hosts"]])
        elif order["op"] == "unplug":
            for name in order["hosts"]:
                self._unplug(name)
        elif order["op"] == "cable":
            nic = next(
                each for each in self.hosts[order["host"]]["nics"] if each["name"] == order["nic"]
            )
            self._router.set_up(nic["port"], order["up"])
        return {"ok": True}

    def reap(self) -> None:
        """Let go of hosts that have ended."""
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._pids.pop(pid, None)

    def _disk(self, host: dict[str, Any]) -> str:
        return f"{self.folder}/disk/{host['number']}"

    def _add_network(self, network: dict[str, Any]) -> None:
        name = network["name"]
        if name not in self._switches:
            device = f"net{len(self._switches) + 1}"
            self._switches[name] = self._router.make_switch(device)
            if any(":" in gateway for gateway in network["gateways"]):
                self._router.set_sysctl(f"ipv6/conf/{device}/disable_ipv6", "0")
        for gateway in network["gateways"]:
            device = f"net{list(self._switches).index(name) + 1}"
            self._router.add_address(device, gateway)

    def _boot(self, hosts: list[dict[str, Any]]) -> None:
        """Bring hosts up, some at a time; where one fails, those in the making go with it."""
        waiting, making = list(reversed(hosts)), dict[int, Making]()
        poll = select.poll()
        try:
            while waiting or making:
                while waiting and len(making) < ABREAST:
                    one = self._fork(waiting.pop())
                    making[one.answer] = one
                    poll.register(one.answer, select.POLLIN)
                for descriptor, _ in poll.poll(1000):
                    if self._advance(making[descriptor]):
                        poll.unregister(descriptor)
                        self._close(making.pop(descriptor))
                late = [one for one in making.values() if one.deadline < time.monotonic()]
                if late:
                    raise RuntimeError(f"{late[0].host['name']}: it did not come up in time")
        finally:
            for one in making.values():
                os.kill(one.pid, signal.SIGKILL)
                self._close(one)
            self.reap()

    def _fork(self, host: dict[str, Any]) -> Making:
        go, answer = os.pipe(), os.pipe()
        first, host["booted"] = not host.get("booted"), True
        if host["machine"]:
            self._name_ports(host)
        linux.unshare(linux.NEWPID)
        pid = os.fork()
        if pid == 0:
            if host["machine"]:
                router = self._router_namespace
                _keep_only(go[0], answer[1], router)
                guest.become_guest(self._disk(host), host, router, first, go[0], answer[1])
            _keep_only(go[0], answer[1])
            inside.become_host(self._disk(host), host, go[0], answer[1])
        # The next child is to be init of a namespace of its own, not a child of this one's.
        linux.setns(self._own_pids, linux.NEWPID)
        os.close(go[0])
        os.close(answer[1])
        self._pids[pid] = host["name"]
        patience = guest.PATIENCE if host["machine"] else PATIENCE
        return Making(host, pid, go[1], answer[0], time.monotonic() + patience)

    def _advance(self, one: Making) -> bool:
        """Go on with a host after what it said; return whether it is up."""
        said = os.read(one.answer, 65536)
        one.text += said
        name = one.host["name"]
        *lines, one.text = one.text.split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "pid":
                self._plug_in(one.host, int(rest))
                write(f"{self.folder}/hosts/{name}", identity(int(rest)))
                os.write(one.go, b"g")
            elif word == "up":
                return True
            else:
                raise RuntimeError(f"{name}: {rest}")
        if not said:
            raise RuntimeError(f"{name}: it ended while it came up")
        return False

    def _unplug(self, name: str) -> None:
        for port in self._ports.pop(name, []):
            self._router.delete(port)

    def _name_ports(self, host: dict[str, Any]) -> None:
        self._unplug(host["name"])
        self._count += 1
        for nic in host["nics"]:
            nic["port"] = f"p{self._count}-{nic['name']}"[:15]

    def _plug_in(self, host: dict[str, Any], pid: int) -> None:
        if host["machine"]:
            for nic in host["nics"]:
                # The guest's process made the taps; they go with it.
                self._router.join(nic["port"], self._switches[nic["network"]], SWITCH_MTU)
            return
        self._name_ports(host)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for nic in host["nics"]:
                switch = self._switches[nic["network"]]
                self._ports.setdefault(host["name"], []).append(nic["port"])
                self._router.make_cable(
                    nic["port"],
                    nic["name"],
                    namespace,
                    switch=switch,
                    mac=nic["mac"],
                    mtu=SWITCH_MTU,
                )
                if daemons.OPENVSWITCH in host["daemons"]:
                    self._router.complete_checksums(nic["port"])
        except OSError as error:
            raise RuntimeError(f"{host['name']}: NIC {nic['name']}: {error}") from error
        finally:
            os.close(namespace)

    @staticmethod
    def _close(one: Making) -> None:
        os.close(one.go)
        os.close(one.answer)


def _keep_only(*descriptors: int) -> None:
    """Close every other descriptor: a host must not hold the lab's sockets and namespaces."""
    keep = {0, 1, 2, *descriptors}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))


def _make_router() -> int:
    """Return a namespace that has no way out of the lab, as a descriptor."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    linux.unshare(linux.NEWNET)
    router = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    linux.setns(home, linux.NEWNET)
    os.close(home)
    wires = Wires(router)
    for name, value in {
        "ipv4/ip_forward": "1",
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv6/conf/default/disable_ipv6": "1",
        "ipv6/conf/all/forwarding": "1",
    }.items():
        wires.set_sysctl(name, value)
    wires.set_up("lo")
    wires.add_last_resort()
    wires.close()
    return router


def _join_controller(router: int, order: dict[str, Any]) -> None:
    """Join the controller, whose namespace this process is in, to the router."""
    ours, theirs = Wires(), Wires(router)
    ours.set_up("lo")
    ours.make_cable(UPLINK, DOWNLINK, router)
    theirs.set_up(DOWNLINK)
    theirs.set_up(DOWNLINK)
    ours.add_address(UPLINK, order["controller"])
    theirs.add_address(DOWNLINK, order["router"])
    ours.add_default(UPLINK, order["router"].partition("/")[0])
    if any(":" in gateway for network in order["networks"] for gateway in network["gateways"]):
        theirs.set_sysctl(f"ipv6/conf/{DOWNLINK}/disable_ipv6", "0")
        ours.add_address(UPLINK, CONTROLLER_6)
        theirs.add_address(DOWNLINK, ROUTER_6)
        ours.add_default(UPLINK, ROUTER_6.partition("/")[0])
    ours.close()
    theirs.close()


def _serve(folder: str, first: socket.socket) -> None:
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    linux.mount("lab", f"{folder}/disk", "tmpfs", 0, "mode=700,size=80%")
    router = _make_router()
    write(f"{folder}/router", str(router))
    warden = Warden(folder, own_pids, router)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{folder}/control")
    listening.listen(16)
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    gc.freeze()  # the hosts' inits share what is never written again
    joined = False
    with first:
        while _answer(first, warden, router, joined):
            joined = True
    if not joined:
        return
    while True:
        for ready in select.select([listening, woken], [], [])[0]:
            if ready is woken:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                warden.reap()
            else:
                connection, _ = listening.accept()
                with connection:
                    _answer(connection, warden, router, True)


def _answer(connection: socket.socket, warden: Warden, router: int, joined: bool) -> bool:
    """Read one order, carry it out and answer; return False where there is none."""
    try:
        with connection.makefile("rb") as lines:
            line = lines.readline()
        if not line.endswith(b"\n"):
            return False
        order = json.loads(line)
        if not joined:
            _join_controller(router, order)
        answer = warden.obey(order)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        text = str(error) if isinstance(error, (OSError, RuntimeError)) else repr(error)
        answer = {"ok": False, "error": text}
    with suppress(OSError):
        connection.sendall(json.dumps(answer).encode() + b"\n")
    return bool(answer["ok"])


def main(folder: str, descriptor: int, parent: int) -> int:
    """Leave this machine's namespaces, and be the warden in a child that is PID 1 of a new one."""
    # Whoever starts it may be killed, and the folder be another lab's by the time it is written to.
    linux.die_with_parent()
    if os.getppid() != parent:
        return 1
    os.umask(0o022)
    linux.unshare(linux.NEWNS | linux.NEWNET)
    linux.mount("", "/", flags=linux.REC | linux.PRIVATE)
    go_read, go_write = os.pipe()
    linux.unshare(linux.NEWPID)
    pid = os.fork()
    if pid:
        # Whoever is to end the lab must know the warden before there is anything to end.
        write(f"{folder}/warden", identity(pid))
        os.write(go_write, b"g")
        return 0
    os.close(go_write)
    if not os.read(go_read, 1):
        return 1
    os.close(go_read)
    _serve(folder, socket.socket(fileno=descriptor))
    return 0
