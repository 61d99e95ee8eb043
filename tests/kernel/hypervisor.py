"""A host for the tests of transactions: own network, own mounts, the real helper as a process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fleet

REPOSITORY = str(Path(fleet.__file__).parents[1])
PACKAGES = site.getsitepackages()[0]
NONCE = "a nonce of the controller"

#: The keeper's script: nothing of it is seen outside, and it all goes with its last process.
SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size={size} tmpfs /var/lib
mount -t tmpfs -o size=16m tmpfs /run
mkdir -p /etc/sysctl.d
mount -t tmpfs -o mode=755 tmpfs /etc/sysctl.d
mount -t sysfs sysfs /sys
{cgroup}
ip link set lo up
for scope in all default; do echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_dad; done
ip link add eth0 type veth peer name cable0
ip link set eth0 up; ip link set cable0 up
ip address add 198.18.0.5/24 dev eth0
echo ready
exec sleep 600
"""

#: What a test's helper runs first. Deadlines are short because a test is near.
BEGIN = """
import sys
sys.path[:0] = [{repository!r}]
sys.path.append({packages!r})
import fleet.host.transactions.arm
fleet.host.transactions.arm.shortest_deadline = lambda changes, settle: 0.2
import fleet.host.transactions.crash as crash
import os, signal
def die_at(wanted):
    def hook(name):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
    crash.HOOK = hook
def stop_at(wanted):
    def hook(name):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGSTOP)
    crash.HOOK = hook
def connection(began, address):
    from fleet.host import protocol
    from fleet.host.transactions import confirm
    def op(session, request, report):
        here = lambda: confirm.Connection(began, address)
        return confirm.confirm(session.system, session.paths, request, here)
    protocol.OPERATIONS["confirm"] = op
"""
END = """
from fleet.host.helper import main
sys.exit(main())
"""


class HelperFailed(Exception):
    """The helper answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']} {error['problems']}")
        self.code, self.message, self.problems = error["code"], error["message"], error["problems"]


class Helper:
    """One helper process on a host, spoken to as the controller does."""

    def __init__(self, host: Hypervisor, extra: str = "", bare: bool = False) -> None:
        begin = BEGIN.format(repository=REPOSITORY, packages=PACKAGES)
        if bare:
            begin = f"import sys\nsys.path[:0] = [{REPOSITORY!r}]\n"
        self.process = subprocess.Popen(
            [*host.inside, sys.executable, "-I", "-S", "-c", begin + extra + END],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.events: list[dict[str, Any]] = []
        self._number = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, op: str, **fields: Any) -> int:
        self._number += 1
        line = json.dumps({"id": self._number, "op": op, **fields}) + "\n"
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return self._number

    def receive(self) -> dict[str, Any]:
        """Return the answer; raises HelperFailed, or EOFError where the helper is gone."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise EOFError(self.errors())
            words: dict[str, Any] = json.loads(line)
            if "event" in words:
                self.events.append(words)
                continue
            if not words["ok"]:
                raise HelperFailed(words["error"])
            return words

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        self.send(op, **fields)
        return self.receive()

    def errors(self) -> str:
        self.process.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        """End it as a broken session does: its pipes are closed, and nobody reads any more."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class Hypervisor:
    """A host, its helpers, and oracles that are not fleet's."""

    def __init__(self, keeper: int) -> None:
        self.keeper = keeper
        self.inside = ["nsenter", "-t", str(keeper), "-n", "-m"]
        self.root = Path(f"/proc/{keeper}/root")
        self.helpers: list[Helper] = []

    def helper(self, extra: str = "", bare: bool = False) -> Helper:
        helper = Helper(self, extra, bare)
        self.helpers.append(helper)
        return helper

    def sh(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run([*self.inside, *argv], capture_output=True, text=True, timeout=30)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stderr}")
        return done.stdout

    def ip(self, words: str) -> str:
        return self.sh("ip", *words.split())

    def kernel(self) -> Any:
        """Everything a revert has to put back, as ip(8) sees it."""
        script = (
            "ip -j -d address; echo; ip -j -d route show table all; echo; "
            "ip -6 -j route show table all; echo; ip -j rule; echo; "
            "bridge -j -d link; echo; sysctl -n net.ipv4.ip_forward net.ipv4.conf.all.rp_filter"
        )
        return _without_noise(self.sh("sh", "-c", script))

    def settled(self) -> bool:
        """Whether the kernel has finished with the NICs it was given: carriers and link-local
        addresses come a moment after a link is set up, and a picture taken before them is wrong."""
        links = json.loads(self.ip("-j address show up"))
        return all(
            link["operstate"] in ("UP", "UNKNOWN")
            and "NO-CARRIER" not in link["flags"]
            and any(item["family"] == "inet6" for item in link["addr_info"])
            and not any("tentative" in item for item in link["addr_info"])
            for link in links
        )

    def status(self, name: str = "tx1") -> dict[str, Any]:
        helper = self.helper()
        found = helper.call("status")["transactions"]
        helper.close()
        by_name = {each["transaction"]: each for each in found}
        return dict(by_name.get(name, {}))

    def outcome(self, name: str = "tx1") -> dict[str, Any]:
        """What stands beside the journal, read without fleet."""
        for place in ("run/fleet", "var/lib/fleet/journal"):
            path = self.root / place / name / "outcome"
            if path.exists():
                return dict(json.loads(path.read_text().split("\n", 1)[1]))
        return {}

    def wait_for_outcome(self, name: str = "tx1", seconds: float = 30.0) -> dict[str, Any]:
        until(lambda: bool(self.outcome(name)), seconds)
        return self.outcome(name)

    def watchdogs(self, name: str = "tx1") -> list[int]:
        path = self.root / "run/fleet" / name / "lease"
        lease = json.loads(path.read_text().split("\n", 1)[1])
        return [who[0] for who in lease["watchdogs"]]

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def confirming(self, began: float | None = None, address: str = "198.18.0.5") -> Helper:
        """A helper whose connection is said to have begun now, by code in its own process."""
        when = self.boottime() if began is None else began
        return self.helper(f"connection({when!r}, {address!r})\n")


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def _without_noise(text: str) -> list[Any]:
    """Indexes of devices made again, timers and states that settle by themselves."""
    noise = {
        "ifindex", "valid_life_time", "preferred_life_time", "hello_timer", "tcn_timer",
        "topology_change_timer", "gc_timer", "message_age_timer", "forward_delay_timer",
        "hold_timer", "expires", "link_index", "txqlen",
    }  # fmt: skip

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if key not in noise}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return value

    parts: list[Any] = []
    for line in text.splitlines():
        if line.startswith("["):
            parts.append(sorted((clean(each) for each in json.loads(line)), key=json.dumps))
        elif line.strip():
            parts.append(line)
    return parts


