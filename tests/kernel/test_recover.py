"""Recover decides by what is left of the journal: before or committed, never something between."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleet.host import wire
from fleet.host.reverting import restore as restore_module
from fleet.host.transactions import files, journal, persist
from fleet.host.transactions.files import Paths
from fleet.host.transactions.prepare import prepare
from fleet.host.transactions.recover import recover_all, settle
from fleet.host.transactions.transaction import Transaction

BEFORE, AFTER = "before = 1\n", "after = 1\n"
NETPLAN = "/etc/netplan/90-fleet.yaml"


class Host:
    """A host's clock and boot id."""

    def __init__(self, boot: str = "boot-1") -> None:
        self.boot, self.now = boot, 100.0

    def boot_id(self) -> str:
        return self.boot

    def boottime(self) -> float:
        return self.now


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What restore was called with."""
    calls: list[Any] = []

    def restore(system: Any, snapshot: Any) -> list[Any]:
        calls.append(snapshot)
        return []

    monkeypatch.setattr(restore_module, "restore", restore)
    return calls


def build(root: Path, until: str) -> Paths:
    """A transaction on a disk, as it lies there after the record of that state."""
    paths, host = Paths(str(root)), Host()
    for directory in (paths.state, paths.journal, paths.run):
        files.make_private(directory)
    (root / "etc/sysctl.d").mkdir(parents=True)
    (root / persist.SYSCTL[1:]).write_text(BEFORE)
    facts = {
        "owner": "ops@desk",
        "plan_digest": "d",
        "changes": 2,
        "nonce_hash": "n",
        "addresses": [],
    }
    wanted: dict[str, tuple[str | None, int]] = {
        persist.SYSCTL: (AFTER, 0o644),
        NETPLAN: ("network: {}\n", 0o600),
    }
    transaction, entries = prepare(paths, "tx1", host, wanted, {"links": {}}, facts)  # type: ignore[arg-type]
    log = transaction.journal
    more = {"deadline": 220.0, "lease": "token", "watchdogs": [], "armed_at": 100.0}
    lease = {**transaction.facts, **more}
    files.create(f"{transaction.live}/lease", files.seal(wire.dumps(lease)))
    log.append("ARMED", **more)
    session = {"session": [0, 0], "cgroup": ""}
    files.create(f"{transaction.live}/applier", files.seal(wire.dumps(session)))
    log.append("APPLYING", index=-1, **session)
    log.append("APPLYING", index=0, step="begin")
    log.append("APPLIED", applied_at=110.0)
    if until in ("PERSISTING", "COMMITTED"):
        transaction.decide("CONFIRMED")
        log.append("CONFIRMED")
        log.append("PERSISTING")
        persist.carry_out(paths, entries if until == "COMMITTED" else entries[:1])
    if until == "COMMITTED":
        transaction.finish("COMMITTED")
    log.close()
    return paths


def copy(source: Paths, target: Path) -> Paths:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.root, target, symlinks=True)
    return Paths(str(target))


def look(paths: Paths) -> str:
    """Whether the persistent files are all as before, all as after, or something between."""
    sysctl = Path(paths.root + persist.SYSCTL).read_text()
    netplan = os.path.exists(paths.root + NETPLAN)
    staged = [n for n in os.listdir(f"{paths.root}/etc/sysctl.d") if "staged" in n]
    if (sysctl, netplan, staged) == (BEFORE, False, []):
        return "before"
    if (sysctl, netplan, staged) == (AFTER, True, []):
        return "after"
    return f"between: {sysctl!r} {netplan} {staged}"


def damages(paths: Paths, flips: bool) -> list[tuple[str, bytes]]:
    """The journal cut, or with one bit changed: around every record's ends, and at every
    seventh byte between (test_journal.py has every byte)."""
    data = Path(f"{paths.of('tx1')}/log").read_bytes()
    _, end, _, _ = journal.decode(data)
    ends = {cut for cut in range(end + 1) if not journal.decode(data[:cut])[3]}
    near = {cut + by for cut in ends for by in (-1, 0, 1)} | set(range(0, end, 7))
    positions = sorted(cut for cut in near if 0 <= cut <= end)
    if not flips:
        return [(f"cut at {cut}", data[:cut]) for cut in positions]
    found = []
    for position in positions[:-1]:
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        found.append((f"bit {position % 8} of byte {position}", bytes(changed)))
    return found


def settled(paths: Paths, data: bytes, host: Host) -> str:
    """Put a journal's bytes in place, settle, settle again, and return the state."""
    Path(f"{paths.of('tx1')}/log").write_bytes(data)
    states = []
    for _ in range(2):
        transaction = Transaction(paths, "tx1")
        settle(transaction, host)  # type: ignore[arg-type]
        transaction.read()
        states.append(transaction.state)
        transaction.journal.close()
    assert states[0] == states[1]
    return states[0]


