"""The record, in SQLite and in PostgreSQL: what was said is durable and can be read back."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import FleetError, UsageError
from fleet.host.change import Change, Plan, Problem
from fleet.record import place, reader
from fleet.record.redact import redacted
from fleet.record.writer import HostEnd, HostEntry, Record, RecordError, RunEntry
from fleet.rollout import undo
from fleet.rollout.nonce import Nonces, hash_of

PLAN = Plan((Change(kind="bridge", name="br0", what="mtu", before=1500, after=9000),), "d" * 64)
STATE = {"host": "h", "resources": [{"kind": "bridge", "name": "br0", "spec": {"mtu": 9000}}]}


def entry(name: str, started: float = 1.0, kind: str = "rollout") -> RunEntry:
    """Return a run as it begins."""
    return RunEntry(name, started, "ann@desk", 42, "/srv/fleet", kind, "", "f" * 40, {"canary": 1})


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL of its own on a unix socket and return its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("initdb: PostgreSQL's server is not installed")
    pytest.importorskip("psycopg")
    program = found[-1].parent
    # pytest's own directories are closed to the user that the server runs as.
    home = Path(tempfile.mkdtemp(prefix="fleet-pg-"))
    who: dict[str, int] = {}
    if os.getuid() == 0:
        # The server refuses to run as root.
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        [program / "initdb", "-D", home / "data", "-U", "fleet", "-A", "trust", "--no-sync"],
        check=True,
        cwd=home,
        **who,
        **quiet,  # type: ignore[call-overload]
    )
    server = subprocess.Popen(
        [
            program / "postgres",
            "-D",
            home / "data",
            "-k",
            home,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ],
        cwd=home,
        **who,
        **quiet,  # type: ignore[call-overload]
    )
    try:
        _await_socket(home / ".s.PGSQL.5432", server)
        yield f"postgresql://fleet@/postgres?host={home}"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def _await_socket(path: Path, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    end = time.monotonic() + 20
    while time.monotonic() < end and server.poll() is None:
        try:
            psycopg.connect(host=str(path.parent), user="fleet", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError("PostgreSQL did not come up")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty record of either kind, which the reader finds too."""
    if request.param == "sqlite":
        said = f"sqlite:///{tmp_path}/record.sqlite"
    else:
        said = request.getfixturevalue("postgresql")
    monkeypatch.setenv(place.VARIABLE, said)
    return place.record_url(tmp_path)


def test_a_run_is_read_back_as_it_was_written(url: str, tmp_path: Path) -> None:
    """Who, what, the plan, the outcome, phases and confirms come back equal."""

    async def go() -> None:
        async with Record(url) as record:
            await record.begin_run(
                entry("run-1"), [HostEntry("h1", PLAN, STATE, "s" * 64), HostEntry("h2")]
            )
            await record.waves("run-1", [("h1",), ("h2",)])
            await record.arming("run-1", "h1", "run-1", PLAN, "n" * 64, ("198.18.0.1",))
            await record.confirmed("run-1", "h1", "run-1", "198.18.0.1", "COMMITTED", 5.0)
            problem = Problem("bridge/br0", "mtu", "9000", "1500", "look")
            phases = (("arm", 0.5, 0.25),)
            await record.host_ended(
                "run-1", HostEnd("h1", "reverted", "why", (problem,), 1, 1, 2.5, phases)
            )
            await record.end_run("run-1", "stopped")

    asyncio.run(go())
    past = reader.run(tmp_path, "run-1")
    assert (past.controller, past.pid, past.revision) == ("ann@desk", 42, "f" * 40)
    assert (past.options, past.stopped) == ({"canary": 1}, "stopped")
    assert past.outcomes == {"reverted": 1, "in flight": 1}
    host = past.hosts["h1"]
    assert (host.outcome, host.message, host.wave, host.seconds) == ("reverted", "why", 1, 2.5)
    assert host.problems[0]["expected"] == "9000"
    assert host.plan is not None
    assert host.plan["changes"][0]["after"] == 9000
    assert host.phases == (("arm", 0.5, 0.25),)
    assert host.confirms == (("198.18.0.1", "COMMITTED", 5.0),)
    assert (host.transaction, host.addresses) == ("run-1", ("198.18.0.1",))
    assert past.hosts["h2"].wave == 2
    assert [each.id for each in reader.runs(tmp_path)][:1] == ["run-1"]


