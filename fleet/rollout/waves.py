"""Which hosts change together, and when it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.errors import UsageError
from fleet.rollout.outcome import NOT_STARTED, HostOutcome


def waves(hosts: Sequence[str], canary: int = 1, wave: str | None = None) -> list[tuple[str, ...]]:
    """Return hosts in waves, each host in exactly one, in the order given.

    ``canary`` hosts come first, where 0 makes the first wave as large as the others. ``wave`` is a
    number of hosts, or a share of all of them rounded up (``"20%"``); None takes the rest at once.
    """
    size = wave_size(wave, len(hosts))
    first = min(canary, len(hosts))
    found = [tuple(hosts[:first])] if first else []
    rest = hosts[first:]
    found += [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
    return found


def wave_size(wave: str | None, hosts: int) -> int:
    """Return how many hosts a wave has, at least one; raises UsageError."""
    if wave is None:
        return max(1, hosts)
    number, percent, after = str(wave).strip().partition("%")
    if after or not number.isascii() or not number.isdigit() or int(number) == 0:
        raise UsageError(f"{wave!r} is neither a number of hosts (10) nor a share of them (25%)")
    if not percent:
        return int(number)
    if int(number) > 100:
        raise UsageError(f"{wave!r} is more than all hosts")
    return max(1, math.ceil(hosts * int(number) / 100))


@dataclass
class Budget:
    """How many hosts of the waves may fail, over all waves; absolute, so it does not grow."""

    allowed: int = 0
    failed: list[str] = field(default_factory=list)

    def count(self, outcome: HostOutcome) -> bool:
        """Count a host's outcome; return whether the budget has been spent."""
        if not outcome.well and outcome.outcome != NOT_STARTED:
            self.failed.append(outcome.host)
        return self.spent

    @property
    def spent(self) -> bool:
        """Whether more hosts have failed than are allowed to."""
        return len(self.failed) > self.allowed

    def reason(self) -> str:
        """Return why the rollout stops, for the operator."""
        hosts = "host has" if len(self.failed) == 1 else "hosts have"
        return f"{len(self.failed)} {hosts} failed, --max-failures is {self.allowed}"
