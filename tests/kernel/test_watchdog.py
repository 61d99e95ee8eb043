"""The dead-man on a real host: killed at every point, stopped, raced, alone without a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import (
    REPOSITORY,
    STATE,
    HelperFailed,
    Hypervisor,
    applied,
    armed,
    confirm,
    hypervisor,
    until,
)

from fleet.host.transactions import crash

pytestmark = pytest.mark.kernel

#: Changes of the plan that are broken off at: the first, one in the middle, the last but one; and
#: as many persistent files are renamed.
INDEXES = ("0", "2", "5")
FILES = 3


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    with hypervisor() as made:
        yield made


def of_stage(*stages: str) -> list[str]:
    """The crash points of some stages; for the journal's points the stages are states."""
    found = []
    for name in crash.points(6):
        first, second, *rest = name.split(".")
        if second == "change" and rest[0] not in INDEXES:
            continue
        if second == "file" and int(rest[0]) >= FILES:
            continue
        if first in stages or (first == "journal" and second in stages):
            found.append(name)
    return found


BEFORE_ARMED = of_stage("prepare", "PREPARED")
WHILE_APPLYING = of_stage("arm", "apply", "ARMED", "APPLYING", "APPLIED")


@pytest.mark.parametrize("point", [*BEFORE_ARMED, *WHILE_APPLYING])
def test_a_killed_helper_leaves_the_host_as_before(host: Hypervisor, point: str) -> None:
    """SIGKILL at any point up to APPLIED: the host is as before, and free for the next one."""
    before = host.kernel()
    helper = host.helper(f"die_at({point!r})\n")
    digest = helper.call("plan", state=STATE)["plan"]["digest"]
    codes: list[str] = []
    fields = {"plan_digest": digest, "deadline": 2.0, "nonce_hash": "0" * 64, "owner": "ops@desk"}
    try:
        helper.call("arm", transaction="tx1", **fields)
        helper.call("apply", transaction="tx1")
    except EOFError:
        pass
    except HelperFailed as error:
        codes.append(error.code)
    assert codes in ([], ["reverted"])
    if point in BEFORE_ARMED:
        host.helper().call("recover")
        assert host.status().get("state", "ABANDONED") == "ABANDONED"
    else:
        # Where the watchdogs had not started yet there is nobody to wait for.
        until(lambda: _settled(host), 8.0)
    assert host.kernel() == before
    assert list((host.root / "etc/sysctl.d").iterdir()) == []
    armed(host, name="tx2", deadline=5.0)


def _settled(host: Hypervisor) -> bool:
    if not host.outcome():
        status = host.status()
        if status.get("stale"):
            host.helper().call("recover")
        return bool(status) and status["terminal"]
    return True


@pytest.mark.parametrize(
    "point", of_stage("confirm", "persist", "CONFIRMED", "PERSISTING", "COMMITTED")
)
def test_a_killed_confirm_has_one_meaning(host: Hypervisor, point: str) -> None:
    """SIGKILL while confirming: before the decision the host goes back, after it forward."""
    before = host.kernel()
    undecided = point in ("confirm.begin", "confirm.checked")
    _, digest = applied(host, deadline=2.5 if undecided else 20.0)
    after = host.kernel()
    helper = host.helper(f"connection({host.boottime()!r}, '198.18.0.5')\ndie_at({point!r})\n")
    try:
        confirm(helper, digest)
    except EOFError:
        pass
    outcome = host.wait_for_outcome()
    assert outcome["state"] == ("REVERTED" if undecided else "COMMITTED")
    assert host.kernel() == (before if undecided else after)
    assert (host.root / "etc/sysctl.d/90-fleet.conf").exists() == (not undecided)
    assert host.helper().call("plan", state=STATE)["transaction"] is None


@pytest.mark.parametrize(
    "point",
    [
        name
        for name in of_stage("revert", "REVERTING", "REVERTED")
        if not name.startswith("revert.round") or name == "revert.round.0.after"
    ],
)
def test_watchdogs_killed_while_they_revert(host: Hypervisor, point: str) -> None:
    """Both watchdogs die at the same point of the way back: the next recover finishes it."""
    before = host.kernel()
    applied(host, deadline=1.5, extra=f"die_at({point!r})\n")
    dogs = host.watchdogs()
    until(lambda: not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in dogs))
    host.helper().call("recover")
    assert host.kernel() == before
    assert host.status()["state"] == "REVERTED"


