"""What the commands print and how they exit, on an engine that answers as tests say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest
import yaml
from nornir.core.inventory import Defaults, Group, Groups, Host, Hosts, Inventory, ParentGroups

from fleet.cli import changing, main, work
from fleet.host.change import Change, Plan, Problem
from fleet.progress import Progress
from fleet.rollout.events import GateFailed, HostEnded, HostPhase, HostRead, Note, WaveStarted
from fleet.rollout.outcome import HostOutcome, Run, Trouble
from fleet.rollout.result import HostAudit, HostPlan, HostStatus, Observed

CHANGED = Plan((Change(kind="ethernet", name="eno2", what="mtu", before=1500, after=9000),), "d1")
DOWN = Trouble("unreachable", "no answer from 198.18.3.12:22 within 10 s")


class Engine:
    """An engine that answers what a test says, and keeps what it was asked."""

    answers: dict[str, Any] = {}
    asked: list[tuple[Any, ...]] = []

    def __init__(
        self, project: Any, tasks: Any, overrides: Any, on_event: Any = None, concurrency: int = 100
    ) -> None:
        self.on_event: Callable[[Any], None] = on_event or (lambda event: None)

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        async def answer(*words: Any, **more: Any) -> Any:
            type(self).asked.append((name, *words, more))
            for event in self.answers.get(f"{name} events", ()):
                self.on_event(event)
            found = self.answers[name]
            if isinstance(found, Exception):
                raise found
            return found

        return answer


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """The engine of a project of two hosts in rack3."""
    rack = Group("rack3")
    hosts = Hosts(
        {n: Host(n, groups=ParentGroups([rack]), defaults=Defaults()) for n in ("hv-1", "hv-2")}
    )
    inventory = Inventory(hosts, Groups({"rack3": rack}), Defaults())
    project = SimpleNamespace(path=Path("/nowhere"), inventory=inventory, config={})
    monkeypatch.setattr(work, "open_project", lambda named: project)
    monkeypatch.setattr("fleet.nornir.load_tasks", lambda path: None)
    monkeypatch.setattr("fleet.rollout.engine.Engine", Engine)
    Engine.answers, Engine.asked = {}, []
    return Engine


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run fleet in this process: exit code, stdout, stderr."""
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_plan_with_changes_is_exit_3(engine: type[Engine], capsys: Any) -> None:
    """Changes pending are exit 3; hosts with the same plan are folded."""
    engine.answers["plan"] = {h: HostPlan(h, CHANGED) for h in ("hv-1", "hv-2")}
    code, out, err = run(capsys, "plan", "--group", "rack3")
    assert (code, err) == (3, "")
    assert out.startswith("hv-1, hv-2: 1 change\n  ~ ethernet eno2\n      ~ mtu 1500 → 9000\n")


def test_plan_without_changes_is_exit_0(engine: type[Engine], capsys: Any) -> None:
    """Nothing to change is exit 0 and one line."""
    engine.answers["plan"] = {h: HostPlan(h, Plan()) for h in ("hv-1", "hv-2")}
    assert run(capsys, "plan") == (0, "2 hosts: 2 unchanged.\n", "")


def test_unreachable_host_is_exit_1(engine: type[Engine], capsys: Any) -> None:
    """A host that could not be asked makes exit 1, also where others would change."""
    engine.answers["plan"] = {
        "hv-1": HostPlan("hv-1", CHANGED),
        "hv-2": HostPlan("hv-2", None, DOWN),
    }
    code, out, _ = run(capsys, "plan")
    assert code == 1
    assert "hv-2: no plan\n  unreachable: no answer from 198.18.3.12:22 within 10 s" in out