@contextmanager
def hypervisor(size: str = "32m", cgroup: bool = True) -> Iterator[Hypervisor]:
    """Make a host; afterwards no process, namespace or mount of it is left."""
    mount = "mount -t cgroup2 cgroup2 /sys/fs/cgroup" if cgroup else ":"
    keeper = subprocess.Popen(
        ["unshare", "-n", "-m", "sh", "-c", SETUP.format(size=size, cgroup=mount)],
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"ready\n"
    host = Hypervisor(keeper.pid)
    try:
        until(host.settled)
        yield host
    finally:
        for helper in host.helpers:
            helper.process.kill()
            helper.close()
        groups = _cgroups(host)
        _kill_all_inside(keeper.pid)
        for group in groups:
            _remove(group)
        keeper.wait()
        keeper.stdout.close()


def _cgroups(host: Hypervisor) -> list[Path]:
    """The cgroups of the host's transactions; their hierarchy is the machine's."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) / "fleet" for mount in mounts if mount[2] == "cgroup2"]
    found = []
    for log in (host.root / "var/lib/fleet/journal").glob("*/log"):
        for lease in set(re.findall(r'"lease":"([0-9a-f]{32})"', log.read_text("latin-1"))):
            names = (f"watchdog-{lease}", f"{log.parent.name}.{lease[:12]}")
            found += [root / name for root in roots[:1] for name in names]
    return found


def _remove(group: Path) -> None:
    for _ in range(100):
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.01)  # killed, and not yet out of it
    return None


def _kill_all_inside(keeper: int) -> None:
    """Kill what is in the host's network namespace: detached watchdogs and appliers too."""
    inside = os.stat(f"/proc/{keeper}/ns/net").st_ino
    for _ in range(50):
        found = [pid for pid in _pids() if _namespace(pid) == inside]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _namespace(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


STATE: dict[str, Any] = {
    "host": "kvm1",
    "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
    "probes": {"gateway": False},
    "resources": [
        {"kind": "sysctl", "name": "net.ipv4.ip_forward", "spec": {"value": "1"}},
        {"kind": "ethernet", "name": "eth0", "spec": {"addresses": []}},
        {
            "kind": "bridge", "name": "br0",
            "spec": {
                "interfaces": ["eth0"], "addresses": [{"address": "198.18.0.5/24"}],
                "parameters": {"stp": False},
            },
        },
    ],
}  # fmt: skip


def armed(
    host: Hypervisor,
    deadline: float = 5.0,
    name: str = "tx1",
    extra: str = "",
    state: dict[str, Any] | None = None,
    **more: Any,
) -> tuple[Helper, str]:
    """Plan and arm; return the helper and the plan's digest."""
    helper = host.helper(extra)
    back = {"back": more["back"]} if "back" in more else {}
    digest = str(helper.call("plan", state=state or STATE, **back)["plan"]["digest"])
    helper.call(
        "arm", transaction=name, plan_digest=digest, deadline=deadline,
        nonce_hash=hashlib.sha256(NONCE.encode()).hexdigest(), owner="ops@desk", **more,
    )  # fmt: skip
    return helper, digest


def applied(host: Hypervisor, deadline: float = 5.0, **more: Any) -> tuple[Helper, str]:
    """Plan, arm and apply."""
    helper, digest = armed(host, deadline, **more)
    helper.call("apply", transaction=more.get("name", "tx1"))
    return helper, digest


def confirm(helper: Helper, digest: str, name: str = "tx1", **more: Any) -> dict[str, Any]:
    fields = {"nonce": NONCE, "address": "198.18.0.5", **more}
    return helper.call("confirm", transaction=name, plan_digest=digest, **fields)
