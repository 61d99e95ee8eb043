"""The journal: what is torn or changed is never believed, and its space is there beforehand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.host.transactions import crash, files, journal
from fleet.host.transactions.journal import Journal

RECORDS = [
    ("PREPARED", {"owner": "ops@controller", "boot_id": "b", "prepared_at": 1.5}),
    ("ARMED", {"deadline": 120.25, "watchdogs": [[10, 20]]}),
    ("APPLYING", {"index": 0, "key": "bridge/br0"}),
    ("APPLIED", {"applied_at": 3.5}),
    ("CONFIRMED", {"address": "198.18.0.1"}),
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal with five records, closed."""
    directory = tmp_path / "tx"
    log = Journal.create(str(directory), 16384)
    for state, fields in RECORDS:
        log.append(state, **fields)
    log.close()
    return directory


def test_records_come_back_as_they_were_written(written: Path) -> None:
    """A journal read again holds the same records in the same order."""
    log = Journal.open(str(written))
    assert [record["state"] for record in log.records] == [state for state, _ in RECORDS]
    assert log.records[1] == {"state": "ARMED", **RECORDS[1][1]}
    assert log.state == "CONFIRMED"
    assert not log.damaged
    log.close()


def test_a_torn_journal_is_a_prefix_at_every_byte(written: Path) -> None:
    """Cut anywhere, the records are a prefix of what was written, and a cut record is noticed."""
    data = (written / "log").read_bytes()
    whole, end, _, damaged = journal.decode(data)
    assert len(whole) == len(RECORDS)
    assert not damaged
    seen = set()
    for cut in range(end):
        records, good, _, damaged = journal.decode(data[:cut])
        assert records == whole[: len(records)]
        assert damaged == any(data[good:cut]), cut
        seen.add(len(records))
    assert seen == set(range(len(RECORDS)))


def test_a_flipped_bit_is_never_believed(written: Path) -> None:
    """With any single bit changed, no record differs from what was written."""
    data = (written / "log").read_bytes()
    whole, end, _, _ = journal.decode(data)
    for position in range(end):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        records, _, _, damaged = journal.decode(bytes(changed))
        assert records == whole[: len(records)]
        assert len(records) < len(whole)
        assert damaged


def test_a_record_after_a_torn_one_is_read_again(written: Path) -> None:
    """Appending over a torn record leaves nothing of it behind."""
    data = (written / "log").read_bytes()
    _, end, _, _ = journal.decode(data)
    os.truncate(written / "log", end - 3)
    log = Journal.open(str(written))
    assert log.damaged
    assert log.state == "APPLIED"
    log.append("REVERTING", reason="torn")
    log.close()
    again = Journal.open(str(written))
    assert again.state == "REVERTING"
    assert not again.damaged
    again.close()


def test_after_confirmed_there_is_only_forward(written: Path) -> None:
    """No revert can be recorded after CONFIRMED, and nothing at all after COMMITTED."""
    log = Journal.open(str(written))
    for state in ("REVERTING", "REVERTED", "ABANDONED", "APPLYING"):
        with pytest.raises(ValueError, match="cannot follow"):
            log.append(state)
    log.append("PERSISTING")
    log.append("COMMITTED")
    for state in journal.FOLLOWING:
        if state:
            with pytest.raises(ValueError, match="cannot follow"):
                log.append(state)
    log.close()


def test_every_state_leads_to_an_end() -> None:
    """From each state a terminal one can be reached, and terminal states are left by no other."""
    for start in journal.FOLLOWING:
        reached, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state not in reached:
                reached.add(state)
                todo += journal.FOLLOWING[state]
        assert reached & set(journal.TERMINAL), start
    for state in ("COMMITTED", "REVERTED", "ABANDONED"):
        assert journal.FOLLOWING[state] == ()


def test_space_is_allocated_before_the_first_record(tmp_path: Path) -> None:
    """The file has its blocks on the disk as soon as it exists."""
    log = Journal.create(str(tmp_path / "tx"), 65536)
    status = os.stat(tmp_path / "tx" / "log")
    assert status.st_size == 65536
    assert status.st_blocks * 512 >= 65536
    assert status.st_mode & 0o777 == 0o600
    assert os.stat(tmp_path / "tx").st_mode & 0o777 == 0o700
    log.close()


def test_a_journal_is_made_once(tmp_path: Path) -> None:
    """A transaction's name cannot be used again."""
    Journal.create(str(tmp_path / "tx"), 4096).close()
    with pytest.raises(FileExistsError):
        Journal.create(str(tmp_path / "tx"), 4096)


@pytest.mark.parametrize("plant", ["symlink", "hardlink", "open"])
def test_a_planted_journal_is_not_followed(written: Path, tmp_path: Path, plant: str) -> None:
    """A symlink, a second hard link, or a file others can read is refused."""
    log = written / "log"
    if plant == "symlink":
        log.rename(tmp_path / "elsewhere")
        log.symlink_to(tmp_path / "elsewhere")
    elif plant == "hardlink":
        os.link(log, tmp_path / "elsewhere")
    else:
        log.chmod(0o644)
    with pytest.raises(OSError):
        Journal.open(str(written))


def test_a_planted_directory_is_not_followed(tmp_path: Path) -> None:
    """A symlink in place of a private directory is refused."""
    (tmp_path / "target").mkdir()
    (tmp_path / "fleet").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        files.make_private(str(tmp_path / "fleet"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "-x", "lock", "x" * 65, "é", "a\n", 3]
)
def test_a_name_that_leads_elsewhere_is_refused(name: object) -> None:
    """Only a plain name can name a transaction's directory."""
    with pytest.raises(ValueError):
        files.valid_name(name)


def test_a_sealed_text_survives_nothing(tmp_path: Path) -> None:
    """Any single flipped bit of a sealed text is noticed."""
    sealed = files.seal('{"links": {"eth0": 1}}')
    assert files.unseal(sealed) == '{"links": {"eth0": 1}}'
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ValueError):
            files.unseal(bytes(changed))


def test_every_crash_point_that_is_passed_is_listed() -> None:
    """The names in the code and the list of names are the same."""
    import fleet.host

    passed = set()
    for path in Path(fleet.host.__path__[0]).rglob("*.py"):
        for part in path.read_text().split("crash.point(")[1:]:
            name = part.split(")")[0].strip().lstrip("f").strip('"')
            for variable in ("{index}", "{number}"):
                name = name.replace(variable, "*")
            passed.add(name)
    generated = {name for name in passed if "{state}" in name}
    assert generated == {"journal.{state}.before", "journal.{state}.after"}
    listed = {name for name in crash.POINTS if not name.startswith("journal.")}
    assert passed - generated == listed
    states = {name.split(".")[1] for name in crash.POINTS if name.startswith("journal.")}
    assert states == set(journal.FOLLOWING) - {""}
