"""What was learnt from each host that was only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.host.change import Plan
from fleet.rollout.outcome import Trouble


@dataclass(frozen=True)
class HostPlan:
    """One host's plan, or why there is none: exactly one of ``plan`` and ``trouble`` is set.

    ``state_digest`` names the state it was made for; ``pending`` is the transaction that holds
    the host (as its status gives it), None where there is none.
    """

    host: str
    plan: Plan | None = None
    trouble: Trouble | None = None
    state_digest: str = ""
    pending: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class HostAudit:
    """One host's drift (a plan that nobody carries out), or why it could not be audited."""

    host: str
    plan: Plan | None = None
    trouble: Trouble | None = None
    pending: Mapping[str, Any] | None = None

    @property
    def drifted(self) -> bool:
        """Whether the host is not as intended."""
        return self.plan is not None and bool(self.plan.changes or self.plan.problems)


@dataclass(frozen=True)
class HostStatus:
    """One host's transactions as its helper reports them, or why it could not be asked."""

    host: str
    transactions: tuple[Mapping[str, Any], ...] = ()
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Observed:
    """One host's resources as an intent would write them, or why it could not be asked."""

    host: str
    resources: Mapping[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None
