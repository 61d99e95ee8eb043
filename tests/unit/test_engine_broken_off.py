"""Rollouts that are broken off: Ctrl-C once and twice, a killed controller, resume, takeover."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import UsageError
from fleet.record import reader
from fleet.record.writer import Record
from fleet.rollout import controller, part, settle
from fleet.rollout.engine import Engine
from fleet.rollout.events import HostPhase
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run
from tests.unit.standin import Fleet

ALL = Selection()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no stand-in be waited for as long as a host is."""
    monkeypatch.setattr(settle, "PAUSE", 0.01)
    monkeypatch.setattr(settle, "GRACE", 0.3)
    monkeypatch.setattr(settle, "TRY", 1.0)


def fleet_of(path: Path, count: int) -> Fleet:
    """Return a fleet of well-behaved hosts."""
    return Fleet(path, {f"h{number}": () for number in range(count)})


def with_engine(fleet: Fleet, work: Callable[[Engine], Awaitable[Any]]) -> Any:
    """Do something with an engine on a loop of its own."""

    async def go() -> Any:
        async with fleet.engine() as engine:
            return await work(engine)

    return asyncio.run(go())


def outcomes(hosts: dict[str, HostOutcome]) -> dict[str, str]:
    """Return the outcome of each host."""
    return {name: end.outcome for name, end in hosts.items()}


async def until(fleet: Fleet, phase: str, host: str = "h0") -> None:
    """Wait until a host is in a phase."""
    while not any(
        isinstance(e, HostPhase) and (e.host, e.phase) == (host, phase) for e in fleet.events
    ):
        await asyncio.sleep(0.005)


async def held(engine: Engine, fleet: Fleet, op: str, options: RolloutOptions) -> asyncio.Task[Run]:
    """Begin a rollout and return it once its first host waits in an operation."""
    for host in fleet.hosts.values():
        host.events[op] = asyncio.Event()
    rollout = asyncio.create_task(engine.rollout(ALL, options))
    await until(fleet, op)
    while op not in fleet.hosts["h0"].calls:
        await asyncio.sleep(0.005)
    return rollout


def release(fleet: Fleet) -> None:
    """Let every host that waits go on."""
    for host in fleet.hosts.values():
        for event in host.events.values():
            event.set()
        host.events.clear()


def killed(fleet: Fleet, op: str, monkeypatch: pytest.MonkeyPatch, options: RolloutOptions) -> str:
    """Roll out, and end as a controller does that is killed while its hosts are in ``op``."""

    async def go(engine: Engine) -> str:
        rollout = await held(engine, fleet, op, options)

        async def nothing(*ignored: Any) -> None:
            """A dead controller writes nothing."""

        with monkeypatch.context() as patch:
            patch.setattr(part.Part, "_keep", nothing)
            patch.setattr(Record, "end_run", nothing)
            for one in [h.connections["fleet"] for h in engine.inventory.hosts.values()]:
                one.abort()
            engine.shared.stopping = "killed"
            await asyncio.wait([rollout])
        return engine.shared.run

    run: str = with_engine(fleet, go)
    for host in fleet.hosts.values():
        host.events.clear()
    fleet.events.clear()
    return run


