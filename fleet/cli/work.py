"""What a command that speaks to hosts works with: the project, the hosts, the engine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fleet.cli.options import OneHost, Scope
from fleet.cli.project import open_lab, open_project
from fleet.cli.select import select
from fleet.errors import UsageError
from fleet.report.plan import problem_json, problem_lines
from fleet.report.text import Paint

if TYPE_CHECKING:
    from fleet.intent import Project
    from fleet.progress import Count
    from fleet.rollout.engine import Engine
    from fleet.rollout.events import Event
    from fleet.rollout.options import Selection
    from fleet.rollout.outcome import Trouble

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """A project and the hosts of it that a command is about."""

    project: Project
    hosts: tuple[str, ...]
    overrides: Mapping[str, Mapping[str, Any]]
    concurrency: int = 100

    @property
    def selection(self) -> Selection:
        """The hosts as the engine takes them."""
        from fleet.rollout.options import Selection

        return Selection(hosts=self.hosts)

    def engine(self, on_event: Callable[[Event], None] | None = None) -> Engine:
        """Return the engine for this work; an async context manager."""
        from fleet.nornir import load_tasks
        from fleet.rollout.engine import Engine

        tasks = load_tasks(self.project.path)
        return Engine(self.project, tasks, self.overrides, on_event, self.concurrency)


def work_of(scope: Scope, hosts: Iterable[str] = ()) -> Work:
    """Return the work of a scope; ``hosts``, where given, instead of its selectors."""
    project = open_project(scope.project)
    lab = open_lab(scope.project, scope.lab) if scope.lab else None
    chosen = tuple(hosts) or tuple(select(project.inventory, scope))
    if lab is not None and not hosts and not scope.narrowed:
        # A lab may hold only some of the inventory: every host then means every host of the lab.
        up = set(lab.hosts())
        chosen = tuple(host for host in chosen if host in up) or chosen
    overrides: dict[str, Mapping[str, Any]] = {}
    if lab is not None:
        # The lab's addresses mean its hosts only where its controller stands: nothing may leave it.
        lab.enter()
        overrides = {host: lab.ssh_overrides(host) for host in chosen}
    return Work(project, chosen, overrides, scope.concurrency)


def work_of_run(scope: Scope, run: str) -> Work:
    """Return the work on the hosts of a past run, where no selector says otherwise."""
    if scope.narrowed:
        return work_of(scope)
    from fleet.record.reader import run as past_run

    try:
        hosts = tuple(past_run(open_project(scope.project), run).hosts)
    except UsageError:
        # Another controller's run: whoever has the transaction will say so.
        hosts = ()
    return work_of(scope, hosts)


def work_on(how: OneHost, host: str) -> Work:
    """Return the work on one host that a command names."""
    return work_of(Scope(host=[host], lab=how.lab, project=how.project, verbose=how.verbose))


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own.

    What an operator's task prints goes to stderr: stdout is the command's, and may be JSON.
    """
    with contextlib.redirect_stdout(sys.stderr):
        return asyncio.run(work)


def counting(count: Count) -> Callable[[Event], None]:
    """Return what moves a bar for each host that was read."""
    from fleet.rollout.events import HostRead

    def listen(event: Event) -> None:
        if isinstance(event, HostRead):
            count.step(event.failed)

    return listen


def trouble_lines(trouble: Trouble) -> list[str]:
    """Return why a host could not be asked, as plain lines."""
    lines = [f"{trouble.kind}: {trouble.message}"]
    for problem in trouble.problems:
        lines += problem_lines(problem, Paint(False))
    return lines


def trouble_json(trouble: Trouble) -> dict[str, Any]:
    """Return why a host could not be asked, as plain data."""
    problems = [problem_json(problem) for problem in trouble.problems]
    return {"error": {"kind": trouble.kind, "message": trouble.message, "problems": problems}}
