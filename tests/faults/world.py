"""A host, a router and a controller, each in namespaces of its own; and the helpers' zygote."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PACKAGES = site.getsitepackages()[0]
#: Management addresses: the host's own, another one of its subnet, the router's, the controller's.
OWN, NEW, ROUTER, SECOND, CONTROLLER = (
    "198.18.0.5", "198.18.0.6", "198.18.0.1", "198.18.0.2", "198.18.100.2",
)  # fmt: skip
_CLONE_NEWNET = 0x40000000

SETUP = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o size=48m tmpfs /var/lib
mount -t tmpfs -o size=16m tmpfs /run
mkdir -p /etc/sysctl.d /run/sshd /run/netns
mount -t tmpfs -o mode=755,size=8m tmpfs /etc/sysctl.d
: > /run/empty
if [ -e /root/.bashrc ]; then mount --bind /run/empty /root/.bashrc; fi
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for scope in all default; do
  echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_dad
  echo 0 > /proc/sys/net/ipv6/conf/$scope/router_solicitations
done
echo ready
trap '' CHLD
read go
/usr/sbin/sshd -f /dev/null -h {keys}/host -o AuthorizedKeysFile={keys}/user.pub \
  -o StrictModes=no -o PidFile=none -o UsePAM=no -o PermitUserRC=no -o PermitRootLogin=yes \
  -o MaxStartups=100 -E /run/sshd/log
echo ready
exec sleep 600
"""


#: IFF_TAP | IFF_NO_PI by TUNSETIFF; the device lives as long as the descriptor.
HOLD_TAPS = """
import fcntl, os, struct, sys, time
for name in sys.argv[1:]:
    opened = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(opened, 0x400454CA, struct.pack("16sH14x", name.encode(), 0x1002))
print("ready", flush=True)
time.sleep(600)
"""
HOLD_NAMESPACE = """
import ctypes, os, sys, time
space = os.open("/run/netns/" + sys.argv[1], os.O_RDONLY)
assert ctypes.CDLL(None).setns(space, 0x40000000) == 0
print("ready", flush=True)
time.sleep(600)
"""


#: Open vSwitch's own processes, with a datapath in user space.
OPEN_VSWITCH = {
    "ovsdb": "ovsdb-server /var/lib/ovs/conf.db --remote=punix:/run/openvswitch/db.sock "
    "--unixctl=/run/openvswitch/db.ctl --pidfile=/run/openvswitch/ovsdb.pid ",
    "vswitchd": "ovs-vswitchd unix:/run/openvswitch/db.sock "
    "--unixctl=/run/openvswitch/switch.ctl --pidfile=/run/openvswitch/vswitchd.pid ",
}