def test_ctrl_c_settles_what_is_in_flight_and_begins_no_other(tmp_path: Path) -> None:
    """The first SIGINT lets armed hosts commit; hosts of later waves are not started."""
    fleet = fleet_of(tmp_path, 3)

    async def go(engine: Engine) -> Run:
        rollout = await held(engine, fleet, "apply", RolloutOptions())
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        while not engine.shared.stopping:
            await asyncio.sleep(0.005)
        release(fleet)
        return await rollout

    run = with_engine(fleet, go)
    assert outcomes(run.hosts) == {"h0": "committed", "h1": "not started", "h2": "not started"}
    assert run.stopped == "stopped by the operator"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_before_arming_changes_nothing(tmp_path: Path) -> None:
    """A host that is not armed yet when the operator stops is left as it is."""
    fleet = fleet_of(tmp_path, 2)

    async def go(engine: Engine) -> Run:
        for host in fleet.hosts.values():
            host.events["plan"] = asyncio.Event()
        rollout = asyncio.create_task(engine.rollout(ALL, RolloutOptions()))
        await until(fleet, "plan")
        engine.stop()
        release(fleet)
        return await rollout

    run = with_engine(fleet, go)
    assert set(outcomes(run.hosts).values()) == {"not started"}
    assert not fleet.hosts["h0"].transactions


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_unknown(tmp_path: Path) -> None:
    """The second SIGINT waits for nobody: an armed host is unknown, and reverts by itself."""
    fleet = fleet_of(tmp_path, 2)

    async def go(engine: Engine) -> Run:
        rollout = await held(engine, fleet, "confirm", RolloutOptions())
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            return await rollout

    run = with_engine(fleet, go)
    assert outcomes(run.hosts) == {"h0": "unknown", "h1": "not started"}
    assert "puts itself back" in run.hosts["h0"].message
    assert fleet.hosts["h0"].open_one() is not None
    assert reader.run(tmp_path, run.id).hosts["h0"].outcome == "unknown"


@pytest.mark.parametrize("op", ["arm", "apply", "confirm"])
def test_a_killed_rollout_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    """What was in flight is settled by asking, never applied twice; the rest is rolled out."""
    fleet = fleet_of(tmp_path, 3)
    name = killed(fleet, op, monkeypatch, RolloutOptions(canary=1, wave="1"))
    assert reader.run(tmp_path, name).ended is None
    run = with_engine(fleet, lambda engine: engine.rollout(ALL, RolloutOptions(), resume=name))
    assert set(outcomes(run.hosts).values()) == {"committed"}
    assert run.id == name
    assert all(host.mtu == 9000 for host in fleet.hosts.values())
    assert fleet.hosts["h0"].calls.count("apply") <= 2
    past = reader.run(tmp_path, name)
    assert (past.outcomes, past.attempt, past.stopped) == ({"committed": 3}, 2, "")


def test_resume_skips_hosts_that_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that committed before the kill is not connected to again."""
    fleet = fleet_of(tmp_path, 2)

    async def first(engine: Engine) -> Run:
        run: Run = await engine.rollout(Selection(), RolloutOptions())
        return run

    run = with_engine(fleet, first)
    dials = [host.dials for host in fleet.hosts.values()]
    resumed = with_engine(fleet, lambda e: e.rollout(ALL, RolloutOptions(), resume=run.id))
    assert outcomes(resumed.hosts) == {"h0": "committed", "h1": "committed"}
    assert [host.dials for host in fleet.hosts.values()] == dials


def test_options_given_with_resume_hold(tmp_path: Path) -> None:
    """A resumed run takes the options given with it, keeps the others, and records both."""
    fleet = fleet_of(tmp_path, 4)
    fleet.hosts["h0"].ways.add("refuse")
    first = RolloutOptions(canary=1, wave="1", confirm_timeout=77)
    run = with_engine(fleet, lambda e: e.rollout(ALL, first))
    assert outcomes(run.hosts)["h1"] == "not started"
    fleet.hosts["h1"].ways.add("refuse")
    given = {"max_failures": 2, "wave": "100%", "soak": 0.5}
    run = with_engine(fleet, lambda e: e.rollout(ALL, RolloutOptions(), resume=run.id, given=given))
    assert outcomes(run.hosts) == {
        "h0": "refused", "h1": "refused", "h2": "committed", "h3": "committed"
    }  # fmt: skip
    assert fleet.hosts["h2"].deadline - time.monotonic() > 70
    recorded = reader.run(tmp_path, run.id).options
    assert (recorded["max_failures"], recorded["soak"], recorded["confirm_timeout"]) == (2, 0.5, 77)


def test_a_canary_is_not_given_twice(tmp_path: Path) -> None:
    """Once a host is committed, another canary on resume is refused, and why is said."""
    fleet = fleet_of(tmp_path, 2)
    fleet.hosts["h1"].ways.add("refuse")
    run = with_engine(fleet, lambda e: e.rollout(ALL, RolloutOptions()))
    given = {"canary": 2}
    with pytest.raises(UsageError, match="has had its canary"):
        with_engine(fleet, lambda e: e.rollout(ALL, RolloutOptions(), resume=run.id, given=given))


def test_a_run_that_still_goes_on_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming a run whose process lives is a usage error."""
    fleet = fleet_of(tmp_path, 1)
    name = killed(fleet, "apply", monkeypatch, RolloutOptions())
    monkeypatch.setattr(controller, "alive", lambda who, pid: True)
    with pytest.raises(UsageError, match="still goes on"):
        with_engine(fleet, lambda e: e.rollout(ALL, RolloutOptions(), resume=name))


