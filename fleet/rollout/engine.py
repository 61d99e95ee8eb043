"""The engine: one loop, many hosts; what the command line calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fleet.plan_file import Reviewed
from fleet.rollout.events import Event
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run
from fleet.rollout.result import HostAudit, HostPlan, HostStatus, Observed

if TYPE_CHECKING:
    from nornir.core.task import AggregatedResult

    from fleet.intent import Project
    from fleet.nornir import Tasks


class Engine:
    """Plans, rolls out, audits and settles the hosts of a project; an async context manager.

        async with Engine(project, load_tasks(project.path), on_event=show) as engine:
            plans = await engine.plan(Selection(groups=("rack3",)))

    ``tasks`` is what ``fleet.nornir.load_tasks(path)`` returns. ``ssh_overrides`` maps hosts to
    {hostname, port, username, client_keys, known_hosts}, as ``Lab.ssh_overrides(host)`` gives
    them. ``on_event`` gets each of ``fleet.rollout.events``. ``concurrency`` is how many hosts are
    spoken to at once.
    """

    def __init__(
        self,
        project: Project,
        tasks: Tasks,
        ssh_overrides: Mapping[str, Mapping[str, Any]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        concurrency: int = 100,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Engine:
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    async def plan(self, selection: Selection) -> dict[str, HostPlan]:
        """Return what would change on each host; nothing is changed.

        Raises IntentError where some host's state cannot be made: no host is contacted then.
        """
        raise NotImplementedError

    async def rollout(
        self,
        selection: Selection,
        options: RolloutOptions,
        reviewed: Reviewed | Mapping[str, HostPlan] | None = None,
        resume: str = "",
    ) -> Run:
        """Roll out and return how every host ended; never raises for what a host does.

        ``reviewed`` (of ``fleet.plan_file.read``, or what ``plan`` returned) binds each host to
        the plan that was shown: another digest is refused as stale. ``resume`` names a run that
        was killed: hosts it committed are skipped, what it left in flight is settled first.

        SIGINT and SIGTERM are taken over meanwhile: the first begins no further host and settles
        what is in flight, the second returns at once; hosts still armed put themselves back.
        """
        raise NotImplementedError

    def stop(self, reason: str = "stopped by the operator") -> None:
        """Begin no further host; what is in flight is settled. What the first Ctrl-C does."""
        raise NotImplementedError

    async def audit(self, selection: Selection) -> dict[str, HostAudit]:
        """Return each host's drift. Raises IntentError as ``plan`` does."""
        raise NotImplementedError

    async def status(self, selection: Selection) -> dict[str, HostStatus]:
        """Return each host's transactions, those of hosts that failed included."""
        raise NotImplementedError

    async def observe(self, host: str, kinds: Sequence[str] = ()) -> Observed:
        """Return one host's network in the intent's words, ``{"sections": {...}}`` as the helper
        writes them; ``kinds`` empty is all of them."""
        raise NotImplementedError

    async def confirm(
        self, transaction: str, selection: Selection | None = None
    ) -> dict[str, HostOutcome]:
        """Confirm a transaction that waits, over new connections, on the hosts that have it.

        A transaction carries the name of its run, so it may wait on several hosts. Needs the
        nonce, which lies in a private file of the controller that armed it; raises UsageError
        where that is not here. Outcomes: committed, unknown (still waiting), reverted, …
        """
        raise NotImplementedError

    async def revert(
        self,
        target: str,
        selection: Selection | None = None,
        options: RolloutOptions | None = None,
    ) -> Run:
        """Put hosts back: those where ``target`` still waits at once, others by a rollout.

        ``target`` is a transaction or, what is the same, a run. Where it waits to be confirmed it
        is reverted by the host. Where it has been committed, the way back is a rollout of its own
        to the state before it, with its own waves, gates and confirms. Raises UsageError for a
        run that neither the record nor a host knows.
        """
        raise NotImplementedError

    async def run_task(
        self, name: str, selection: Selection, **arguments: Any
    ) -> AggregatedResult:
        """Run one of the project's tasks (``fleet run``) and return Nornir's result.

        Raises UsageError for a name that neither the project's tasks/ nor the starter's have.
        """
        raise NotImplementedError
