"""Each promise broken on purpose, in a copy of the host's code: something must notice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .actions import journal_states
from .places import Fault
from .run import NONCE, References, Run, run
from .scenarios import SCENARIOS
from .world import HelperFailed, Keys, World, keys, now, world

pytestmark = [pytest.mark.faults, pytest.mark.kernel]

Patch = tuple[str, str, str]
#: Breaks that the harness itself notices: the patch, and a fault that brings them out.
SEEN_BY_A_RUN: dict[str, tuple[Patch, Fault]] = {
    "the dead-man does nothing": (
        ("watchdog.py", "            settle(transaction, system, reason, problems, memory)\n", ""),
        Fault("nft-new", "apply.done", "kill", 1),
    ),
    "a revert restores nothing": (
        ("recover.py", "    left = _rounds(system, snapshot)\n", "    left = []\n"),
        Fault("mtu", "apply.done", "cut", 1, confirms=False),
    ),
    "the applier is not fenced": (
        ("fence.py", "        for who in left:\n            kill(who)\n", "        return []\n"),
        Fault("bridge", "apply.change.5.before", "stop", 1),
    ),
    "what others added is taken away": (
        ("theirs.py", "return merge(snapshot, theirs) if theirs else snapshot", "return snapshot"),
        Fault("address-off", "apply.done", "hand-rule", 1, confirms=False),
    ),
    "files are not taken back": (
        ("recover.py", "    return persist.take_back(transaction.paths, entries)", "    return []"),
        Fault("mtu", "apply.done", "cut", 1, confirms=False),
    ),
    "a confirmed transaction is not finished": (
        ("recover.py", "    persist.carry_out(transaction.paths, entries)\n", ""),
        Fault("default-route", "persist.begin", "kill", 1),
    ),
    "the host lock and an open transaction hold nobody back": (
        ("arm.py", "raise _open_transaction(transaction, system)", "pass"),
        Fault("address", "apply.done", "second-controller", 1, confirms=False),
    ),
}  # fmt: skip


@contextmanager
def broken(*patches: Patch) -> Iterator[Keys]:
    if os.geteuid() != 0:
        pytest.skip("needs root: hosts are namespaces")
    with keys(patches) as made:
        yield made


#: The fence is two things: who is stopped is killed, and who wakes up looks before it acts.
_NO_FENCE = [
    (
        "apply.py",
        "check_fence(transaction, armed.token, system)\n        carry_out()",
        "carry_out()",
    ),
    ("fence.py", 'write(f"{cgroup}/cgroup.kill", "1")', "pass"),
]  # fmt: skip


@pytest.mark.parametrize("name", list(SEEN_BY_A_RUN))
def test_a_run_notices(name: str) -> None:
    """With this break a faulted run is judged bad, and without it the same run is good."""
    patch, fault = SEEN_BY_A_RUN[name]
    patches = [patch, *(_NO_FENCE if "fenced" in name else [])]
    with keys() as whole:
        references = References(whole)
        if not fault.scenario.startswith("nft"):
            references.committed(SCENARIOS[fault.scenario])
    with broken(*patches) as made:
        # What systemd adds to the watchdogs is left out: it would save the host here.
        result = run(made, references, fault, unit=False)
    assert not result.good, result


def _armed(made: World, deadline: float = 6.0, apply: bool = True) -> Run:
    each = Run(made, Fault("mtu", "none", "none", confirms=False), {}, deadline)
    SCENARIOS["mtu"].begin(made)
    if apply:
        each.transact()
    return each


def _confirm(made: World, each: Run, began: float, nonce: str = NONCE) -> str:
    helper = made.helper(connection=[began, "198.18.0.5"])
    try:
        return str(
            helper.call("confirm", transaction="tx1", plan_digest=each.digest, nonce=nonce)["state"]
        )
    except HelperFailed as error:
        return error.code


def forged(made: World) -> str:
    """A confirm with a guessed nonce."""
    each = _armed(made)
    return _confirm(made, each, now(), nonce="guessed")


def old(made: World) -> str:
    """A confirm over a connection from before APPLIED."""
    began = now()
    each = _armed(made)
    return _confirm(made, each, began)


def wrong_plan(made: World) -> str:
    """A confirm that names another plan."""
    each = _armed(made)
    each.digest = "0" * 64
    return _confirm(made, each, now())


def stale(made: World) -> str:
    """Arming a plan that is older than a change by hand."""
    SCENARIOS["mtu"].begin(made)
    helper = made.helper()
    digest = helper.call("plan", state=SCENARIOS["mtu"].state)["plan"]["digest"]
    made.batch("link set eth0 mtu 1450")
    try:
        helper.call("arm", transaction="tx1", plan_digest=digest, nonce_hash="0" * 64, deadline=1)
    except HelperFailed as error:
        return "refused" if error.code == "stale" else error.code
    return "armed"


def tampered(made: World) -> str:
    """A journal with one bit of a record flipped."""
    each = _armed(made)
    path = made.root / "var/lib/fleet/journal/tx1/log"
    data = bytearray(path.read_bytes())
    at = data.rindex(b'"applied_at"')
    data[at + 2] ^= 1
    path.write_bytes(data)
    helper = made.helper(connection=[now(), "198.18.0.5"])
    try:
        helper.call("confirm", transaction="tx1", plan_digest=each.digest, nonce=NONCE)
    except HelperFailed as error:
        return "refused" if "not APPLIED" in str(error) else "refused differently"
    return "confirmed"


def unsynced(made: World) -> str:
    """Every record must be on the disk before what it announces: count fdatasync(2)."""
    import subprocess
    import time
    from pathlib import Path

    SCENARIOS["mtu"].begin(made)
    main = made.helper()
    log = made.folder / "trace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(log), "-p", str(main.pid), "-e", "trace=fdatasync"],
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 5
    while "TracerPid:\t0\n" in Path(f"/proc/{main.pid}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    each = Run(made, Fault("mtu", "none", "none", confirms=False), {}, 6.0)
    each._arm_and_apply(main)
    records = len(journal_states(made, "tx1"))
    tracer.terminate()
    tracer.wait(5)
    return "refused" if log.read_text().count("fdatasync(") >= records else "unsynced"


def late(made: World) -> str:
    """A confirm after the deadline, with the watchdogs stopped."""
    import signal
    import time

    each = _armed(made, deadline=1.2)
    for pid in made.watchdogs():
        os.kill(pid, signal.SIGSTOP)
    deadline = made.sealed("run/fleet/tx1/lease")["deadline"]
    while now() < deadline + 0.02:
        time.sleep(0.01)
    return _confirm(made, each, now())


def unreadable(made: World) -> str:
    """Two processes decide at once, in the order that is worst: the first one's word counts."""
    each = _armed(made)
    live = made.root / "run/fleet/tx1"
    os.symlink("REVERTING", live / "verdict")
    return "refused" if _confirm(made, each, now()) != "COMMITTED" else "both"