def test_plan_shows_what_holds_a_host(engine: type[Engine], capsys: Any) -> None:
    """A pending transaction is named with its state and time."""
    pending = {"transaction": "t1", "state": "APPLIED", "seconds_left": 30, "owner": "ann@ops"}
    engine.answers["plan"] = {"hv-1": HostPlan("hv-1", Plan(), pending=pending)}
    _, out, _ = run(capsys, "plan", "--host", "hv-1")
    assert "hv-1: held by transaction t1 (APPLIED, 30 s left, ann@ops)" in out


@pytest.mark.parametrize("command", ["plan", "audit"])
def test_json_is_one_document(engine: type[Engine], capsys: Any, command: str) -> None:
    """--json prints one document on stdout with the exit code in it."""
    make: Any = HostPlan if command == "plan" else HostAudit
    engine.answers[command] = {
        "hv-1": make("hv-1", CHANGED),
        "hv-2": make("hv-2", None, DOWN),
    }
    code, out, _ = run(capsys, command, "--json")
    document = json.loads(out)
    assert list(document) == ["format", "command", "exit_code", "hosts"]
    assert document["exit_code"] == code == 1
    assert document["hosts"]["hv-2"]["error"]["kind"] == "unreachable"


def test_audit_clean_is_a_line_per_group(engine: type[Engine], capsys: Any) -> None:
    """An audit without drift prints one line per group and nothing else."""
    engine.answers["audit"] = {h: HostAudit(h, Plan()) for h in ("hv-1", "hv-2")}
    assert run(capsys, "audit") == (0, "rack3: 2 hosts, no drift\n", "")


def test_audit_with_drift_is_exit_3(engine: type[Engine], capsys: Any) -> None:
    """Drift is exit 3 with expected and found."""
    engine.answers["audit"] = {
        "hv-1": HostAudit("hv-1", CHANGED),
        "hv-2": HostAudit("hv-2", Plan()),
    }
    code, out, _ = run(capsys, "audit")
    assert code == 3
    assert "mtu  expected 9000, found 1500" in out


def rolled(engine: type[Engine], *outcomes: HostOutcome, stopped: str = "") -> None:
    engine.answers["plan"] = {h: HostPlan(h, CHANGED) for h in ("hv-1", "hv-2")}
    engine.answers["rollout"] = Run("r1", {o.host: o for o in outcomes}, stopped)


def test_rollout_without_a_terminal_wants_yes(engine: type[Engine], capsys: Any) -> None:
    """Where nobody can be asked, a rollout without --yes is exit 2 and contacts nobody."""
    code, _, err = run(capsys, "rollout")
    assert code == 2
    assert "--yes" in err
    assert engine.asked == []


def test_rollout_runs_what_was_shown(engine: type[Engine], capsys: Any) -> None:
    """The plans that were shown bind the rollout; the summary names each outcome."""
    rolled(
        engine, HostOutcome("hv-1", "committed", wave=1), HostOutcome("hv-2", "committed", wave=2)
    )
    engine.answers["rollout events"] = [
        WaveStarted(1, 2, ("hv-1",), "canary"),
        HostPhase("hv-1", "arm"),
        HostEnded("hv-1", "committed"),
        WaveStarted(2, 2, ("hv-2",)),
        HostEnded("hv-2", "committed"),
    ]
    code, out, err = run(
        capsys, "rollout", "--yes", "--canary", "1", "--wave", "50%", "--allow", "drain,veth/vm7"
    )
    assert code == 0
    assert "run r1: 2 hosts: 2 committed." in out
    assert err.splitlines()[:2] == ["wave 1 of 2 (canary): 1 host: hv-1", "hv-1  committed"]
    name, selection, options, reviewed, resume, _ = engine.asked[-1]
    assert (name, selection.hosts, resume) == ("rollout", ("hv-1", "hv-2"), "")
    assert (options.canary, options.wave, options.allow) == (1, "50%", ("drain", "veth/vm7"))
    assert reviewed == engine.answers["plan"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("reverted", 4),
        ("refused", 1),
        ("failed", 1),
        ("unreachable", 1),
        ("unknown", 5),
        ("revert failed", 5),
    ],
)
def test_rollout_exit_codes(engine: type[Engine], capsys: Any, outcome: str, code: int) -> None:
    """Each outcome has the exit code of the documentation, and its line."""
    rolled(engine, HostOutcome("hv-1", "committed"), HostOutcome("hv-2", outcome, "because"))
    got, out, _ = run(capsys, "rollout", "--yes")
    assert got == code
    assert f"hv-2: {outcome}: because" in out


