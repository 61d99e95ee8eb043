"""Progress of reads, by Nornir's own means: a processor that counts hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fleet.rollout.events import Event, HostRead

if TYPE_CHECKING:
    from nornir.core.inventory import Host
    from nornir.core.task import AggregatedResult, MultiResult, Task


class Counting:
    """Emits a HostRead for every host that is done; a plain task's host is done in a thread."""

    def __init__(self, total: int, emit: Callable[[Event], None]) -> None:
        self.total, self.done, self.emit = total, 0, emit
        self._lock = threading.Lock()

    def task_started(self, task: Task) -> None:
        """Nothing: the count begins with the first host."""

    def task_completed(self, task: Task, result: AggregatedResult) -> None:
        """Nothing: the last host has said it."""

    def task_instance_started(self, task: Task, host: Host) -> None:
        """Nothing: a host that begins is no progress."""

    def task_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """Count a host."""
        with self._lock:
            self.done += 1
            event = HostRead(host.name, result.failed, self.done, self.total)
        self.emit(event)

    def subtask_instance_started(self, task: Task, host: Host) -> None:
        """Nothing: subtasks are part of their host."""

    def subtask_instance_completed(self, task: Task, host: Host, result: MultiResult) -> None:
        """Nothing: subtasks are part of their host."""
