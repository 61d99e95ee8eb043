"""Progress on stderr: one line per host, waves visible; live on a terminal, plain otherwise."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from fleet.report.text import Paint, clean, colourful, counted, duration, listed
from fleet.rollout import events

if TYPE_CHECKING:
    from rich.live import Live

    from fleet.rollout.events import Event

#: Outcomes that are no reason to look twice.
WELL = ("committed", "unchanged")
#: A bar appears for what takes longer than this.
PATIENCE = 1.0
BAR = 24
#: How the engine's remark on a second Ctrl-C begins (fleet.rollout.rolling.abort).
AT_ONCE = "stopping at once"
#: From the first of these on, a host may have its dead-man switch armed.
ARMED_PHASES = ("arm", "apply", "gates", "confirm", "settle", "revert")


@dataclass
class HostLine:
    """Where one host is."""

    host: str
    phase: str = "waiting"
    detail: str = ""
    done: int = 0
    total: int = 0
    since: float = 0.0
    started: float | None = None
    outcome: str = ""
    message: str = ""
    took: float = 0.0


@dataclass
class Wave:
    """The hosts that change together."""

    number: int
    name: str
    hosts: list[HostLine] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether every host of the wave has its outcome."""
        return all(line.outcome for line in self.hosts)


class Board:
    """What is known of a rollout in flight, and how it looks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waves: list[Wave] = []
        self.lines: dict[str, HostLine] = {}
        self.notes: list[str] = []
        self.soaking = ""
        self.total = 0

    def wave(self, number: int, hosts: Sequence[str], name: str = "", total: int = 0) -> None:
        """Begin a wave of hosts."""
        self.soaking = ""
        wave = Wave(number, name, [HostLine(host, since=self.clock()) for host in hosts])
        self.waves.append(wave)
        self.lines.update({line.host: line for line in wave.hosts})
        self.total = total or self.total

    def phase(
        self, host: str, phase: str, detail: str = "", done: int = 0, total: int = 0
    ) -> HostLine:
        """Note that a host entered a phase, or a step of the phase it is in."""
        now = self.clock()
        line = self.lines.get(host) or self.lines.setdefault(host, HostLine(host, since=now))
        if line.phase != phase:
            line.since = now
        if line.started is None:
            line.started = now
        line.phase, line.detail, line.done, line.total = phase, detail, done, total
        return line

    def end(self, host: str, outcome: str, message: str = "") -> HostLine:
        """Note how a host ended."""
        line = self.lines.get(host) or self.phase(host, outcome)
        line.outcome, line.message = outcome, message
        line.took = self.clock() - (line.since if line.started is None else line.started)
        return line

    def text(self, paint: Paint, height: int = 40, width: int = 100) -> list[str]:
        """Return the board as lines: ended waves one line each, the last wave host by host."""
        shown: list[str] = []
        if not self.waves and self.lines:
            phases = Counter(line.outcome or line.phase for line in self.lines.values())
            said = ", ".join(f"{number} {clean(phase)}" for phase, number in phases.items())
            shown.append(f"{counted(len(self.lines), 'host')}: {said}")
        for wave in self.waves:
            shown.append(wave_line(wave, self.total, paint))
            if wave.ended and wave is not self.waves[-1]:
                continue
            room = max(3, height - len(self.waves) - len(self.notes) - 2)
            # What moves is worth a line before what ended well, and that before what waits.
            order = sorted(wave.hosts, key=_interest)
            shown_hosts = set(map(id, order[:room]))
            rows = [line for line in wave.hosts if id(line) in shown_hosts]
            name = max((len(clean(line.host)) for line in rows), default=0)
            shown += [f"  {host_line(line, name, self.clock(), paint, width)}" for line in rows]
            if len(wave.hosts) > room:
                shown.append(paint.faint(f"  and {len(wave.hosts) - room} more hosts"))
        notes = [*self.notes, self.soaking] if self.soaking else self.notes
        return shown + [paint.changed(clean(note, width)) for note in notes]


def _interest(line: HostLine) -> int:
    if line.outcome and line.outcome not in WELL:
        return 0
    if not line.outcome and line.started is not None:
        return 1
    return 2 if line.outcome else 3


def wave_line(wave: Wave, total: int, paint: Paint) -> str:
    """Return a wave's heading with how its hosts stand."""
    of = f" of {total}" if total else ""
    name = f" ({clean(wave.name)})" if wave.name else ""
    ends: dict[str, int] = {}
    for line in wave.hosts:
        if line.outcome:
            ends[line.outcome] = ends.get(line.outcome, 0) + 1
    said = ", ".join(f"{number} {clean(outcome)}" for outcome, number in ends.items())
    heading = paint.strong(f"wave {wave.number}{of}{name}")
    return f"{heading}: {counted(len(wave.hosts), 'host')}{', ' + said if said else ''}"


def host_line(line: HostLine, name: int, now: float, paint: Paint, width: int = 100) -> str:
    """Return one host's line: its name, where it is, how far, since when."""
    host = f"{clean(line.host):<{name}}"
    if line.outcome:
        paint_end = paint.added if line.outcome in WELL else paint.removed
        took = paint.faint(f" in {duration(line.took)}") if line.took >= 1 else ""
        message = f": {clean(line.message, max(20, width - name - 24))}" if line.message else ""
        return f"{host}  {paint_end(clean(line.outcome))}{message}{took}"
    if line.started is None:
        return paint.faint(f"{host}  {clean(line.phase)}")
    far = f" {bar(line.done, line.total, 12)} {line.done}/{line.total}" if line.total else ""
    since = f" {duration(now - line.since)}" if now - line.since >= PATIENCE else ""
    detail = f" {clean(line.detail, max(10, width - name - 40))}" if line.detail else ""
    return f"{host}  {paint.changed(clean(line.phase))}{far}{detail}{paint.faint(since)}"


