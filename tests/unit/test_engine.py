"""The engine's rollouts, on stand-in hosts: waves, budget, outcomes, gates, the record."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import UsageError
from fleet.record import reader
from fleet.rollout import part, settle
from fleet.rollout.events import GateFailed, HostEnded, Stopping, WaveStarted
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import Run
from tests.unit.standin import Fleet

ALL = Selection()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no stand-in be waited for as long as a host is."""
    monkeypatch.setattr(settle, "PAUSE", 0.01)
    monkeypatch.setattr(settle, "GRACE", 0.3)
    monkeypatch.setattr(settle, "TRY", 1.0)
    monkeypatch.setattr(part, "CONNECT", 0.5)


def roll(fleet: Fleet, reviewed: Any = None, **options: Any) -> Run:
    """Roll out to all hosts of a fleet."""

    async def go() -> Run:
        async with fleet.engine() as engine:
            return await engine.rollout(ALL, RolloutOptions(**options), reviewed)

    return asyncio.run(go())


def outcomes(run: Run) -> dict[str, str]:
    """Return the outcome of each host."""
    return {name: end.outcome for name, end in run.hosts.items()}


def fleet_of(path: Path, *ways: tuple[str, ...]) -> Fleet:
    """Return a fleet with one host for each tuple of ways to misbehave."""
    return Fleet(path, {f"h{number}": each for number, each in enumerate(ways)})


def test_hosts_commit_in_waves_and_a_second_rollout_changes_nothing(tmp_path: Path) -> None:
    """Every host is planned, armed, applied, confirmed over a new connection; then unchanged."""
    fleet = fleet_of(tmp_path, (), (), ())
    run = roll(fleet)
    assert set(outcomes(run).values()) == {"committed"}
    assert [event.hosts for event in fleet.happened(WaveStarted)] == [("h0",), ("h1", "h2")]
    assert fleet.hosts["h0"].mtu == 9000
    assert fleet.hosts["h0"].calls == ["plan", "plan", "arm", "apply", "confirm"]
    assert set(outcomes(roll(fleet)).values()) == {"unchanged"}
    assert not list((tmp_path / ".fleet" / "nonces").iterdir())


def test_canary_is_a_host_that_changes(tmp_path: Path) -> None:
    """A host with nothing to do is no canary."""
    fleet = fleet_of(tmp_path, (), (), ())
    fleet.hosts["h0"].mtu = 9000
    assert outcomes(roll(fleet))["h0"] == "unchanged"
    assert [event.hosts for event in fleet.happened(WaveStarted)] == [("h1",), ("h2",)]


def test_outcomes_are_told_apart(tmp_path: Path) -> None:
    """Unreachable, refused, reverted, revert failed and committed are different ends."""
    fleet = fleet_of(
        tmp_path,
        (),
        ("unreachable",),
        ("refuse",),
        ("break",),
        ("break", "stuck"),
        ("hang",),
        ("lose:apply",),
        ("lose:confirm",),
        ("unwell",),
        ("hang:plan",),
    )
    fleet.settings["confirm-timeout"] = 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fleet.rollout.steps.READING", 0.5)
        run = roll(fleet, max_failures=10)
    assert outcomes(run) == {
        "h0": "committed",
        "h1": "unreachable",
        "h2": "refused",
        "h3": "reverted",
        "h4": "revert failed",
        "h5": "unreachable",
        "h6": "committed",
        "h7": "committed",
        "h8": "reverted",
        "h9": "unreachable",
    }
    assert "gateway" in run.hosts["h8"].message
    assert "no answer to plan" in run.hosts["h9"].message
    assert fleet.hosts["h7"].calls.count("confirm") == 1
    assert fleet.hosts["h6"].calls.count("apply") == 1
    assert fleet.hosts["h8"].mtu == 1500


def test_a_host_that_never_comes_back_is_unknown(tmp_path: Path) -> None:
    """Where no way leads to a host until after its deadline nobody knows how it is."""
    fleet = fleet_of(tmp_path, ("die",))
    run = roll(fleet, confirm_timeout=1)
    assert outcomes(run) == {"h0": "unknown"}
    assert run.hosts["h0"].transaction == run.id


def test_failure_budget_spans_waves_and_overshoots_one_wave_at_most(tmp_path: Path) -> None:
    """Two failures spread over waves stop a rollout that allows one; later waves are not begun."""
    ways = [("break",) if number in (1, 3) else () for number in range(8)]
    fleet = fleet_of(tmp_path, *ways)
    run = roll(fleet, canary=1, wave="2", max_failures=1)
    assert list(outcomes(run).values()) == [
        "committed",
        "reverted",
        "committed",
        "reverted",
        "committed",
        "not started",
        "not started",
        "not started",
    ]
    assert "2 hosts have failed" in run.stopped
    assert not fleet.hosts["h6"].transactions