def test_one_watchdog_killed_the_second_acts(host: Hypervisor) -> None:
    """SIGKILL of one watchdog changes nothing: the other puts the host back in time."""
    before = host.kernel()
    applied(host, deadline=1.5)
    os.kill(host.watchdogs()[0], signal.SIGKILL)
    assert host.wait_for_outcome(seconds=3.0)["state"] == "REVERTED"
    assert host.kernel() == before


def test_a_watchdog_stopped_while_it_reverts_is_replaced(host: Hypervisor) -> None:
    """A watchdog that hangs on the way back is killed by the other, which finishes."""
    before = host.kernel()
    once = (
        "from fleet.host.transactions import watchdog, recover\n"
        "def hang(name):\n"
        "    if name == 'revert.fenced':\n"
        "        try: os.mkdir('/run/hung')\n"
        "        except FileExistsError: return\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "crash.HOOK = hang\n"
        "recover.settle.__defaults__ = ('', (), None, 0.5, False, '')\n"
    )
    helper, _ = armed(host, deadline=1.5, extra=once)
    helper.call("apply", transaction="tx1")
    assert host.wait_for_outcome(seconds=5.0)["state"] == "REVERTED"
    assert (host.root / "run/hung").exists()
    assert host.kernel() == before


def test_a_helper_without_watchdogs_reverts_by_itself(host: Hypervisor) -> None:
    """An error with both watchdogs gone: the helper itself puts the host back."""
    before = host.kernel()
    hook = (
        "def fail(name):\n"
        "    if name == 'apply.change.4.before':\n"
        "        from fleet.host.transactions.transaction import Transaction\n"
        "        from fleet.host.transactions.files import Paths\n"
        "        for who in Transaction(Paths(), 'tx1').facts['watchdogs']: os.kill(who[0], 9)\n"
        "        raise OSError(5, 'Input/output error')\n"
        "crash.HOOK = fail\n"
    )
    helper, _ = armed(host, deadline=60.0, extra=hook)
    with pytest.raises(HelperFailed) as failed:
        helper.call("apply", transaction="tx1")
    assert failed.value.code == "reverted"
    assert host.kernel() == before


def test_both_watchdogs_killed_the_next_recover_acts(host: Hypervisor) -> None:
    """Without any watchdog the transaction is stale: recover, or the next arm, puts it back."""
    before = host.kernel()
    applied(host, deadline=30.0)
    for pid in host.watchdogs():
        os.kill(pid, signal.SIGKILL)
    until(lambda: host.status()["stale"])
    settled = host.helper().call("recover")["settled"]
    assert [each["state"] for each in settled] == ["REVERTED"]
    assert host.kernel() == before


def test_the_next_transaction_recovers_a_stale_one(host: Hypervisor) -> None:
    """Arming on a host with a dead transaction puts that one back first; the plan is stale then."""
    before = host.kernel()
    helper = host.helper()
    digest = helper.call("plan", state=STATE)["plan"]["digest"]
    applied(host, deadline=30.0)
    for pid in host.watchdogs():
        os.kill(pid, signal.SIGKILL)
    until(lambda: host.status()["stale"])
    helper.call("arm", transaction="tx2", plan_digest=digest, nonce_hash="0" * 64, deadline=5)
    assert host.kernel() == before
    assert host.status("tx1")["state"] == "REVERTED"


@pytest.mark.parametrize("cgroup", [True, False], ids=["cgroup", "session"])
def test_a_stopped_helper_never_changes_anything_more(cgroup: bool) -> None:
    """SIGSTOP past the deadline: the applier is killed before the host is put back."""
    with hypervisor(cgroup=cgroup) as host:
        before = host.kernel()
        helper, _ = armed(host, deadline=0.8, extra="stop_at('apply.change.3.before')\n")
        helper.send("apply", transaction="tx1")
        applier = host.root / "run/fleet/tx1/applier"
        until(applier.exists)
        words = applier.read_text()
        assert ('"cgroup":""' in words) == (not cgroup)
        with pytest.raises(HelperFailed) as failed:
            helper.receive()
        assert failed.value.code == "reverted"
        assert host.kernel() == before
        assert _stopped_in(host) == []


