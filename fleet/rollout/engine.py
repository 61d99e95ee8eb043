"""The engine: one loop, many hosts; what the command line calls.

What only changing hosts needs is imported where it is used: an audit starts without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fleet.errors import IntentError, UsageError
from fleet.record.place import record_url, state_directory
from fleet.rollout import controller
from fleet.rollout.dial import Dial, SSHDial, override
from fleet.rollout.events import Event
from fleet.rollout.nonce import Nonces
from fleet.rollout.options import RolloutOptions, Selection
from fleet.rollout.outcome import HostOutcome, Run, Trouble
from fleet.rollout.part import KEY, Part, Shared, Target
from fleet.rollout.processor import Counting
from fleet.rollout.result import HostAudit, HostPlan, HostStatus, Observed
from fleet.rollout.trouble import root, trouble_of

if TYPE_CHECKING:
    from nornir.core import Nornir
    from nornir.core.inventory import Inventory
    from nornir.core.task import AggregatedResult, MultiResult

    from fleet.intent import Project
    from fleet.nornir import Tasks
    from fleet.plan_file import Reviewed
    from fleet.record.writer import Record
    from fleet.rollout.transactions import Standing

    Plans = Reviewed | Mapping[str, HostPlan]


class Engine:
    """Plans, rolls out, audits and settles the hosts of a project; an async context manager.

        async with Engine(project, load_tasks(project.path), on_event=show) as engine:
            plans = await engine.plan(Selection(groups=("rack3",)))

    ``tasks`` is what ``fleet.nornir.load_tasks(path)`` returns. ``ssh_overrides`` maps hosts to
    {hostname, port, username, client_keys, known_hosts}, as ``Lab.ssh_overrides(host)`` gives
    them. ``on_event`` gets each of ``fleet.rollout.events``. ``concurrency`` is how many hosts are
    spoken to at once. ``dial`` and ``render`` (host to state, as plain data) stand in for SSH and
    the intent.
    """

    def __init__(
        self,
        project: Project,
        tasks: Tasks,
        ssh_overrides: Mapping[str, Mapping[str, Any]] | None = None,
        on_event: Callable[[Event], None] | None = None,
        concurrency: int = 100,
        dial: Dial | None = None,
        render: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self.project, self.tasks, self.concurrency = project, tasks, concurrency
        self.path = Path(project.path)
        self.overrides = dict(ssh_overrides or {})
        self.emit: Callable[[Event], None] = on_event or (lambda event: None)
        self.render = render or self._render
        self.nornir: Nornir
        self.loop: asyncio.AbstractEventLoop
        self.shared: Shared
        self._dial = dial
        self._record: Record | None = None

    async def __aenter__(self) -> Engine:
        from fleet.nornir import nornir_of

        loop = asyncio.get_running_loop()
        self.loop = loop
        self.nornir = nornir_of(self.project.inventory, self.concurrency, loop)
        for name, said in self.overrides.items():
            if name in self.inventory.hosts:
                override(self.inventory.hosts[name], said)
        nonces = Nonces(state_directory(self.path, make=False) / "nonces")
        dial = self._dial or SSHDial(self.nornir.config)
        self.shared = Shared(dial, nonces, self.tasks, self.emit, controller.owner())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host in self.inventory.hosts.values():
            host.connections.pop(KEY, None)
            host.close_connections()
        if self._record is not None:
            await self._record.close()

    @property
    def inventory(self) -> Inventory:
        """The hosts, whether selected or not."""
        inventory: Inventory = self.project.inventory
        return inventory

    def record(self) -> Record:
        """Return the record, its thread started: call it once hosts are being waited for."""
        if self._record is None:
            from fleet.record.writer import Record

            state_directory(self.path)
            self._record = Record(record_url(self.path, self.config))
            self._record.start()
            self.shared.nonces = Nonces(state_directory(self.path) / "nonces")
        return self._record

    @property
    def config(self) -> Mapping[str, Any]:
        """The ``fleet:`` section of the inventory's defaults."""
        found = self.inventory.defaults.data.get(KEY)
        return found if isinstance(found, Mapping) else {}

    async def plan(self, selection: Selection) -> dict[str, HostPlan]:
        """Return what would change on each host; nothing is changed.

        Raises IntentError where some host's state cannot be made: no host is contacted then.
        """
        names = selection.names(self.inventory)
        parts = self.parts(self.targets(names))
        return await self.plans(parts)

    async def plans(self, parts: Mapping[str, Part]) -> dict[str, HostPlan]:
        """Plan parts that are there already."""
        results = await self.read("plan", list(parts))
        return {
            name: HostPlan(
                name,
                None if name in results.troubles else part.plan,
                results.troubles.get(name),
                part.target.digest if part.target else "",
                part.pending,
            )
            for name, part in parts.items()
        }

    async def rollout(
        self,
        selection: Selection,
        options: RolloutOptions,
        reviewed: Plans | None = None,
        resume: str = "",
        given: Mapping[str, Any] | None = None,
    ) -> Run:
        """Roll out and return how every host ended; never raises for what a host does.

        ``reviewed`` (of ``fleet.plan_file.read``, or what ``plan`` returned) binds each host to
        the plan that was shown: another digest is refused as stale. ``resume`` names a run that
        was killed: its hosts, options and reviewed plans are taken from the record, hosts it
        committed are skipped, what it left in flight is settled first; ``given`` are the options
        that are other ones from now on, by name.

        SIGINT and SIGTERM are taken over meanwhile: the first begins no further host and settles
        what is in flight, the second returns at once; hosts still armed put themselves back.
        """
        from fleet.rollout import again, rolling

        if resume:
            return await again.resume(self, resume, given or {})
        return await rolling.rollout(self, selection, options, reviewed)

    def stop(self, reason: str = "stopped by the operator") -> None:
        """Begin no further host; what is in flight is settled. What the first Ctrl-C does."""
        from fleet.rollout import rolling

        rolling.stop(self, reason)

    async def audit(self, selection: Selection) -> dict[str, HostAudit]:
        """Return each host's drift. Raises IntentError as ``plan`` does."""
        names = selection.names(self.inventory)
        return await self.audits(self.parts(self.targets(names)))

    async def audits(self, parts: Mapping[str, Part]) -> dict[str, HostAudit]:
        """Audit parts that are there already."""
        results = await self.read("audit", list(parts))
        return {
            name: HostAudit(
                name,
                None if name in results.troubles else part.plan,
                results.troubles.get(name),
                part.pending,
            )
            for name, part in parts.items()
        }

    async def status(self, selection: Selection) -> dict[str, HostStatus]:
        """Return each host's transactions, those of hosts that failed included."""
        return await self.statuses(selection.names(self.inventory))

    async def statuses(self, names: Sequence[str]) -> dict[str, HostStatus]:
        """Ask hosts by name for their transactions."""
        self.parts(dict.fromkeys(names))
        results = await self.read("status", names)
        return {
            name: HostStatus(
                name, tuple(results.values.get(name) or ()), results.troubles.get(name)
            )
            for name in names
        }

    async def observe(self, host: str, kinds: Sequence[str] = ()) -> Observed:
        """Return one host's network in the intent's words: form by name, by kind.

        ``kinds`` empty is all of them. Raises UsageError for a host that is none.
        """
        names = Selection(hosts=(host,)).names(self.inventory)
        self.parts(dict.fromkeys(names))
        results = await self.read("observe", names, kinds=tuple(kinds))
        return Observed(host, results.values.get(host) or {}, results.troubles.get(host))

    async def observe_lean(self, ignore: Mapping[str, Sequence[str]]) -> dict[str, Observed]:
        """Return hosts as lean intent, each with its spaces (``planning.lean``) as resources.

        ``ignore`` says for each host which names are somebody else's.
        """
        names = Selection(hosts=tuple(ignore)).names(self.inventory)
        self.parts(dict.fromkeys(names))
        lean = {name: tuple(patterns) for name, patterns in ignore.items()}
        results = await self.read("observe", names, lean=lean)
        return {
            name: Observed(name, results.values.get(name) or {}, results.troubles.get(name))
            for name in names
        }

    async def confirm(
        self, transaction: str, selection: Selection | None = None
    ) -> dict[str, HostOutcome]:
        """Confirm a transaction that waits, over new connections, on the hosts that have it.

        A transaction carries the name of its run, so it may wait on several hosts. Needs the
        nonce, which lies in a private file of the controller that armed it; raises UsageError
        where no host of the selection waits for it. Outcomes: committed, reverted, unknown, …
        """
        from fleet.rollout import transactions

        return await transactions.confirm(self, transaction, selection)

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
        from fleet.rollout import transactions

        return await transactions.revert(self, target, selection, options)

    async def standing(self, target: str, selection: Selection | None = None) -> Standing:
        """Return where hosts stand with what ``revert`` would put back; changes nothing."""
        from fleet.rollout import transactions

        return await transactions.standing(self, target, selection)

    async def settle_waiting(self, agreed: Mapping[str, str], keep: bool) -> dict[str, HostOutcome]:
        """Confirm (``keep``) or revert what waits: ``agreed`` is a transaction by host.

        A host that meanwhile has another transaction, or none, is left as it is.
        """
        from fleet.rollout import transactions

        return await transactions.settle_waiting(self, agreed, keep)

    async def run_task(self, name: str, selection: Selection, **arguments: Any) -> AggregatedResult:
        """Run one of the project's tasks (``fleet run``) and return Nornir's result.

        Raises UsageError for a name that neither the project's tasks/ nor the starter's have, or
        arguments that it does not take, and IntentError where a host's state cannot be made.
        """
        from inspect import signature

        try:
            signature(self.tasks.find(name)).bind(None, **arguments)
        except TypeError as error:
            raise UsageError(f"{name}: {error}") from error
        names = selection.names(self.inventory)
        self.parts(self.targets(names))
        self.shared.run = self.shared.transaction = controller.new_run()
        return await self.run(name, names, counting=True, **arguments)

    def targets(self, names: Iterable[str]) -> dict[str, Target | None]:
        """Return what each host should become; raises one IntentError with all there is."""
        found: dict[str, Target | None] = {}
        errors: list[IntentError] = []
        for name in names:
            try:
                found[name] = Target(self.render(name))
            except IntentError as error:
                errors.append(error)
        if errors:
            first, *rest = errors
            first.others = (*first.others, *(each for each in rest if str(each) != str(first)))
            raise first
        return found

    def _render(self, name: str) -> Mapping[str, Any]:
        from fleet.intent import render_state

        state: Mapping[str, Any] = render_state(self.project, name).wire()
        return state

    def parts(
        self, targets: Mapping[str, Target | None], shared: Shared | None = None
    ) -> dict[str, Part]:
        """Give each host a new part, where its tasks find it."""
        made: dict[str, Part] = {}
        for name, target in targets.items():
            host = self.inventory.hosts[name]
            made[name] = Part(host, shared or self.shared, target)
            made[name].place()
        return made

    async def run(
        self,
        task: str | Callable[..., Any],
        hosts: Sequence[str],
        counting: bool = False,
        **arguments: Any,
    ) -> AggregatedResult:
        """Run a task, by its name or itself, on hosts, on those that Nornir calls failed too."""
        wanted = frozenset(hosts)
        nornir = self.nornir.filter(filter_func=lambda host: host.name in wanted)
        if counting:
            nornir = nornir.with_processors([Counting(len(wanted), self._from_anywhere)])
        function = self.tasks.find(task) if isinstance(task, str) else task
        # Nornir's run blocks; the runner hands the hosts back to this loop.
        return await asyncio.to_thread(
            nornir.run, function, on_failed=True, raise_on_error=False, **arguments
        )

    def _from_anywhere(self, event: Event) -> None:
        self.loop.call_soon_threadsafe(self.emit, event)

    async def read(self, name: str, hosts: Sequence[str], **arguments: Any) -> Read:
        """Run a task that changes nothing; return what it gave and what went wrong, by host."""
        results = await self.run(name, hosts, counting=True, **arguments)
        read = Read()
        for host in hosts:
            found = results.get(host)
            if found is None or found.failed:
                read.troubles[host] = _trouble(found)
            else:
                read.values[host] = found[0].result
        return read


class Read:
    """What reading hosts gave: values by host, and troubles by host."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.troubles: dict[str, Trouble] = {}


def _trouble(results: MultiResult | None) -> Trouble:
    if results is None:
        return Trouble("failed", "its task did not run")
    for result in results:
        if result.exception is not None:
            return trouble_of(root(result.exception))
    return Trouble("failed", str(results[0].result) if results else "its task gave no result")
