"""Reviewed plans in files: what is written is what is read, anything else is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fleet import plan_file
from fleet.errors import UsageError
from fleet.host.change import Change, Plan, Problem
from fleet.host.wire import dumps
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import Trouble
from fleet.rollout.result import HostPlan
from tests.unit.standin import Fleet

PLAN = Plan(
    changes=(
        Change(kind="bridge", name="br0", what="mtu", before=1500, after=9000, guests=("web-1",)),
        Change(kind="bridge", name="br0", what="addresses", after={"address": "198.18.0.1/24"}),
    ),
    digest="a" * 64,
    problems=(Problem("bridge/br1", "mtu", "1500", "none"),),
    unmanaged=("veth/x",),
    settle=2.5,
)
PLANS = {
    "hv-1": HostPlan("hv-1", PLAN, state_digest="b" * 64),
    "hv-2": HostPlan("hv-2", trouble=Trouble("unreachable", "no route to host")),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a plan file as fleet writes it."""
    path = tmp_path / "rack3.plan"
    plan_file.write(path, PLANS, "f" * 40)
    return path


def test_what_is_written_is_read_back(file: Path) -> None:
    """A plan comes back equal, private, with its revision; a host without a plan is left out."""
    reviewed = plan_file.read(file)
    assert reviewed.hosts == {"hv-1": PLANS["hv-1"]}
    assert reviewed.revision == "f" * 40
    assert "@" in reviewed.made_by
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["rack3.plan"]


def test_any_byte_changed_is_refused(file: Path) -> None:
    """A file in which anything was changed is no reviewed plan any more."""
    whole = file.read_bytes()
    for position in range(0, len(whole) - 1, 7):
        bent = bytearray(whole)
        bent[position] ^= 0x01
        file.write_bytes(bytes(bent))
        with pytest.raises(UsageError):
            plan_file.read(file)


def test_a_torn_file_is_refused(file: Path) -> None:
    """A file that ends early is refused wherever it ends."""
    whole = file.read_bytes()
    for length in range(0, len(whole) - 2, 23):
        file.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            plan_file.read(file)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"format":"fleet-plan"}', "[" * 100_000, "\0", "{" * 9]
)
def test_what_is_no_plan_is_refused(file: Path, text: str) -> None:
    """Whatever else a file holds, it is refused and never crashes."""
    file.write_text(text)
    with pytest.raises(UsageError):
        plan_file.read(file)


def test_a_number_beyond_all_numbers_is_refused(file: Path) -> None:
    """JSON has numbers that are read as infinite: a file with one is refused, no traceback."""
    words = json.loads(file.read_text())
    del words["made_at"]
    file.write_text(json.dumps(words)[:-1] + ', "made_at": 1e999}')
    file.chmod(0o600)
    with pytest.raises(UsageError, match="checksum differs"):
        plan_file.read(file)


def test_a_later_version_is_named(file: Path) -> None:
    """A plan that a later fleet wrote is refused with both versions."""
    document = json.loads(file.read_text())
    file.write_text(dumps({**document, "version": 7}))
    with pytest.raises(UsageError, match="version 7, this fleet reads 1"):
        plan_file.read(file)


def test_a_file_that_others_can_write_is_refused(file: Path) -> None:
    """What others could have written was not reviewed by us."""
    file.chmod(0o620)
    with pytest.raises(UsageError, match="mode 0600"):
        plan_file.read(file)
    with pytest.raises(UsageError, match="cannot read"):
        plan_file.read(file.with_name("nosuch"))
    with pytest.raises(UsageError, match="is not a file"):
        plan_file.read(Path("/dev/null"))


def test_a_rollout_runs_the_file_and_refuses_what_is_stale(tmp_path: Path) -> None:
    """Only the file's hosts change, and of those only the ones that are as they were reviewed."""
    fleet = Fleet(tmp_path, {"h0": (), "h1": (), "h2": ()})
    path = tmp_path / "a.plan"

    async def go() -> dict[str, str]:
        async with fleet.engine() as engine:
            plan_file.write(path, await engine.plan(Selection(hosts=("h0", "h1"))))
        fleet.hosts["h1"].mtu = 1400
        async with fleet.engine() as engine:
            run = await engine.rollout(Selection(), RolloutOptions(), plan_file.read(path))
            return {name: end.outcome for name, end in run.hosts.items()}

    assert asyncio.run(go()) == {"h0": "committed", "h1": "refused"}
    assert (fleet.hosts["h1"].mtu, fleet.hosts["h2"].mtu) == (1400, 1500)


def test_a_changed_intent_makes_a_file_stale(tmp_path: Path) -> None:
    """Where the intent has changed since the review no host is changed."""
    fleet = Fleet(tmp_path, {"h0": ()})
    path = tmp_path / "a.plan"

    async def go() -> str:
        async with fleet.engine() as engine:
            plan_file.write(path, await engine.plan(Selection()))
            fleet.mtu = 4000
            run = await engine.rollout(Selection(), RolloutOptions(), plan_file.read(path))
            return run.hosts["h0"].message

    assert asyncio.run(go()).startswith("stale plan: the intent has changed")
    assert fleet.hosts["h0"].mtu == 1500