def test_a_spent_budget_begins_no_further_host_of_the_wave(tmp_path: Path) -> None:
    """Within a wave too large to go at once, hosts that wait for their turn are left alone."""
    fleet = fleet_of(tmp_path, ("break",), *[() for _ in range(9)])

    async def go() -> Run:
        async with fleet.engine(concurrency=1) as engine:
            return await engine.rollout(ALL, RolloutOptions(canary=0))

    ends = outcomes(asyncio.run(go()))
    assert ends["h0"] == "reverted"
    assert set(list(ends.values())[1:]) == {"not started"}


def test_on_failure_revert_takes_committed_hosts_back(tmp_path: Path) -> None:
    """The way back is a run of its own; the hosts end as reverted."""
    fleet = fleet_of(tmp_path, (), ("break",), ())
    run = roll(fleet, canary=1, wave="1", on_failure="revert")
    assert outcomes(run) == {"h0": "reverted", "h1": "reverted", "h2": "not started"}
    assert fleet.hosts["h0"].mtu == 1500
    assert [past.kind for past in reader.runs(tmp_path)] == ["revert", "rollout"]
    assert run.reverted_by == reader.runs(tmp_path)[0].id


def test_revert_of_a_run_goes_back_to_what_was_committed_before(tmp_path: Path) -> None:
    """The second run's way back is the state of the first, the first's what the plan says was."""
    fleet = fleet_of(tmp_path, ())
    first = roll(fleet)
    fleet.mtu = 4000
    second = roll(fleet)

    async def revert(name: str) -> Run:
        async with fleet.engine() as engine:
            return await engine.revert(name)

    assert outcomes(asyncio.run(revert(second.id))) == {"h0": "committed"}
    assert fleet.hosts["h0"].mtu == 9000
    asyncio.run(revert(first.id))
    assert fleet.hosts["h0"].mtu == 1500
    with pytest.raises(UsageError, match="knows 'nosuch'"):
        asyncio.run(revert("nosuch"))


def test_gates_of_a_host_run_before_its_confirm(tmp_path: Path) -> None:
    """A gate that fails has the host put back, and says why."""
    fleet = fleet_of(tmp_path, (), ())
    fleet.settings["gates"] = ["ping_guests"]
    (tmp_path / "tasks" / "ping_guests.py").write_text(
        "async def ping_guests(task):\n"
        "    if task.host.name == 'h1':\n"
        "        raise RuntimeError('guest web-1 does not answer')\n"
    )
    run = roll(fleet)
    assert outcomes(run) == {"h0": "committed", "h1": "reverted"}
    assert run.hosts["h1"].message == "gate ping_guests failed: guest web-1 does not answer"
    assert fleet.hosts["h1"].mtu == 1500
    assert [(event.gate, event.host) for event in fleet.happened(GateFailed)] == [
        ("ping_guests", "h1")
    ]


def test_a_fleet_gate_stops_the_next_wave(tmp_path: Path) -> None:
    """A gate that fails after a wave leaves what is committed and begins no further wave."""
    fleet = fleet_of(tmp_path, (), ())
    (tmp_path / "tasks" / "errors_low.py").write_text(
        "def errors_low(task):\n    raise RuntimeError('5% of requests fail')\n"
    )
    run = roll(fleet, fleet_gates=("errors_low",))
    assert outcomes(run) == {"h0": "committed", "h1": "not started"}
    assert "5% of requests fail" in run.stopped


def test_a_soak_sees_a_host_that_drifts_after_its_confirm(tmp_path: Path) -> None:
    """After the soak the wave is audited; drift stops the rollout."""
    fleet = fleet_of(tmp_path, (), ())

    def drift(event: Any) -> None:
        fleet.events.append(event)
        if isinstance(event, HostEnded):
            fleet.hosts["h0"].mtu = 1400

    async def go() -> Run:
        async with fleet.engine() as engine:
            engine.emit = engine.shared.emit = drift
            return await engine.rollout(ALL, RolloutOptions(soak=0.05))

    run = asyncio.run(go())
    assert outcomes(run) == {"h0": "committed", "h1": "not started"}
    assert run.stopped == "the soak found h0: has drifted since its confirm"


def test_drain_runs_before_a_change_guests_must_leave_for(tmp_path: Path) -> None:
    """The operator's drain task runs, the host is planned again, and what is done is the same."""
    fleet = fleet_of(tmp_path, ("guests",))
    fleet.settings["drain"] = "evacuate"
    (tmp_path / "tasks" / "evacuate.py").write_text(
        "async def evacuate(task):\n"
        "    part = task.host.connections['fleet']\n"
        "    part.shared.dial.hosts[task.host.name].ways.discard('guests')\n"
    )
    assert outcomes(roll(fleet, allow=("drain",))) == {"h0": "committed"}
    assert fleet.hosts["h0"].calls.count("plan") == 3