def test_what_is_announced_is_on_disk_before(tmp_path: Path) -> None:
    """A process killed right after a call leaves what it said, readable by the next."""
    url = f"sqlite:///{tmp_path}/record.sqlite"
    program = f"""
import asyncio, os, signal
from fleet.record.writer import Record, RunEntry, HostEntry
from fleet.host.change import Plan
async def go():
    record = Record({url!r})
    await record.begin_run(RunEntry("r", 1.0, "a@b", 1, "/"), [HostEntry("h")])
    await record.arming("r", "h", "r", Plan(digest="d"), "n" * 64, ())
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(go())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == -9
    row = sqlite3.connect(tmp_path / "record.sqlite").execute(
        'select "transaction", nonce_hash from run_hosts'
    )
    assert row.fetchall() == [("r", "n" * 64)]


def test_many_hosts_share_commits_and_one_fault_is_its_own(tmp_path: Path) -> None:
    """Requests that come together are committed together; a wrong one fails alone."""

    async def go() -> list[BaseException | None]:
        async with Record(f"sqlite:///{tmp_path}/r.sqlite") as record:
            await record.begin_run(entry("r"), [HostEntry(f"h{n}") for n in range(300)])
            ends = (HostEnd(f"h{n}" if n != 150 else "nosuch", "committed") for n in range(300))
            return await asyncio.gather(
                *(record.host_ended("r", end) for end in ends), return_exceptions=True
            )

    began = time.monotonic()
    found = asyncio.run(go())
    assert [n for n, each in enumerate(found) if each is not None] == [150]
    assert isinstance(found[150], UsageError)
    # A commit each, with its fsync, would take longer on any disk.
    assert time.monotonic() - began < 20


def test_a_record_that_cannot_be_written_stops_before_any_host(tmp_path: Path) -> None:
    """Where the record's place is no directory every call fails with the reason."""
    (tmp_path / "file").write_text("")

    async def go() -> None:
        async with Record(f"sqlite:///{tmp_path}/file/record.sqlite") as record:
            await record.begin_run(entry("r"), [])

    with pytest.raises(RecordError, match="the record cannot be used"):
        asyncio.run(go())


def test_a_garbled_record_is_an_error_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading what is no database says so."""
    monkeypatch.delenv(place.VARIABLE, raising=False)
    (tmp_path / ".fleet").mkdir()
    (tmp_path / ".fleet" / "record.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(FleetError, match="cannot be read"):
        reader.runs(tmp_path)


def test_the_state_before_a_run_is_the_last_one_committed(tmp_path: Path) -> None:
    """Only earlier runs count, and of those only what the host committed."""

    async def go() -> str:
        async with Record(f"sqlite:///{tmp_path}/r.sqlite") as record:
            for number, outcome in ((1, "committed"), (2, "reverted"), (3, "committed")):
                state = {**STATE, "host": str(number)}
                host = HostEntry("h", PLAN, state, str(number) * 64)
                await record.begin_run(entry(f"r{number}", float(number)), [host])
                await record.host_ended(f"r{number}", HostEnd("h", outcome))
            return await record.do(lambda store: store.committed_before("h", 3.0))

    assert asyncio.run(go()) == "1" * 64


def test_runs_are_found_by_an_unambiguous_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beginning that two runs share, or none has, is a usage error; % and _ are letters."""
    monkeypatch.delenv(place.VARIABLE, raising=False)
    assert reader.runs(tmp_path) == []
    with pytest.raises(UsageError, match="no record yet"):
        reader.run(tmp_path, "a")

    async def go() -> None:
        place.state_directory(tmp_path)
        async with Record(place.record_url(tmp_path)) as record:
            for name in ("2026-a1", "2026-a2", "2026-b"):
                await record.begin_run(entry(name), [])

    asyncio.run(go())
    assert reader.run(tmp_path, "2026-b").id == "2026-b"
    for bad, said in (("2026-a", "several"), ("%", "no run"), ("2026_", "no run")):
        with pytest.raises(UsageError, match=said):
            reader.run(tmp_path, bad)


def test_the_place_is_private_and_out_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record lies in the project, 0700 and ignored by git; the file is 0600."""
    monkeypatch.delenv(place.VARIABLE, raising=False)
    directory = place.state_directory(tmp_path)
    assert directory == tmp_path / ".fleet"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / ".gitignore").read_text() == "*\n"

    async def go() -> None:
        async with Record(place.record_url(tmp_path)) as record:
            await record.begin_run(entry("r"), [])

    asyncio.run(go())
    assert (directory / "record.sqlite").stat().st_mode & 0o777 == 0o600


def test_one_url_chooses_another_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable wins over the setting; PostgreSQL goes through psycopg; others are refused."""
    monkeypatch.delenv(place.VARIABLE, raising=False)
    config = {"record": "postgresql://db/fleet"}
    assert place.record_url(tmp_path, config) == "postgresql+psycopg://db/fleet"
    monkeypatch.setenv(place.VARIABLE, "sqlite:////x/y.sqlite")
    assert place.record_url(tmp_path, config) == "sqlite:////x/y.sqlite"
    monkeypatch.setenv(place.VARIABLE, "oracle://x")
    with pytest.raises(UsageError, match="sqlite or postgresql"):
        place.record_url(tmp_path)