def test_a_stopped_helper_that_goes_on_finds_itself_fenced(host: Hypervisor) -> None:
    """An applier that wakes up after the verdict, unkilled, makes not one more change."""
    before = host.kernel()
    hook = (
        "stop_at('apply.change.3.before')\n"
        "from fleet.host.transactions import fence\n"
        "fence.kill_all = lambda *ignored, **more: []\n"
    )
    helper, _ = armed(host, deadline=0.6, extra=hook)
    helper.send("apply", transaction="tx1")
    host.wait_for_outcome()
    assert host.kernel() == before
    stopped = _stopped_in(host)
    assert len(stopped) == 1
    os.kill(stopped[0], signal.SIGCONT)
    with pytest.raises(HelperFailed) as failed:
        helper.receive()
    assert failed.value.code == "reverted"
    assert host.kernel() == before


def _stopped_in(host: Hypervisor) -> list[int]:
    inside = os.stat(f"/proc/{host.keeper}/ns/net").st_ino
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}/ns/net").st_ino == inside:
                with open(f"/proc/{name}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] == "T":
                        found.append(int(name))
        except OSError:
            continue
    return found


def test_a_child_of_the_applier_is_fenced_too(host: Hypervisor) -> None:
    """What a change started and left behind is dead before the host is put back."""
    hook = (
        "import subprocess\n"
        "def leave(name):\n"
        "    if name == 'apply.change.2.after':\n"
        "        child = subprocess.Popen(['sleep', '600'])\n"
        "        open('/run/child', 'w').write(str(child.pid))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "crash.HOOK = leave\n"
    )
    helper, _ = armed(host, deadline=30.0, extra=hook)
    with pytest.raises(HelperFailed):
        helper.call("apply", transaction="tx1")
    child = int((host.root / "run/child").read_text())
    assert not os.path.exists(f"/proc/{child}/fd/0")


def test_a_revert_needs_nothing_from_the_disk(host: Hypervisor) -> None:
    """With the program, the interpreter's library and fleet's directory hidden it still reverts."""
    before = host.kernel()
    applied(host, deadline=1.5)
    script = (
        f"mount -t tmpfs none {REPOSITORY}/fleet; mount -t tmpfs none /usr/lib/python3.11;"
        "mount -t tmpfs none /var/lib/fleet"
    )
    host.sh("sh", "-c", script)
    end = time.monotonic() + 5
    while host.kernel() != before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert host.wait_for_outcome()["state"] == "REVERTED"


def test_a_watchdog_outlives_the_session(host: Hypervisor) -> None:
    """It is in no session of the helper, ignores signals, and holds no stdio."""
    helper, _ = applied(host, deadline=1.5)
    # Without CAP_SYS_RESOURCE the kernel refuses to go below what a process was given.
    allowed = host.sh("sh", "-c", "echo -1000 > /proc/self/oom_score_adj && echo yes", check=False)
    for pid in host.watchdogs():
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        assert int(fields[3]) != helper.pid
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            os.kill(pid, number)
        assert {os.readlink(f"/proc/{pid}/fd/{each}") for each in (0, 1, 2)} == {"/dev/null"}
        if allowed:
            with open(f"/proc/{pid}/oom_score_adj") as file:
                assert file.read().strip() == "-1000"
    helper.process.kill()
    assert host.wait_for_outcome()["state"] == "REVERTED"


def test_confirm_and_expiry_have_one_winner(host: Hypervisor) -> None:
    """A confirm within 50 ms of the deadline either commits or is refused, and the host agrees."""
    before = host.kernel()
    seen = set()
    for index, offset in enumerate((-0.05, -0.02, -0.01, -0.005, 0.02)):
        helper, digest, name = _applied_soon(host, f"race{index}")
        deadline = host.status(name)["deadline"]
        answer = _confirm_at(host, name, digest, deadline + offset)
        outcome = host.wait_for_outcome(name)
        seen.add(outcome["state"])
        assert answer in ("COMMITTED", "refused", "locked")
        assert (answer == "COMMITTED") == (outcome["state"] == "COMMITTED")
        if outcome["state"] == "COMMITTED":
            assert host.kernel() != before
            assert (host.root / "etc/sysctl.d/90-fleet.conf").exists()
            # What was committed has to be taken away again for the next race.
            state = {**STATE, "resources": BACK}
            helper, digest = applied(host, name=f"back{index}", state=state)
            confirm(host.confirming(), digest, name=f"back{index}")
            before = host.kernel()  # with the broadcast address that fleet gives an address
        assert host.kernel() == before
        helper.close()
    assert "REVERTED" in seen


def _applied_soon(host: Hypervisor, name: str) -> tuple[Any, str, str]:
    """Apply with a deadline as short as the machine is quick enough for; return the name too."""
    for seconds in (1.2, 4.0):
        try:
            return (*applied(host, deadline=seconds, name=name), name)
        except HelperFailed:
            host.wait_for_outcome(name)
            name += "-again"
    return (*applied(host, deadline=12.0, name=name), name)


BACK: list[dict[str, Any]] = [
    {"kind": "sysctl", "name": "net.ipv4.ip_forward", "spec": {"value": "0"}},
    {"kind": "ethernet", "name": "eth0", "spec": {"addresses": [{"address": "198.18.0.5/24"}]}},
]


def _confirm_at(host: Hypervisor, name: str, digest: str, when: float) -> str:
    helper = host.confirming()
    helper.call("status")  # it runs: what follows costs no interpreter's start
    while host.boottime() < when - 0.004:
        time.sleep(0.001)
    try:
        return str(confirm(helper, digest, name=name)["state"])
    except HelperFailed as error:
        return error.code


def test_two_confirms_at_once_commit_once(host: Hypervisor) -> None:
    """Of two confirming processes at the same time one commits and the other is refused."""
    _, digest = applied(host)
    helpers = [host.confirming(), host.confirming()]
    answers: list[str] = []

    def one(helper: Any) -> None:
        try:
            answers.append(str(confirm(helper, digest)["state"]))
        except HelperFailed as error:
            answers.append(error.code)

    threads = [threading.Thread(target=one, args=(helper,)) for helper in helpers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["COMMITTED", "refused"]


def test_a_confirm_over_a_real_sshd(host: Hypervisor) -> None:
    """The connection is traced to its sshd: a new one commits, one from before APPLIED does not."""
    keys = host.root / "run/ssh"
    host.sh("mkdir", "-p", "/run/ssh", "/run/sshd")
    for key in ("host", "user"):
        host.sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/run/ssh/{key}")
    host.sh("cp", "/run/ssh/user.pub", "/run/ssh/authorized")
    assert keys.exists()
    host.sh(
        "/usr/sbin/sshd",
        "-f",
        "/dev/null",
        "-p",
        "2222",
        "-h",
        "/run/ssh/host",
        "-o",
        "AuthorizedKeysFile=/run/ssh/authorized",
        "-o",
        "StrictModes=no",
        "-o",
        "PidFile=/run/ssh/pid",
        "-o",
        "UsePAM=no",
        "-o",
        "PermitUserRC=no",
    )
    early = _ssh(host)
    _, digest = applied(host, deadline=20.0)
    line = (
        '{"id": 1, "op": "confirm", "transaction": "tx1", "nonce": "a nonce of the controller", '
        f'"plan_digest": "{digest}", "address": "198.18.0.5"}}\n'
    )
    assert "before APPLIED" in early.communicate(line, timeout=20)[0]
    assert '"state":"COMMITTED"' in _ssh(host).communicate(line, timeout=20)[0]


def _ssh(host: Hypervisor) -> subprocess.Popen[str]:
    """A session whose remote command is the helper, started when this returns."""
    program = (
        f"import sys; sys.path.insert(0, '{REPOSITORY}'); from fleet.host.helper import main; "
        "sys.stderr.write('up'); sys.stderr.flush(); sys.exit(main())"
    )
    process = subprocess.Popen(
        [
            *host.inside,
            "ssh",
            "-F",
            "/dev/null",
            "-p",
            "2222",
            "-i",
            "/run/ssh/user",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "root@198.18.0.5",
            f'exec python3 -I -S -c "{program}"',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.read(2) == "up"
    return process