@pytest.fixture(params=[False, True], ids=["torn", "flipped"])
def flips(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_applied_and_torn_in_the_same_boot(
    tmp_path: Path, restored: list[Any], flips: bool
) -> None:
    """Whatever is left of the journal, the snapshot is restored and no file changes."""
    source = build(tmp_path / "source", "APPLIED")
    for what, data in damages(source, flips):
        restored.clear()
        paths = copy(source, tmp_path / "copy")
        assert settled(paths, data, Host()) == "REVERTED", what
        assert look(paths) == "before", what
        assert restored == [{"links": {}}], what


def test_applied_and_torn_by_a_power_cut(tmp_path: Path, restored: list[Any], flips: bool) -> None:
    """After a boot there is no kernel state to restore; files are as before."""
    source = build(tmp_path / "source", "APPLIED")
    shutil.rmtree(source.run)
    for what, data in damages(source, flips):
        paths = copy(source, tmp_path / "copy")
        assert settled(paths, data, Host("boot-2")) in ("REVERTED", "ABANDONED"), what
        assert look(paths) == "before", what
    assert restored == []


def test_decided_and_torn_goes_forward(tmp_path: Path, restored: list[Any], flips: bool) -> None:
    """In the boot of the decision the verdict alone is enough to finish the commit."""
    source = build(tmp_path / "source", "PERSISTING")
    for what, data in damages(source, flips):
        paths = copy(source, tmp_path / "copy")
        assert settled(paths, data, Host()) == "COMMITTED", what
        assert look(paths) == "after", what
    assert restored == []


def test_persisting_and_torn_by_a_power_cut(
    tmp_path: Path, restored: list[Any], flips: bool
) -> None:
    """Half of the files renamed: all of them after the boot, or none, as the journal says."""
    source = build(tmp_path / "source", "PERSISTING")
    shutil.rmtree(source.run)
    seen = set()
    for what, data in damages(source, flips):
        paths = copy(source, tmp_path / "copy")
        state = settled(paths, data, Host("boot-2"))
        assert look(paths) == ("after" if state == "COMMITTED" else "before"), what
        seen.add(state)
    assert seen >= {"COMMITTED", "REVERTED"}
    assert restored == []


def test_committed_stays_committed(tmp_path: Path, restored: list[Any], flips: bool) -> None:
    """A journal damaged after the end takes nothing back, in this boot or the next."""
    source = build(tmp_path / "source", "COMMITTED")
    for what, data in damages(source, flips)[::3]:
        for host in (Host(), Host("boot-2")):
            paths = copy(source, tmp_path / "copy")
            assert settled(paths, data, host) == "COMMITTED", what
            assert look(paths) == "after", what
    assert restored == []


def test_what_someone_else_changed_is_left(tmp_path: Path, restored: list[Any]) -> None:
    """A file that is neither as before nor as fleet wrote it stays, and a person is asked."""
    paths = build(tmp_path / "source", "PERSISTING")
    shutil.rmtree(paths.run)
    Path(f"{paths.root}{NETPLAN}").write_text("theirs\n")
    log = Path(f"{paths.of('tx1')}/log")
    log.write_bytes(log.read_bytes()[:200])
    found = recover_all(paths, Host("boot-2"))  # type: ignore[arg-type]
    assert [each["state"] for each in found] == ["REVERT_FAILED"]
    assert "changed by someone else" in found[0]["remaining"][0]
    assert Path(f"{paths.root}{NETPLAN}").read_text() == "theirs\n"
    assert restored == []


def test_a_clock_that_jumps_decides_nothing(tmp_path: Path, restored: list[Any]) -> None:
    """Only the boot id tells that a host has rebooted; a small CLOCK_BOOTTIME does not."""
    paths, host = build(tmp_path / "source", "APPLIED"), Host()
    host.now = 1.0
    found = recover_all(paths, host)  # type: ignore[arg-type]
    assert [each["state"] for each in found] == ["REVERTED"]
    assert restored == [{"links": {}}]


def test_a_directory_without_a_journal_is_swept(tmp_path: Path) -> None:
    """A helper that died before its first record left nothing that counts."""
    paths = Paths(str(tmp_path))
    for directory in (paths.state, paths.journal, f"{paths.journal}/tx1"):
        files.make_private(directory)
    assert recover_all(paths, Host()) == []  # type: ignore[arg-type]
    assert os.listdir(paths.journal) == []


def test_what_remains_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revert that cannot finish says what is still different, in /run and in the journal."""
    left = [{"part": "links", "name": "eth0", "before": 1500, "now": 9000}]
    monkeypatch.setattr(restore_module, "restore", lambda system, snapshot: left)
    paths, host = build(tmp_path / "source", "APPLIED"), Host()
    transaction = Transaction(paths, "tx1")
    outcome = settle(transaction, host, "expired")  # type: ignore[arg-type]
    assert outcome["state"] == "REVERT_FAILED"
    assert "eth0" in outcome["remaining"][0]
    for place in (transaction.live, transaction.directory):
        assert "eth0" in Path(f"{place}/outcome").read_text()
    assert transaction.journal.state == "REVERT_FAILED"
    monkeypatch.setattr(restore_module, "restore", lambda system, snapshot: [])
    found = recover_all(paths, host)  # type: ignore[arg-type]
    assert [each["state"] for each in found] == ["REVERTED"]
    transaction.journal.close()