def test_secrets_stay_out() -> None:
    """Secret values are left out of what is recorded, and their paths are known."""
    state = {"resources": [{"spec": {"mtu": 9000, "private_key": "hunter2", "psk": None}}]}
    kept, withheld = redacted(state)
    assert "hunter2" not in json.dumps(kept)
    assert withheld == ["resources[0].spec.private_key"]


def test_a_nonce_is_private_and_lives_until_it_is_used(tmp_path: Path) -> None:
    """A nonce can be read again by this user alone, is not made twice, and is gone once used."""
    nonces = Nonces(tmp_path / "nonces")
    nonce = nonces.make("tx-1", "hv/1 ..")
    assert len(bytes.fromhex(nonce)) == 32
    assert nonces.get("tx-1", "hv/1 ..") == nonce
    assert len(hash_of(nonce)) == 64
    path = next((tmp_path / "nonces").iterdir())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        nonces.make("tx-1", "hv/1 ..")
    nonces.forget("tx-1", "hv/1 ..")
    assert nonces.get("tx-1", "hv/1 ..") is None
    with pytest.raises(ValueError):
        nonces.make("../x", "h")


def test_changes_are_taken_back_from_a_state() -> None:
    """The state before a plan: made resources go, removed entries come back, scalars return."""
    spec = {
        "mtu": 9000,
        "addresses": ["198.18.0.1/24", {"address": "198.18.0.2/24"}],
        "parameters": {"forward_delay": 4},
        "ports": {"eth0.100": {"isolated": True}},
    }
    state = {
        "host": "h",
        "resources": [
            {"namespace": "", "kind": "bridge", "name": "br0", "spec": spec},
            {"namespace": "", "kind": "veth", "name": "v0", "spec": {"peer": "v1"}},
        ],
    }
    br0 = {"kind": "bridge", "name": "br0"}
    changes = [
        Change(**br0, what="mtu", before=1500, after=9000),
        Change(**br0, what="addresses", before="198.18.0.9/24"),
        Change(**br0, what="addresses", after="198.18.0.2/24"),
        Change(**br0, what="parameters.forward-delay", before=15, after=4),
        Change(**br0, what="activation-mode", before="down", after="up"),
        Change(**br0, what="ports.eth0.100.isolated", before=None, after=True),
        Change(kind="veth", name="v0", action="create", after={"peer": "v1"}),
        Change(kind="veth", name="old", action="delete", before={"peer": "old1"}),
    ]
    old = undo.before(state, changes)
    assert [each["name"] for each in old["resources"]] == ["br0", "old"]
    assert old["resources"][0]["spec"] == {
        "mtu": 1500,
        "addresses": ["198.18.0.1/24", "198.18.0.9/24"],
        "parameters": {"forward_delay": 15},
        "ports": {"eth0.100": {}},
        "activation_mode": "off",
    }
    assert old["resources"][1]["spec"] == {"peer": "old1"}
    assert spec["mtu"] == 9000


def test_a_route_that_moved_goes_back_to_its_device() -> None:
    """The route of a NIC that became a bridge's port is the NIC's again."""
    route = {"to": "default", "via": "198.18.0.254"}
    state = {
        "host": "h",
        "resources": [
            {"namespace": "", "kind": "ethernet", "name": "eno1", "spec": {"routes": []}},
            {"namespace": "", "kind": "bridge", "name": "br0", "spec": {"routes": [route]}},
        ],
    }
    changes = [
        Change(kind="bridge", name="br0", action="create", after={}),
        Change(kind="ethernet", name="eno1", what="addresses", before="198.18.0.1/24"),
        Change(
            kind="bridge", name="br0", what="routes", before={**route, "dev": "eno1"}, after=route
        ),
    ]
    (old,) = undo.before(state, changes)["resources"]
    assert old["name"] == "eno1"
    assert old["spec"] == {"routes": [route], "addresses": "198.18.0.1/24"}


def test_a_host_that_was_elsewhere_does_not_go_back_to_what_it_last_committed() -> None:
    """A plan that makes what the earlier state had, or mends it, began somewhere else."""
    br0 = {"namespace": "", "kind": "bridge", "name": "br0", "spec": {"mtu": 9000}}
    earlier, state = {"resources": [br0]}, {"resources": [{**br0, "spec": {"mtu": 4000}}]}
    mtu = Change(kind="bridge", name="br0", what="mtu", before=9000, after=4000)
    assert undo.was_in(earlier, state, [mtu])
    assert not undo.was_in(earlier, earlier, [mtu])
    assert not undo.was_in(earlier, state, [Change(kind="bridge", name="br0", action="create")])
    gone = Change(kind="tap", name="t", action="delete")
    assert not undo.was_in(state, {"resources": []}, [gone])