class Zygote:
    """The process that helpers are forked from; safe to use from several threads."""

    def __init__(self, code: Path) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).with_name("zygote.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program), str(code), PACKAGES, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._lock = threading.Lock()

    def start(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            pid = int(self._socket.recv(20))
        assert pid, "the zygote started nothing"
        return pid

    def close(self) -> None:
        self._socket.close()
        self.process.wait(10)


class Keys:
    """The keys of all hosts' sshds and of the controller, and the code that helpers run."""

    def __init__(self, patches: Sequence[tuple[str, str, str]] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-faults-"))
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name],
                check=True,
            )
        # A copy: who edits the repository meanwhile does not change what is attacked.
        code = self.folder / "code"
        shutil.copytree(
            REPOSITORY / "fleet/host", code / "fleet/host",
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        shutil.copy(REPOSITORY / "fleet/__init__.py", code / "fleet/__init__.py")
        for file, old, new in patches:
            (path,) = (code / "fleet/host").rglob(file)
            text = path.read_text()
            assert text.count(old) >= 1, f"{file} no longer has {old!r}"
            path.write_text(text.replace(old, new))
        self.zygote = Zygote(code)

    def close(self) -> None:
        self.zygote.close()
        shutil.rmtree(self.folder)


@contextmanager
def keys(patches: Sequence[tuple[str, str, str]] = ()) -> Iterator[Keys]:
    made = Keys(patches)
    try:
        yield made
    finally:
        made.close()


class HelperFailed(Exception):
    """The helper answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']} {error['problems']}"[:1000])
        self.code = str(error["code"])


class Helper:
    """One helper on a host, spoken to over pipes as the controller speaks to it over ssh."""

    def __init__(self, world: World, **request: Any) -> None:
        theirs_in, self._in = os.pipe()
        out, theirs_out = os.pipe()
        self.log = world.folder / f"stderr.{time.monotonic_ns()}"
        errors = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        descriptors = [theirs_in, theirs_out, errors]
        try:
            self.pid = world.keys.zygote.start({"pid": world.pid, **request}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._out, self._read = out, b""
        self._number, self.last = 0, b""
        self.open, self.vanished = True, False
        #: Neither heard nor answered any more, and never closed: a half-open connection.
        self.silent = False

    def call(
        self,
        op: str,
        timeout: float = 6.0,
        at: Callable[[str], None] = lambda place: None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Return the answer; raises HelperFailed, or EOFError where the helper is gone or late.

        ``at`` is told each place between a message's parts: before, half, sent, answered.
        """
        self._number += 1
        line = (json.dumps({"id": self._number, "op": op, **fields}) + "\n").encode()
        half = len(line) // 2
        at(f"message.{op}.before")
        self.write(line[:half])
        at(f"message.{op}.half")
        self.write(line[half:])
        self.last = line
        at(f"message.{op}.sent")
        answer = self._answer(time.monotonic() + timeout)
        at(f"message.{op}.answered")
        return answer

    def write(self, data: bytes) -> None:
        """Send raw bytes; raises EOFError where nobody takes them."""
        try:
            if not self.open or self.silent:
                raise OSError
            os.write(self._in, data)
        except OSError:
            raise EOFError("the pipe is closed") from None

    def _answer(self, end: float) -> dict[str, Any]:
        while True:
            answer, newline, rest = self._read.partition(b"\n")
            if not newline:
                self._read += self._more(end - time.monotonic())
                continue
            self._read = rest
            words: dict[str, Any] = json.loads(answer)
            if "event" in words:
                continue
            if not words["ok"]:
                raise HelperFailed(words["error"])
            return words

    def _more(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        while True:
            if self.vanished:
                self.close()
            if self._out < 0 or self.silent:
                raise EOFError("the controller is dead")
            left = end - time.monotonic()
            if select.select([self._out], [], [], max(0.0, min(left, 0.02)))[0]:
                break
            if left <= 0:
                raise EOFError("the helper did not answer in time")
        data = os.read(self._out, 1 << 16)
        if not data:
            raise EOFError("the helper is gone")
        return data

    def vanish(self) -> None:
        """Have this end of every pipe closed, by the thread that reads from it."""
        self.cut()
        self.vanished = True

    def cut(self) -> None:
        """Close the controller's end of the input: what a cut connection is to the helper."""
        if self.open:
            self.open = False
            os.close(self._in)

    def close(self) -> None:
        self.cut()
        if self._out >= 0:
            os.close(self._out)
            self._out = -1


class World:
    """One host and what is around it, until ``close``."""

    def __init__(self, keys_: Keys) -> None:
        self.keys = keys_
        self.folder = Path(tempfile.mkdtemp(dir=keys_.folder))
        self._others: list[subprocess.Popen[Any]] = []
        self.helpers: list[Helper] = []
        self.keeper = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "-m", "-u", "-i", "-p", "--fork",
             "--kill-child", "sh", "-c",
             SETUP.format(keys=keys_.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.keeper.stdout is not None
        assert self.keeper.stdin is not None
        assert self.keeper.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children").read_text()
        self.pid = int(children.split()[0])
        self.root = Path(f"/proc/{self.pid}/root")
        self.inside = ["nsenter", "-t", str(self.pid), "-n", "-m", "-p"]
        self.router = self._space()
        self.controller = self._space()
        self._wire()
        self.keeper.stdin.write(b"go\n")
        self.keeper.stdin.flush()
        assert self.keeper.stdout.readline() == b"ready\n"

    def _space(self) -> int:
        process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                "-n",
                "sh",
                "-c",
                "ip link set lo up; echo ready; exec sleep 600",
            ],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self._others.append(process)
        return process.pid

    def _wire(self) -> None:
        self.batch(
            f"""
            link add r0 type veth peer name eth0 netns {self.pid}
            link add r1 type veth peer name eth1 netns {self.pid}
            link add c0 type veth peer name ctl0 netns {self.controller}
            link set r0 address 02:00:00:00:01:01 up
            link set r1 address 02:00:00:00:01:02 up
            link set c0 up
            address add {ROUTER}/24 dev r0
            address add {SECOND}/24 dev r0
            address add 198.18.5.1/24 dev r1
            address add 198.18.100.1/24 dev c0
            """,
            self.router,
        )
        self.enter(self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.batch(
            f"link set ctl0 up\naddress add {CONTROLLER}/24 dev ctl0\n"
            "route add default via 198.18.100.1",
            self.controller,
        )
        self.batch(
            f"""
            link set eth0 address 02:00:00:00:00:05 up
            link set eth1 address 02:00:00:00:00:15 up
            address add {OWN}/24 dev eth0
            route add default via {ROUTER}
            """
        )

    def batch(self, lines: str, space: int = 0) -> None:
        """Run lines of ip(8) in the host, or in another namespace."""
        text = "\n".join(line.strip() for line in lines.splitlines() if line.strip())
        done = subprocess.run(
            ["nsenter", "-t", str(space or self.pid), "-n", "ip", "-batch", "-"],
            input=text + "\n", text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}: {done.stderr}"

    def enter(self, space: int, *argv: str, check: bool = True) -> str:
        """Run a program in the network namespace of a process."""
        done = subprocess.run(
            ["nsenter", "-t", str(space), "-n", *argv], capture_output=True, text=True, timeout=30
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def sh(self, script: str, check: bool = True) -> str:
        """Run a shell script on the host."""
        done = subprocess.run(
            [*self.inside, "sh", "-c", script], capture_output=True, text=True, timeout=30
        )
        assert not check or done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def wait_for_carriers(self) -> None:
        """Wait until the kernel has told of every carrier; it does so once a second
        (net/core/link_watch.c), and link-local addresses and routes follow."""
        end = time.monotonic() + 5
        while "NO-CARRIER" in self.enter(self.pid, "ip", "-o", "link"):
            assert time.monotonic() < end, "a device of the host has no carrier"
            time.sleep(0.2)

    def helper(self, **request: Any) -> Helper:
        helper = Helper(self, **request)
        self.helpers.append(helper)
        return helper

    def reachable(self, address: str, seconds: float = 0.5) -> bool:
        """Say whether a new TCP connection from the controller is answered by an sshd."""
        with self._outside() as connection:
            connection.settimeout(seconds)
            try:
                connection.connect((address, 22))
                return connection.recv(8).startswith(b"SSH-2.0")
            except OSError:
                return False

    @contextmanager
    def _outside(self) -> Iterator[socket.socket]:
        libc = ctypes.CDLL(None, use_errno=True)
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/proc/{self.controller}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert libc.setns(there, _CLONE_NEWNET) == 0
            try:
                made = socket.socket(socket.AF_INET)
            finally:
                assert libc.setns(back, _CLONE_NEWNET) == 0
        finally:
            os.close(back)
            os.close(there)
        with made:
            yield made

    def login(self, address: str) -> bool:
        """Say whether a new login over ssh from the controller succeeds."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.controller), "-n", "ssh", "-F", "/dev/null",
             "-i", str(self.keys.folder / "user"), "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
             "-o", "ConnectTimeout=2", f"root@{address}", "true"],
            capture_output=True, timeout=20,
        )  # fmt: skip
        return done.returncode == 0

    def commit(self, state: dict[str, Any], address: str) -> None:
        """Roll out a state with nothing in its way, as transaction ``tx0``."""
        main, nonce = self.helper(), "the first one's"
        digest = main.call("plan", state=state)["plan"]["digest"]
        main.call(
            "arm", transaction="tx0", plan_digest=digest, deadline=8.0, owner="ops@desk",
            nonce_hash=hashlib.sha256(nonce.encode()).hexdigest(),
        )  # fmt: skip
        main.call("apply", transaction="tx0", timeout=10.0)
        helper = self.helper(connection=[now(), address])
        words = {"transaction": "tx0", "plan_digest": digest, "nonce": nonce, "address": address}
        assert helper.call("confirm", **words)["state"] == "COMMITTED"
        main.close()
        helper.close()

    def start_switch(self) -> None:
        """Start Open vSwitch on the host, with an empty database."""
        self.sh(
            "mkdir -p /run/openvswitch /var/lib/ovs; ovsdb-tool create /var/lib/ovs/conf.db "
            "/usr/share/openvswitch/vswitch.ovsschema"
        )
        self.start_daemon("ovsdb")
        self.sh("ovs-vsctl --timeout=5 --no-wait init")
        self.start_daemon("vswitchd")

    def start_daemon(self, name: str) -> None:
        """Start one of Open vSwitch's processes, as PID 1 does where it has died."""
        self.sh(
            f"{OPEN_VSWITCH[name]} --detach --no-chdir -vconsole:off -vsyslog:off "
            f"--log-file=/run/openvswitch/{name}.log >/dev/null 2>&1"
        )

    def kill_daemon(self, name: str) -> None:
        """Kill one of Open vSwitch's processes."""
        self.sh(f"kill -9 $(cat /run/openvswitch/{name}.pid)")

    def hold_taps(self, names: Sequence[str]) -> None:
        """Make taps that a process of the host has open, as guests do."""
        self._keep(HOLD_TAPS, *names)

    def hold_namespace(self, name: str) -> None:
        """Have a process of the host in one of its namespaces."""
        self._keep(HOLD_NAMESPACE, name)

    def _keep(self, program: str, *words: str) -> None:
        process = subprocess.Popen(
            [*self.inside, sys.executable, "-I", "-S", "-c", program, *words],
            stdout=subprocess.PIPE,
        )
        self._others.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def processes(self) -> dict[int, int]:
        """Return the host's processes as {pid on the host: pid here}."""
        space = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == space:
                    for line in Path(f"/proc/{name}/status").read_text().splitlines():
                        if line.startswith("NSpid:"):
                            found[int(line.split()[-1])] = int(name)
        return found

    def watchdogs(self, transaction: str = "tx1") -> list[int]:
        """Return the pids here of the watchdogs that live; none before it was armed."""
        lease = self.sealed(f"run/fleet/{transaction}/lease")
        inside = self.processes()
        return [inside[who[0]] for who in lease.get("watchdogs", ()) if who[0] in inside]

    def sealed(self, path: str) -> dict[str, Any]:
        """Return a sealed file of fleet's, read without fleet; empty where there is none."""
        try:
            found = json.loads((self.root / path).read_text().split("\n", 1)[1])
        except (OSError, ValueError, IndexError):
            return {}
        return found if isinstance(found, dict) else {}

    def outcome(self, transaction: str = "tx1") -> dict[str, Any]:
        """Return what stands beside the journal when a transaction has ended."""
        for place in ("run/fleet", "var/lib/fleet/journal"):
            found = self.sealed(f"{place}/{transaction}/outcome")
            if found:
                return found
        return {}

    def close(self) -> None:
        """End every process of this world; its namespaces and mounts go with them."""
        for helper in self.helpers:
            helper.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # all of the PID namespace with it
        for process in (self.keeper, *self._others):
            if process is not self.keeper:
                process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def world(keys_: Keys) -> Iterator[World]:
    made = World(keys_)
    try:
        yield made
    finally:
        made.close()


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
