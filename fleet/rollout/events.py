"""What a run says while it goes on, for whoever shows it. All are small and frozen.

``Engine(on_event=...)`` is called on the engine's loop with each; it must return at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunStarted:
    """A rollout began; ``hosts`` is how many were selected."""

    run: str
    hosts: int


@dataclass(frozen=True)
class HostPhase:
    """A host entered a phase (``connect``, ``push``, ``plan``, ``drain``, ``arm``, ``apply``,
    ``gates``, ``confirm``, ``settle``, ``revert``), or did a step of it: ``done`` of ``total``."""

    host: str
    phase: str
    detail: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class HostEnded:
    """A host has its outcome."""

    host: str
    outcome: str
    message: str = ""


@dataclass(frozen=True)
class HostRead:
    """A host was planned, audited, observed or asked for its status; the count is for a bar."""

    host: str
    failed: bool
    done: int
    total: int


@dataclass(frozen=True)
class WaveStarted:
    """A wave began: its number from 1, how many there are, ``name`` is ``canary`` for the first."""

    number: int
    total: int
    hosts: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class WaveEnded:
    """Every host of a wave has its outcome; ``failures`` so far, over all waves."""

    number: int
    total: int
    failures: int


@dataclass(frozen=True)
class Soaking:
    """The run waits after a wave and watches it; sent about once a second."""

    number: int
    seconds: float
    left: float


@dataclass(frozen=True)
class GatePassed:
    """A gate passed: on one host before its confirm, or (``host`` empty) after a wave."""

    gate: str
    host: str = ""


@dataclass(frozen=True)
class GateFailed:
    """A gate failed and why."""

    gate: str
    message: str
    host: str = ""


@dataclass(frozen=True)
class Stopping:
    """No further host is begun; what is in flight is settled."""

    reason: str


@dataclass(frozen=True)
class Note:
    """A remark on the run as a whole."""

    text: str


Event = (
    RunStarted
    | HostPhase
    | HostEnded
    | HostRead
    | WaveStarted
    | WaveEnded
    | Soaking
    | GatePassed
    | GateFailed
    | Stopping
    | Note
)
