"""A rollout from its first wave to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleet.rollout import outcome as words
from fleet.rollout.events import GateFailed, GatePassed, Soaking, Stopping, WaveEnded, WaveStarted
from fleet.rollout.gates import AFTER, why
from fleet.rollout.outcome import HostOutcome
from fleet.rollout.part import Part
from fleet.rollout.settle import settle
from fleet.rollout.trouble import root
from fleet.rollout.waves import Budget, waves

if TYPE_CHECKING:
    from nornir.core.task import AggregatedResult

    from fleet.rollout.part import Shared
    from fleet.rollout.result import HostAudit

#: Seconds between two looks at a wave that soaks.
LOOK = 15.0


@dataclass
class Doing:
    """What a course needs of its engine: running a task on hosts, and auditing them."""

    run: Callable[[str, Sequence[str]], Awaitable[AggregatedResult]]
    audit: Callable[[Sequence[str]], Awaitable[Mapping[str, HostAudit]]]


@dataclass
class Course:
    """The waves of a rollout. ``parts`` are its hosts by name, in order, all planned."""

    shared: Shared
    parts: dict[str, Part]
    doing: Doing
    budget: Budget = field(default_factory=Budget)
    #: The run was stopped by what happened to hosts, not by the operator.
    failed: bool = False

    async def go(self) -> None:
        """Go through the waves until they are through or something stops them."""
        changing = [name for name, part in self.parts.items() if part.outcome is None]
        options, shared = self.shared.options, self.shared
        shared.ended = self._count
        groups = waves(changing, options.canary, options.wave)
        if shared.record is not None:
            await shared.record.waves(shared.run, groups)
        for number, group in enumerate(groups, 1):
            if shared.stopping:
                break
            for name in group:
                self.parts[name].wave = number
            canary = "canary" if number == 1 and options.canary and len(groups) > 1 else ""
            shared.emit(WaveStarted(number, len(groups), group, canary))
            await self._wave(group)
            shared.emit(WaveEnded(number, len(groups), len(self.budget.failed)))
            if not shared.stopping:
                await self._after(number, group)
        await self._not_started(changing)

    def stop(self, reason: str) -> None:
        """Begin no further host, because of what happened to others."""
        self.failed = True
        if not self.shared.stopping:
            self.shared.stopping = reason
            self.shared.emit(Stopping(reason))

    def _count(self, end: HostOutcome) -> None:
        if self.budget.count(end) and not self.shared.stopping:
            self.stop(self.budget.reason())

    async def _wave(self, group: Sequence[str]) -> None:
        results = await self.doing.run("rollout_host", group)
        for name in group:
            part = self.parts[name]
            if part.outcome is None:
                # The task never ran, or an operator's own does not settle: the host decides.
                async with part.settling():
                    await settle(part, _failure(results, name))
                    if part.outcome is None:
                        part.end(words.UNKNOWN, "its task ended without an outcome")

    async def _after(self, number: int, group: Sequence[str]) -> None:
        committed = [name for name in group if self._is(name, words.COMMITTED)]
        if not committed:
            return
        if self.shared.options.soak:
            await self._soak(number, committed)
        for gate in self.shared.options.fleet_gates:
            if self.shared.stopping:
                return
            await self._fleet_gate(gate, committed)

    def _is(self, name: str, outcome: str) -> bool:
        end = self.parts[name].outcome
        return end is not None and end.outcome == outcome

    async def _soak(self, number: int, hosts: Sequence[str]) -> None:
        """Wait, look at the hosts every now and then, and look at them in the end."""
        seconds = self.shared.options.soak
        end, look = time.monotonic() + seconds, time.monotonic() + LOOK
        while (left := end - time.monotonic()) > 0 and not self.shared.stopping:
            self.shared.emit(Soaking(number, seconds, left))
            await asyncio.sleep(min(1.0, left))
            if time.monotonic() > look and end - time.monotonic() > LOOK / 2:
                await self._look(hosts)
                look = time.monotonic() + LOOK
        if not self.shared.stopping:
            await self._look(hosts)

    async def _look(self, hosts: Sequence[str]) -> None:
        audits = await self.doing.audit(hosts)
        bad = [
            f"{name}: {each.trouble.message if each.trouble else 'has drifted since its confirm'}"
            for name, each in audits.items()
            if each.trouble or each.drifted
        ]
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            self.shared.emit(GateFailed("soak", bad[0] + more))
            self.stop(f"the soak found {bad[0]}{more}")
        else:
            self.shared.emit(GatePassed("soak"))

    async def _fleet_gate(self, gate: str, hosts: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(AFTER):
                results = await self.doing.run(gate, hosts)
        except TimeoutError:
            reasons = [f"no end within {AFTER:.0f} seconds"]
        else:
            reasons = [f"{name}: {why(each)}" for name, each in results.items() if each.failed]
        if reasons:
            self.shared.emit(GateFailed(gate, reasons[0]))
            self.stop(f"gate {gate} failed after the wave: {reasons[0]}")
        else:
            self.shared.emit(GatePassed(gate))

    async def _not_started(self, names: Sequence[str]) -> None:
        for name in names:
            part = self.parts[name]
            if part.outcome is None:
                await part.conclude(words.NOT_STARTED, self.shared.stopping)


def _failure(results: Any, name: str) -> BaseException:
    found = results.get(name) if results else None
    first = found[0] if found else None
    inner = getattr(first, "exception", None)
    if inner is not None:
        return root(inner)
    return RuntimeError(str(getattr(first, "result", None) or "its task did not run"))
