"""Progress: the lines of a rollout in flight, live and plain."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from fleet.progress import Board, Count, Progress, bar
from fleet.report.text import Paint
from fleet.rollout import events


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def board() -> tuple[Board, Clock]:
    clock = Clock()
    return Board(clock), clock


def test_one_line_per_host_under_its_wave() -> None:
    """The current wave is shown host by host, with phase, steps and time."""
    shown, clock = board()
    shown.wave(1, ["hv-1", "hv-22"], "canary", 3)
    shown.phase("hv-1", "apply", done=2, total=4)
    clock.now = 5
    assert shown.text(Paint(False)) == [
        "wave 1 of 3 (canary): 2 hosts",
        "  hv-1   apply ██████░░░░░░ 2/4 5 s",
        "  hv-22  waiting",
    ]


def test_ended_waves_fold_to_one_line() -> None:
    """A wave that ended is one line once the next begins; the next shows its hosts."""
    shown, clock = board()
    shown.wave(1, ["hv-1"], "canary", 2)
    shown.phase("hv-1", "apply")
    clock.now = 2
    shown.end("hv-1", "committed")
    shown.wave(2, ["hv-2"], "", 2)
    shown.end("hv-2", "reverted", "probe failed")
    assert shown.text(Paint(False)) == [
        "wave 1 of 2 (canary): 1 host, 1 committed",
        "wave 2 of 2: 1 host, 1 reverted",
        "  hv-2  reverted: probe failed",
    ]


def test_a_small_screen_keeps_what_matters() -> None:
    """With more hosts than rows, failures and hosts in motion stay, those that wait are counted."""
    shown, _ = board()
    shown.wave(1, [f"hv-{n}" for n in range(50)])
    shown.phase("hv-40", "apply")
    shown.end("hv-41", "failed", "no sudo")
    lines = shown.text(Paint(False), height=8)
    assert len(lines) <= 8
    assert any("hv-40" in line for line in lines)
    assert any("hv-41" in line for line in lines)
    assert lines[-1] == "  and 45 more hosts"


def test_plain_lines_where_nobody_looks() -> None:
    """Not on a terminal, waves, ends and notes are plain lines, without colour or cursor moves."""
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.wave(1, ["hv-1"], "canary", 1)
        progress.phase("hv-1", "apply", done=1, total=2)
        progress.end("hv-1", "committed")
        progress.note("soaking for 30 s")
    assert stream.getvalue().splitlines() == [
        "wave 1 of 1 (canary): 1 host: hv-1",
        "hv-1  committed",
        "soaking for 30 s",
    ]
    assert "\x1b" not in stream.getvalue()


def test_verbose_plain_lines_show_phases() -> None:
    """Verbose shows each phase and each step."""
    stream = io.StringIO()
    with Progress(stream, verbose=True) as progress:
        progress.wave(1, ["hv-1"])
        progress.phase("hv-1", "arm", "120 s to confirm")
        progress.phase("hv-1", "arm", "120 s to confirm")
        progress.phase("hv-1", "apply", done=1, total=2)
        progress.phase("hv-1", "apply", done=2, total=2)
    assert len(stream.getvalue().splitlines()) == 4


def test_live_display_draws_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the board is drawn live and the cursor comes back."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.wave(1, ["hv-1"], "canary", 1)
        progress.end("hv-1", "committed")
    text = stream.getvalue()
    assert "hv-1" in text
    assert "committed" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_no_color_is_honoured_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves the live display without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.wave(1, ["hv-1"])
        progress.end("hv-1", "failed", "no")
    assert "\x1b[31m" not in stream.getvalue()
    assert "\x1b[1m" not in stream.getvalue()


def test_a_hosts_text_cannot_move_the_cursor() -> None:
    """What a host sent is cleaned before it is shown as progress."""
    stream = io.StringIO()
    with Progress(stream, verbose=True) as progress:
        progress.phase("hv-1", "apply\x1b[2J", "x\x1b[H")
        progress.end("hv-1", "failed\x07", "\x1b]0;owned\x07")
        progress.note("\x1b[2J")
    assert not set(stream.getvalue()) & set("\x1b\x07")


def test_a_bar_only_after_a_second() -> None:
    """A short read shows no bar; a longer one does, and takes it away at its end."""
    clock, stream = Clock(), Terminal()
    with Count("audit", 100, stream, clock) as count:
        count.step()
        assert stream.getvalue() == ""
        clock.now = 1.5
        count.step(failed=True)
        assert "audit 2 of 100 hosts, 1 failed" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_log_gets_a_line_every_five_seconds() -> None:
    """Not on a terminal, a long read says how far it is, rarely."""
    clock, stream = Clock(), io.StringIO()
    with Count("audit", 20, stream, clock) as count:
        for second in range(12):
            clock.now = float(second)
            count.step()
    assert stream.getvalue().splitlines() == ["audit 6 of 20 hosts", "audit 11 of 20 hosts"]


def test_bar_is_bounded() -> None:
    """A bar never overflows and divides by nothing."""
    assert bar(5, 4, 4) == "████"
    assert bar(0, 0, 4) == "░░░░"


def test_rich_is_imported_only_for_a_live_display() -> None:
    """Plain progress does not import rich."""
    program = (
        "import sys, fleet.progress as p\n"
        "with p.Progress() as shown: shown.wave(1, ['a']); shown.end('a', 'committed')\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=20)


def test_before_the_first_wave_hosts_are_counted_by_phase() -> None:
    """While hosts are only being prepared, one line counts them by phase."""
    shown, _ = board()
    for host, phase in (("hv-1", "push"), ("hv-2", "plan"), ("hv-3", "plan")):
        shown.phase(host, phase)
    assert shown.text(Paint(False)) == ["3 hosts: 1 push, 2 plan"]


def test_every_event_of_the_engine_can_be_shown() -> None:
    """Each event the engine can send is taken, and what an operator must know is said."""
    stream = io.StringIO()
    with Progress(stream) as progress:
        for event in (
            events.RunStarted("r", 2),
            events.WaveStarted(1, 1, ("hv-1", "hv-2"), "canary"),
            events.HostRead("hv-1", False, 1, 2),
            events.HostPhase("hv-1", "arm"),
            events.HostPhase("hv-2", "push"),
            events.GatePassed("links", "hv-1"),
            events.GateFailed("ping", "no answer"),
            events.Stopping("stopped by the operator"),
            events.Soaking(1, 10.0, 9.6),
            events.Soaking(1, 10.0, 8.6),
            events.Note("done"),
            events.WaveEnded(1, 1, 0),
        ):
            progress.show(event)
        assert progress.armed() == ["hv-1"]
        progress.show(events.HostEnded("hv-1", "committed"))
        assert progress.armed() == []
    assert stream.getvalue().splitlines() == [
        "wave 1 of 1 (canary): 2 hosts: hv-1, hv-2",
        "gate ping failed: no answer",
        "stopping: stopped by the operator; settling what is in flight",
        "soaking after wave 1, 10 s left",
        "done",
        "hv-1  committed",
    ]