def bar(done: int, total: int, width: int = BAR) -> str:
    """Return a bar of text."""
    full = width * min(done, total) // total if total else 0
    return "█" * full + "░" * (width - full)


class Progress:
    """Shows a rollout in flight; use as a context manager around the run."""

    def __init__(
        self, stream: TextIO | None = None, verbose: bool = False, live: bool | None = None
    ) -> None:
        self.stream = stream or sys.stderr
        self.paint = Paint(colourful(self.stream))
        self.verbose = verbose
        self.live = self.stream.isatty() if live is None else live
        self.board = Board()
        #: Whether a second Ctrl-C left hosts behind in whatever they were doing.
        self.at_once = False
        self._screen: Live | None = None

    def __enter__(self) -> Progress:
        if self.live:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream, force_terminal=True, no_color=not self.paint.on)
            self._screen = Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._screen.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def wave(self, number: int, hosts: Sequence[str], name: str = "", total: int = 0) -> None:
        """Begin a wave."""
        self.board.wave(number, hosts, name, total)
        self._say(f"{wave_line(self.board.waves[-1], total, self.paint)}: {listed(hosts, 8)}")

    def phase(self, host: str, phase: str, detail: str = "", done: int = 0, total: int = 0) -> None:
        """Show that a host entered a phase, or moved within it."""
        before = self.board.lines.get(host)
        known = before.phase if before else ""
        line = self.board.phase(host, phase, detail, done, total)
        if self.verbose and (known != phase or total):
            self._say(host_line(line, len(host), self.board.clock(), self.paint, 200))

    def end(self, host: str, outcome: str, message: str = "") -> None:
        """Show how a host ended."""
        line = self.board.end(host, outcome, message)
        self._say(host_line(line, len(host), self.board.clock(), self.paint, 200))

    def note(self, text: str) -> None:
        """Show a remark on the run as a whole: a soak, a gate, a stop."""
        self.board.notes = [*self.board.notes, text][-3:]
        self._say(self.paint.changed(clean(text, 400)))

    def show(self, event: Event) -> None:
        """Show what the engine says; to be given to it as ``on_event``."""
        match event:
            case events.HostPhase():
                self.phase(event.host, event.phase, event.detail, event.done, event.total)
            case events.HostEnded():
                self.end(event.host, event.outcome, event.message)
            case events.WaveStarted():
                self.wave(event.number, event.hosts, event.name, event.total)
            case events.Soaking():
                self.soak(event.number, event.left)
            case events.GateFailed():
                host = f" on {event.host}" if event.host else ""
                self.note(f"gate {event.gate} failed{host}: {event.message}")
            case events.GatePassed() if not event.host or self.verbose:
                self.note(f"gate {event.gate} passed" + (f" on {event.host}" if event.host else ""))
            case events.Stopping():
                self.note(f"stopping: {event.reason}; settling what is in flight")
            case events.Note():
                self.at_once = self.at_once or event.text.startswith(AT_ONCE)
                self.note(event.text)
            case _:
                pass

    def soak(self, number: int, left: float) -> None:
        """Show that the run waits after a wave."""
        first = not self.board.soaking
        self.board.soaking = f"soaking after wave {number}, {duration(left)} left" if left else ""
        if first and self.board.soaking:
            self._say(self.paint.changed(self.board.soaking))

    def armed(self) -> list[str]:
        """Return the hosts that were begun and have no outcome: they may be armed."""
        return [
            line.host
            for line in self.board.lines.values()
            if not line.outcome and line.phase in ARMED_PHASES
        ]

    def _say(self, text: str) -> None:
        if not self.live:
            print(text, file=self.stream, flush=True)

    def _render(self) -> Any:
        from rich.text import Text

        size = shutil.get_terminal_size()
        lines = self.board.text(self.paint, size.lines - 1, size.columns)
        return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")


class Count:
    """One bar for many hosts that are only read; drawn when it takes more than a second."""

    def __init__(
        self,
        label: str,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.total, self.clock = label, total, clock
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.done = self.failed = 0
        self.began = self._drawn = clock()
        self._visible = False

    def __enter__(self) -> Count:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._visible and self.live:
            # CSI K erases to the end of the line (ECMA-48, EL).
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def step(self, failed: bool = False) -> None:
        """Count one host."""
        self.done += 1
        self.failed += failed
        now = self.clock()
        # A terminal is drawn ten times a second at most, a log gets a line every five seconds.
        if now - self.began >= PATIENCE and now - self._drawn >= (0.1 if self.live else 5):
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        """Draw the bar."""
        bad = f", {self.failed} failed" if self.failed else ""
        text = f"{self.label} {self.done} of {counted(self.total, 'host')}{bad}"
        if self.live:
            self.stream.write(f"\r\x1b[K{bar(self.done, self.total)} {text}")
        else:
            self.stream.write(f"{text}\n")
        self.stream.flush()
        self._visible = True