#: Attacks that are refused: by the code as it is, and not by the code with the break.
REFUSED: dict[str, tuple[Callable[[World], str], tuple[Patch, ...]]] = {
    "nonce": (forged, (("confirm.py", "not hmac.compare_digest(given", "False and (given"),)),
    "old connection": (old, (("confirm.py", "if connection.began < float", "if 0 > float"),)),
    "plan digest of a confirm": (wrong_plan, (
        ("confirm.py", 'request.get("plan_digest") != facts.get("plan_digest")', "False"),
    )),
    "digest check": (stale, (
        ("arm.py", 'plan.digest != request.get("plan_digest")', "False"),
    )),
    "journal checksum": (tampered, (
        ("journal.py", "if digest != files.sha256(previous + payload)", "if False"),
    )),
    "fsync": (unsynced, (("journal.py", "        os.fdatasync(self.descriptor)\n", ""),)),
    "deadline of a confirm": (late, (
        ("confirm.py", 'system.boottime() >= float(transaction.facts["deadline"])', "False"),
        ("confirm.py", 'system.boottime() >= float(facts["deadline"])', "False"),
    )),
    "verdict": (unreadable, (
        ("transaction.py", "            return self.verdict()\n", "            return verdict\n"),
        ("confirm.py", "transaction.terminal or transaction.verdict()", "transaction.terminal"),
        ("confirm.py", "transaction.journal.state != APPLIED or transaction.verdict()",
         "transaction.journal.state != APPLIED"),
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_attack_is_refused_only_because_of_a_check(name: str) -> None:
    """As it is the host refuses; with this one check taken out it would not."""
    attack, patches = REFUSED[name]
    for given, expected in (((), True), (patches, False)):
        with broken(*given) as made, world(made) as each:
            assert (attack(each) == "refused") is expected, (name, given)