def test_drain_does_not_run_for_what_is_not_allowed(tmp_path: Path) -> None:
    """Where nobody allowed impact drain, no guest is moved: the plan is refused first."""
    fleet = fleet_of(tmp_path, ("guests",))
    fleet.settings["drain"] = "evacuate"
    (tmp_path / "tasks" / "evacuate.py").write_text(
        "from pathlib import Path\n"
        f"def evacuate(task):\n    Path({str(tmp_path / 'ran')!r}).touch()\n"
    )
    run = roll(fleet)
    assert outcomes(run) == {"h0": "refused"}
    assert "evacuate was not run" in run.hosts["h0"].message
    assert "--allow drain" in run.hosts["h0"].problems[0].remedy
    assert not (tmp_path / "ran").exists()
    assert "arm" not in fleet.hosts["h0"].calls


def test_drain_that_does_not_end_fails_in_time(tmp_path: Path) -> None:
    """A drain task has its time limit; a host whose guests do not leave is not changed."""
    fleet = fleet_of(tmp_path, ("guests",))
    fleet.settings.update({"drain": "evacuate", "drain-timeout": 0.2})
    (tmp_path / "tasks" / "evacuate.py").write_text(
        "import asyncio\n\nasync def evacuate(task):\n    await asyncio.Event().wait()\n"
    )
    run = roll(fleet, allow=("drain",))
    assert outcomes(run) == {"h0": "failed"}
    assert "no end within" in run.hosts["h0"].message
    assert "arm" not in fleet.hosts["h0"].calls


def test_a_reviewed_plan_that_no_longer_holds_is_refused(tmp_path: Path) -> None:
    """A host that moved since the review is refused as stale; the others go on."""
    fleet = fleet_of(tmp_path, (), ())

    async def go() -> Run:
        async with fleet.engine() as engine:
            plans = await engine.plan(ALL)
            fleet.hosts["h0"].mtu = 1400
            return await engine.rollout(ALL, RolloutOptions(max_failures=1), plans)

    run = asyncio.run(go())
    assert outcomes(run) == {"h0": "refused", "h1": "committed"}
    assert run.hosts["h0"].message.startswith("stale plan")
    assert fleet.hosts["h0"].mtu == 1400


def test_a_host_held_by_another_controller_is_refused_with_its_owner(tmp_path: Path) -> None:
    """The refusal says who holds the host, for how long, and until when."""
    fleet = fleet_of(tmp_path, ())
    host = fleet.hosts["h0"]
    host.deadline = time.monotonic() + 60
    host.transactions["other"] = {
        "transaction": "other",
        "state": "APPLIED",
        "owner": "ann@desk",
        "age": 42.0,
    }
    run = roll(fleet)
    assert outcomes(run) == {"h0": "refused"}
    assert "ann@desk holds it for 42" in run.hosts["h0"].message


def test_the_record_tells_of_the_run(tmp_path: Path) -> None:
    """Plans, outcomes, waves, phases and confirms are in the record, found by a beginning."""
    fleet = fleet_of(tmp_path, (), ("break",))
    run = roll(fleet)
    past = reader.run(tmp_path, run.id[:12])
    assert (past.id, past.kind, past.stopped) == (run.id, "rollout", run.stopped)
    assert past.ended is not None
    assert past.outcomes == {"committed": 1, "reverted": 1}
    host = past.hosts["h0"]
    assert (host.outcome, host.wave, host.changes, host.transaction) == ("committed", 1, 1, run.id)
    assert host.plan is not None
    assert host.plan["changes"][0]["after"] == 9000
    names = [name for name, _, _ in host.phases]
    assert names[-3:] == ["arm", "apply", "confirm"]
    assert [(address, state) for address, state, _ in host.confirms] == [("", "COMMITTED")]


def test_a_thousand_hosts_of_which_a_hundred_hang(tmp_path: Path) -> None:
    """Hosts that hang cost their own row: all others are through well within one deadline each."""
    fleet = fleet_of(tmp_path, *[("hang",) if n % 10 == 0 else () for n in range(1000)])
    began = time.monotonic()
    run = roll(fleet, canary=5, wave="50%")
    found = list(outcomes(run).values())
    assert (found.count("committed"), found.count("unreachable")) == (900, 100)
    # One after the other, the hundred would take minutes.
    assert time.monotonic() - began < 60
    assert not run.stopped
    assert not fleet.happened(Stopping)
