"""The project's tasks: its own before the starter's, relative imports, errors with their place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import FleetError, UsageError
from fleet.nornir import STARTER, load_tasks
from fleet.rollout.options import RolloutOptions, Selection
from tests.unit.standin import Fleet


def test_the_starters_tasks_are_all_there(tmp_path: Path) -> None:
    """Each file of the starter has an async function of its name, with a docstring."""
    tasks = load_tasks(tmp_path)
    assert {"push", "plan", "arm", "apply", "confirm", "rollout_host"} <= set(tasks.names())
    for name in tasks.names():
        assert asyncio.iscoroutinefunction(tasks.find(name))
        assert tasks.find(name).__doc__


def test_tasks_are_short_and_without_logic() -> None:
    """A task is under 40 lines: what it does is the engine's."""
    for path in STARTER.glob("*.py"):
        assert len(path.read_text().splitlines()) < 40, path


def test_an_operators_task_replaces_the_starters_even_inside_it(tmp_path: Path) -> None:
    """rollout_host calls the project's gates, which may import its own helpers relatively."""
    fleet = Fleet(tmp_path, {"h0": ()})
    (tmp_path / "tasks" / "_words.py").write_text("WORD = 'closed'\n")
    (tmp_path / "tasks" / "gates.py").write_text(
        "from ._words import WORD\n\n"
        "async def gates(task):\n    raise RuntimeError(f'the gate is {WORD}')\n"
    )

    async def go() -> Any:
        async with fleet.engine() as engine:
            run = await engine.rollout(Selection(), RolloutOptions())
            return run.hosts["h0"]

    end = asyncio.run(go())
    assert (end.outcome, fleet.hosts["h0"].mtu) == ("reverted", 1500)
    assert "the gate is closed" in end.message
    assert "_words" not in load_tasks(tmp_path).names()


def test_two_projects_do_not_see_each_others_tasks(tmp_path: Path) -> None:
    """Each project has a package of its own."""
    for name in ("one", "two"):
        (tmp_path / name / "tasks").mkdir(parents=True)
        (tmp_path / name / "tasks" / "who.py").write_text(f"def who(task):\n    return {name!r}\n")
    one, two = load_tasks(tmp_path / "one"), load_tasks(tmp_path / "two")
    assert (one.who(None), two.who(None)) == ("one", "two")


def test_unknown_and_broken_tasks_are_usage_errors(tmp_path: Path) -> None:
    """A wrong name has the nearest right one; a broken file its line."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "broken.py").write_text("import os\nraise ValueError('no')\n")
    (tmp_path / "tasks" / "empty.py").write_text("")
    tasks = load_tasks(tmp_path)
    with pytest.raises(UsageError, match="did you mean apply"):
        tasks.find("aply")
    with pytest.raises(UsageError, match=r"broken\.py:2: ValueError: no"):
        tasks.find("broken")
    with pytest.raises(UsageError, match="has no function empty"):
        tasks.find("empty")
    with pytest.raises(UsageError):
        tasks.find("../../etc/passwd")


def test_fleet_run_runs_any_task_with_its_arguments(tmp_path: Path) -> None:
    """An operator's plain task runs in a thread, fleet's own find their host's part."""
    fleet = Fleet(tmp_path, {"h0": (), "h1": ()})
    (tmp_path / "tasks" / "hello.py").write_text(
        "def hello(task, word):\n    return f'{word} {task.host.name}'\n"
    )

    async def go() -> Any:
        async with fleet.engine() as engine:
            hello = await engine.run_task("hello", Selection(), word="hi")
            plan = await engine.run_task("plan", Selection(hosts=("h1",)))
            return hello, plan

    hello, plan = asyncio.run(go())
    assert [each[0].result for each in hello.values()] == ["hi h0", "hi h1"]
    assert len(plan["h1"][0].result.changes) == 1


def test_a_task_outside_of_fleet_says_how_to_run_it(tmp_path: Path) -> None:
    """Without a part in a run a task of fleet's fails with what to do."""
    from types import SimpleNamespace

    from fleet.rollout.part import part_of

    task: Any = SimpleNamespace(name="plan", host=SimpleNamespace(connections={}))
    with pytest.raises(FleetError, match="fleet run"):
        part_of(task)


def test_no_state_is_a_task_argument(tmp_path: Path) -> None:
    """States may hold secrets: no Nornir task of a rollout has parameters."""
    fleet = Fleet(tmp_path, {"h0": ()})
    (tmp_path / "tasks" / "spy.py").write_text(
        "async def spy(task):\n"
        "    parent = task\n"
        "    while parent is not None:\n"
        "        assert not parent.params\n"
        "        parent = parent.parent_task\n"
    )
    fleet.settings["gates"] = ["spy"]

    async def go() -> str:
        async with fleet.engine() as engine:
            run = await engine.rollout(Selection(), RolloutOptions())
            return run.hosts["h0"].outcome

    assert asyncio.run(go()) == "committed"


def test_a_script_of_ones_own_gets_nornir_over_the_project() -> None:
    """init_nornir's Nornir has the merged data, and runs async and plain tasks."""
    from fleet.nornir import init_nornir

    async def later(task: Any) -> str:
        return f"{task.host.name} {task.host['rack']}"

    def now(task: Any) -> str:
        return str(task.host.hostname)

    nornir = init_nornir(Path(__file__).parents[2])
    edge = nornir.filter(role="edge")
    assert [each[0].result for each in edge.run(later).values()] == ["hv-r3-2 3"]
    assert [each[0].result for each in edge.run(now).values()] == ["198.18.3.12"]
