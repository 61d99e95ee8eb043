"""The first boot after a commit, on a host that is a directory: it is well, or goes back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fleet.host import wire
from fleet.host.transactions import files, first_boot, persist
from fleet.report.transactions import status_text

FILE, STATE = "/etc/netplan/90-fleet.yaml", "/var/lib/fleet/state.json"
FACTS: dict[str, Any] = {
    "addresses": ["198.18.7.11"],
    "probes": [
        {"kind": "gateway", "name": "198.18.7.254", "dev": "eth0"},
        {"kind": "link", "name": "eth0"},
        {"kind": "guest", "name": "vnet0", "master": "br0", "holders": [[7, 7]]},
    ],
}


class Machine:
    """A host whose programs only say that they ran."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def run(self, argv: list[str], **_: Any) -> None:
        """Take note of a program."""
        self.ran.append(argv)


@pytest.fixture
def paths(tmp_path: Path) -> files.Paths:
    """A host that has booted well with FILE saying "booted"."""
    made = files.Paths(str(tmp_path))
    for directory in (made.state, made.journal):
        files.make_private(directory)
    write(made, FILE, "booted")
    return made


def write(paths: files.Paths, path: str, text: str) -> None:
    target = Path(paths.root + path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o600)


def text(paths: files.Paths, path: str) -> str | None:
    target = Path(paths.root + path)
    return target.read_text() if target.exists() else None


def commit(paths: files.Paths, name: str, wanted: dict[str, str | None]) -> None:
    """Commit files as a transaction does."""
    directory = paths.of(name)
    files.make_private(directory)
    entries = persist.stage(
        paths,
        directory,
        {path: (each, 0o600) for path, each in wanted.items()},
        lambda found: {
            first_boot.RECORD: (first_boot.record_text(paths, found, FACTS, name), 0o600)
        },
    )
    persist.carry_out(paths, entries)


def test_the_record_says_what_a_boot_has_to_reach(paths: files.Paths) -> None:
    """The management address and the probes that a boot can be asked for; links and guests may
    come later."""
    commit(paths, "tx1", {FILE: "one"})
    record = first_boot.load(paths)
    assert record is not None
    assert record["transaction"] == "tx1"
    assert record["addresses"] == ["198.18.7.11"]
    assert [each["kind"] for each in record["probes"]] == ["gateway"]
    assert [each["path"] for each in record["entries"]] == [FILE]


def test_a_boot_that_is_well_is_told_once(
    paths: files.Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to be reached may take its time; then the record goes and the journal says so."""
    commit(paths, "tx1", {FILE: "one"})
    answers = [["gateway 198.18.7.254: no answer"], []]
    monkeypatch.setattr(first_boot, "_missing", lambda *_: answers.pop(0))
    monkeypatch.setattr(first_boot, "PAUSE", 0)
    system: Any = Machine()
    when = os.stat(paths.of("tx1")).st_mtime_ns
    assert first_boot.prove(system, paths) == 0
    assert os.stat(paths.of("tx1")).st_mtime_ns == when
    assert first_boot.load(paths) is None
    assert first_boot.result(paths.of("tx1")) == {"result": "passed"}
    assert text(paths, FILE) == "one"
    assert first_boot.prove(system, paths) == 0
    assert system.ran == []


def test_a_boot_that_is_not_goes_back_to_the_last_that_was(
    paths: files.Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two commits that no boot has proven both are taken back, the host boots once more, and
    the status names what was not reached."""
    commit(paths, "tx1", {FILE: "one", STATE: "s1"})
    commit(paths, "tx2", {FILE: "two", "/etc/netplan/91-fleet.yaml": "new"})
    monkeypatch.setattr(first_boot, "_missing", lambda *_: ["gateway 198.18.7.254: no answer"])
    system: Any = Machine()
    assert first_boot.prove(system, paths, budget=0) == 1
    assert text(paths, FILE) == "booted"
    assert text(paths, STATE) is None
    assert text(paths, "/etc/netplan/91-fleet.yaml") is None
    assert first_boot.load(paths) is None
    assert not first_boot.going_back(paths)
    assert system.ran == [["systemctl", "--no-block", "reboot"]]
    told = first_boot.result(paths.of("tx2"))
    assert told == {
        "result": "went back", "reason": "gateway 198.18.7.254: no answer", "left": [],
    }  # fmt: skip
    entry = {"transaction": "tx2", "state": "COMMITTED", "first_boot": told}
    shown = "\n".join(status_text({"hv1": [entry]}))
    assert "WENT BACK" in shown
    assert "gateway 198.18.7.254: no answer" in shown
    later = {"transaction": "tx3", "state": "COMMITTED", "first_boot": {}}
    assert "WENT BACK" not in "\n".join(status_text({"hv1": [entry, later]}))


def test_going_back_goes_on_after_a_power_cut(paths: files.Paths) -> None:
    """A power cut between two files leaves them to the next boot, before the network starts."""
    commit(paths, "tx1", {FILE: "one", STATE: "s1"})
    files.replace(f"{paths.state}/going-back", files.seal(wire.dumps(["address: gone"])))
    write(paths, FILE, "booted")
    assert first_boot.going_back(paths)
    assert first_boot.go_back(paths) == []
    assert (text(paths, FILE), text(paths, STATE)) == ("booted", None)
    assert not first_boot.going_back(paths)
    assert first_boot.result(paths.of("tx1"))["reason"] == "address: gone"


def test_what_somebody_changed_meanwhile_stays(paths: files.Paths) -> None:
    """A file that is neither as committed nor as before is somebody's, and is named."""
    commit(paths, "tx1", {FILE: "one", STATE: "s1"})
    write(paths, FILE, "theirs")
    (left,) = first_boot.go_back(paths)
    assert FILE in left
    assert (text(paths, FILE), text(paths, STATE)) == ("theirs", None)


def test_a_damaged_record_proves_nothing(paths: files.Paths) -> None:
    """One that does not check is dropped: nothing is taken back by it."""
    commit(paths, "tx1", {FILE: "one"})
    write(paths, first_boot.RECORD, "fleet-sealed-1 0\n{}")
    system: Any = Machine()
    assert first_boot.prove(system, paths) == 0
    assert text(paths, FILE) == "one"
    assert text(paths, first_boot.RECORD) is None