def test_a_rerun_takes_over_what_a_killed_controller_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new rollout confirms what was applied for the same state, and has nothing left to do."""
    fleet = fleet_of(tmp_path, 1)
    name = killed(fleet, "confirm", monkeypatch, RolloutOptions())
    run = with_engine(fleet, lambda engine: engine.rollout(ALL, RolloutOptions()))
    assert outcomes(run.hosts) == {"h0": "unchanged"}
    assert reader.run(tmp_path, name).hosts["h0"].outcome == "committed"
    assert fleet.hosts["h0"].open_one() is None


def test_a_rerun_with_another_intent_reverts_what_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was applied for another state is put back before the new one is rolled out."""
    fleet = fleet_of(tmp_path, 1)
    name = killed(fleet, "confirm", monkeypatch, RolloutOptions())
    fleet.mtu = 4000
    run = with_engine(fleet, lambda engine: engine.rollout(ALL, RolloutOptions()))
    assert outcomes(run.hosts) == {"h0": "committed"}
    assert reader.run(tmp_path, name).hosts["h0"].outcome == "reverted"
    assert fleet.hosts["h0"].mtu == 4000


def test_another_process_confirms_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fleet confirm TX`` finds the hosts in the record and the nonce in its private file."""
    fleet = fleet_of(tmp_path, 2)
    name = killed(fleet, "confirm", monkeypatch, RolloutOptions(canary=1))
    nonce = next((tmp_path / ".fleet" / "nonces").iterdir())
    assert nonce.stat().st_mode & 0o777 == 0o600
    ends = with_engine(fleet, lambda engine: engine.confirm(name))
    assert outcomes(ends) == {"h0": "committed"}
    assert reader.run(tmp_path, name).hosts["h0"].outcome == "committed"
    assert not nonce.exists()
    with pytest.raises(UsageError, match="no host has a transaction"):
        with_engine(fleet, lambda engine: engine.confirm("nosuch"))


def test_without_the_nonce_nothing_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that does not have the nonce leaves the host waiting and says so."""
    fleet = fleet_of(tmp_path, 1)
    name = killed(fleet, "confirm", monkeypatch, RolloutOptions())
    next((tmp_path / ".fleet" / "nonces").iterdir()).unlink()
    ends = with_engine(fleet, lambda engine: engine.confirm(name))
    assert ends["h0"].outcome == "unknown"
    assert "nonce is not on this controller" in ends["h0"].message
    assert fleet.hosts["h0"].open_one() is not None


def test_what_waits_is_reverted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``fleet revert TX`` has the host put itself back before its deadline."""
    fleet = fleet_of(tmp_path, 1)
    name = killed(fleet, "confirm", monkeypatch, RolloutOptions())
    run = with_engine(fleet, lambda engine: engine.revert(name))
    assert outcomes(run.hosts) == {"h0": "reverted"}
    assert run.hosts["h0"].transaction == name
    assert fleet.hosts["h0"].mtu == 1500


def test_a_revert_that_the_record_does_not_know_is_found_on_the_hosts(tmp_path: Path) -> None:
    """Another controller's transaction can be reverted: the hosts know it."""
    fleet = fleet_of(tmp_path, 2)
    host = fleet.hosts["h1"]
    host.deadline = float("inf")
    host.transactions["other"] = {"transaction": "other", "state": "APPLIED", "seconds_left": 9.0}
    run = with_engine(fleet, lambda engine: engine.revert("other"))
    assert outcomes(run.hosts) == {"h1": "reverted"}