def test_rollout_with_nothing_to_change_does_not_begin(engine: type[Engine], capsys: Any) -> None:
    """Where nothing would change there is no question and no run."""
    engine.answers["plan"] = {"hv-1": HostPlan("hv-1", Plan()), "hv-2": HostPlan("hv-2", Plan())}
    assert run(capsys, "rollout", "--yes")[0] == 0
    assert [asked[0] for asked in engine.asked] == ["plan"]


@pytest.mark.parametrize(
    ("typed", "code"), [("n\n", 3), ("\n", 3), ("", 3), ("y\n", 0), ("YES\n", 0)]
)
def test_rollout_asks(
    engine: type[Engine], capsys: Any, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """Anything but yes changes nothing, and leaves changes pending."""
    rolled(engine, HostOutcome("hv-1", "committed"), HostOutcome("hv-2", "committed"))
    stdin = SimpleNamespace(isatty=lambda: True, readline=lambda: typed)
    monkeypatch.setattr(changing.sys, "stdin", stdin)
    got, _, err = run(capsys, "rollout")
    assert got == code
    assert "Change 2 hosts? [y/N]" in err
    assert [asked[0] for asked in engine.asked] == ["plan", "rollout"][: 1 if code else 2]


def test_second_interrupt_names_armed_hosts(engine: type[Engine], capsys: Any) -> None:
    """A second Ctrl-C says which hosts are left armed and exits with 130."""
    left = HostOutcome("hv-1", "unknown", "left alone", transaction="r1")
    rolled(engine, left, HostOutcome("hv-2", "not started"), stopped="stopped by the operator")
    engine.answers["rollout events"] = [
        WaveStarted(1, 1, ("hv-1", "hv-2")),
        HostPhase("hv-1", "apply"),
        Note("stopping at once; hosts that are armed put themselves back"),
        HostEnded("hv-1", "unknown", "left alone"),
    ]
    code, out, err = run(capsys, "rollout", "--yes")
    assert code == 130
    assert "still armed, and putting themselves back at their deadline: hv-1\n" in err
    assert "fleet rollout --resume r1" in out


def test_the_engines_remark_on_a_second_interrupt_is_known(capsys: Any) -> None:
    """The remark that the engine makes when it stops at once is the one the program knows."""
    from fleet.rollout.rolling import abort

    said: list[Any] = []
    abort(SimpleNamespace(emit=said.append), {})
    with Progress() as progress:
        progress.show(said[0])
    assert progress.at_once


def test_a_failed_gate_is_told(engine: type[Engine], capsys: Any) -> None:
    """A gate that fails is named with its reason as it happens."""
    rolled(engine, HostOutcome("hv-1", "reverted"))
    engine.answers["rollout events"] = [GateFailed("gateway", "no answer\x1b[2J", "hv-1")]
    _, _, err = run(capsys, "rollout", "--yes")
    assert "gate gateway failed on hv-1: no answer\\x1b[2J" in err


def test_a_saved_plan_is_run_as_reviewed(engine: type[Engine], capsys: Any, tmp_path: Path) -> None:
    """plan --out writes what rollout --plan runs, on the plan's hosts, without planning again."""
    rolled(engine, HostOutcome("hv-1", "committed"))
    engine.answers["plan"] = {"hv-1": HostPlan("hv-1", CHANGED, state_digest="s")}
    file = tmp_path / "rack3.plan"
    assert run(capsys, "plan", "--host", "hv-1", "--out", str(file))[0] == 3
    engine.asked.clear()
    assert run(capsys, "rollout", "--plan", str(file), "--yes")[0] == 0
    assert [asked[0] for asked in engine.asked] == ["rollout"]
    assert engine.asked[0][1].hosts == ("hv-1",)
    assert engine.asked[0][3].hosts["hv-1"].plan == CHANGED
    code, _, err = run(capsys, "rollout", "--plan", str(file), "--host", "hv-2", "--yes")
    assert code == 2
    assert "the plan has no hv-2" in err


def test_status_says_what_is_armed(engine: type[Engine], capsys: Any) -> None:
    """A change in flight is exit 3, a failed revert 5, calm 0."""
    entry = {"transaction": "t1", "state": "APPLIED", "seconds_left": 30}
    engine.answers["status"] = {"hv-1": HostStatus("hv-1", (entry,)), "hv-2": HostStatus("hv-2")}
    code, out, _ = run(capsys, "status")
    assert code == 3
    assert "fleet confirm t1" in out
    engine.answers["status"] = {"hv-1": HostStatus("hv-1", ({**entry, "state": "REVERT_FAILED"},))}
    assert run(capsys, "status", "--json")[0] == 5
    engine.answers["status"] = {"hv-1": HostStatus("hv-1")}
    assert run(capsys, "status")[0] == 0


def test_confirm_prints_each_host(engine: type[Engine], capsys: Any) -> None:
    """Confirm says how each host that has the transaction ended."""
    engine.answers["confirm"] = {"hv-1": HostOutcome("hv-1", "committed")}
    assert run(capsys, "confirm", "t1") == (0, "hv-1: committed\n", "")


def test_revert_that_was_asked_for_is_exit_0(engine: type[Engine], capsys: Any) -> None:
    """Hosts put back because the operator said so are done; a way back that failed is not."""
    back = HostOutcome("hv-1", "reverted", transaction="t1")
    engine.answers["revert"] = Run("r2", {"hv-1": back})
    assert run(capsys, "revert", "t1", "--yes")[0] == 0
    engine.answers["revert"] = Run(
        "r2", {"hv-1": HostOutcome("hv-1", "reverted", transaction="r2")}
    )
    assert run(capsys, "revert", "t1", "--yes")[0] == 4


def test_observe_prints_yaml_that_is_safe(engine: type[Engine], capsys: Any) -> None:
    """What a host has is YAML; what a host sent cannot reach the terminal raw."""
    bridge = {"mtu": 9000.0, "alias": "x\x1b[2J\u202e", "ports": {}}
    found = {"bridge": {"br0": bridge}, "sysctl": {"net.ipv4.ip_forward": {"value": "1"}}}
    engine.answers["observe"] = Observed("hv-1", found)
    code, out, _ = run(capsys, "observe", "hv-1")
    assert code == 0
    assert yaml.safe_load(out)["network"]["bridges"]["br0"]["mtu"] == 9000
    assert yaml.safe_load(out)["sysctl"] == {"net.ipv4.ip_forward": "1"}
    assert not set(out) & set("\x1b\u202e")
    rule = {"family": "ipv4", "from": "10.0.0.0/24", "table": 100}
    found = {
        "bridge": {"br0": {"mtu": 1500}},
        "openvswitch": {},
        "rule": {"from 10.0.0.0/24": rule},
    }
    engine.answers["observe"] = Observed("hv-1", found)
    policy = [{"from": "10.0.0.0/24", "table": 100}]
    shown = yaml.safe_load(run(capsys, "observe", "hv-1")[1])
    assert shown == {"network": {"bridges": {"br0": {"mtu": 1500, "routing-policy": policy}}}}
    engine.answers["observe"] = Observed("hv-1", {"rule": found["rule"]})
    assert yaml.safe_load(run(capsys, "observe", "hv-1")[1]) == {
        "network": {"routing-policy": [rule]}
    }
    engine.answers["observe"] = Observed("hv-1", {}, DOWN)
    assert run(capsys, "observe", "hv-1")[0] == 1


def test_a_bar_counts_hosts_that_were_read(engine: type[Engine], capsys: Any) -> None:
    """Events of reading move the bar and print nothing when it is quick."""
    engine.answers["audit"] = {"hv-1": HostAudit("hv-1", Plan())}
    engine.answers["audit events"] = [HostRead("hv-1", False, 1, 1)]
    assert run(capsys, "audit", "--host", "hv-1")[2] == ""


def test_run_passes_arguments_and_prints_results(engine: type[Engine], capsys: Any) -> None:
    """A task gets typed arguments after --, and each host's result is one line."""
    from nornir.core.task import AggregatedResult, MultiResult, Result

    result = AggregatedResult("facts")
    good, bad = MultiResult("facts"), MultiResult("facts")
    good.append(Result(host=None, result="kernel 6.1\x07"))
    bad.append(Result(host=None, failed=True, exception=ValueError("no such\x1b[31m thing")))
    result["hv-1"], result["hv-2"] = good, bad
    engine.answers["run_task"] = result
    code, out, _ = run(capsys, "run", "facts", "--", "wait=300", "force=false", "name=x")
    assert code == 1
    assert out.splitlines() == [
        "hv-1: kernel 6.1\\x07",
        "hv-2: failed: no such\\x1b[31m thing",
    ]
    assert engine.asked[-1][-1] == {"wait": 300, "force": False, "name": "x"}
    assert run(capsys, "run", "facts", "--", "wait")[0] == 2
    code, out, _ = run(capsys, "run", "facts", "-v")
    assert code == 1
    assert "kernel 6.1\\x07" in out
    assert "* hv-2 ** changed" in out
    assert "\x1b" not in out


def test_problem_of_a_plan_is_exit_3(engine: type[Engine], capsys: Any) -> None:
    """A plan that cannot be carried out is not as intended, and says what to do."""
    problem = Problem("ethernet/eno9", "", "a NIC named eno9", "none", "correct its match")
    engine.answers["plan"] = {"hv-1": HostPlan("hv-1", Plan(problems=(problem,)))}
    code, out, _ = run(capsys, "plan", "--host", "hv-1")
    assert code == 3
    assert "do       correct its match" in out


@pytest.mark.parametrize("words", [("--host", "hv-1"), ("--plan", "some.plan")])
def test_resume_takes_no_other_hosts_and_plans(
    engine: type[Engine], capsys: Any, words: tuple[str, ...]
) -> None:
    """Selectors and plan files with --resume are exit 2, and no host is contacted."""
    code, _, err = run(capsys, "rollout", "--yes", "--resume", "r1", *words)
    assert code == 2
    assert "every host of its run" in err
    assert engine.asked == []


def test_confirm_and_revert_as_json(engine: type[Engine], capsys: Any) -> None:
    """--json of confirm and revert is one document with each host's outcome and the exit code."""
    end = HostOutcome("hv-1", "committed", "", (), 1, 3, 2.0, "t1")
    engine.answers["confirm"] = {"hv-1": end}
    code, out, _ = run(capsys, "confirm", "t1", "--json")
    said = json.loads(out)
    assert (code, said["command"], said["exit_code"]) == (0, "confirm", 0)
    assert said["hosts"]["hv-1"]["outcome"] == "committed"
    back = HostOutcome("hv-1", "reverted", "by the operator", (), 1, 3, 2.0, "t1")
    engine.answers["revert"] = Run("t1", {"hv-1": back})
    code, out, _ = run(capsys, "revert", "t1", "--yes", "--json", "--allow", "foreign,drain")
    said = json.loads(out)
    assert (code, said["command"], said["exit_code"], said["run"]) == (0, "revert", 0, "t1")
    assert said["hosts"]["hv-1"]["outcome"] == "reverted"
    assert engine.asked[-1][3].allow == ("foreign", "drain")
