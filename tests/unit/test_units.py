"""systemd's part: the timer's command line, the boot units, the staged copy of the helper."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.host.transactions import lasting, units
from fleet.host.transactions.files import Paths


def test_the_timer_is_started_as_the_promises_say() -> None:
    """The transient unit lies in system.slice, is exact, restarts and is killed last for memory."""
    argv = units.timer_argv("tx-1", "/var/lib/fleet/boot/fleet-0.pyz", 30.0)
    assert argv[0] == "systemd-run"
    assert "--slice=system.slice" in argv
    assert "--timer-property=AccuracySec=100ms" in argv
    assert "--property=Restart=on-failure" in argv
    assert "--property=OOMScoreAdjust=-1000" in argv
    assert "--on-active=31.000s" in argv
    assert argv[-2:] == ["recover", "tx-1"]
    assert argv[argv.index(units.PYTHON) : -2] == [
        units.PYTHON,
        "-I",
        "-S",
        "-B",
        "/var/lib/fleet/boot/fleet-0.pyz",
    ]


def test_a_name_with_words_of_systemd_is_refused() -> None:
    """A transaction's name cannot smuggle in an option or a path."""
    for name in ("--user", "a b", "../x", "%n"):
        with pytest.raises(ValueError):
            units.timer_argv(name, "/x.pyz", 1)


def test_recover_runs_before_the_network_and_apply_before_the_guests() -> None:
    """The orders that the promises need stand in the units."""
    texts = units.unit_texts("/x.pyz")
    for name in ("fleet-recover.service", "fleet-apply-early.service"):
        assert "DefaultDependencies=no" in texts[name]
        before = [line for line in texts[name].splitlines() if line.startswith("Before=")]
        assert any("network-pre.target" in line.split("=")[1].split() for line in before)
        assert "Wants=network-pre.target" in texts[name]
    assert "Before=libvirtd.service" in texts["fleet-apply.service"]
    assert "recover --at files" in texts["fleet-recover.service"]
    databases = texts["fleet-recover-ovs.service"]
    assert "ovsdb-server.service" in databases.partition("After=")[2].partition("\n")[0]
    assert "ovs-vswitchd.service" in databases.partition("Before=")[2].partition("\n")[0]
    definitions = texts["fleet-recover-libvirt.service"]
    assert "libvirtd.service" in definitions.partition("Before=")[2].partition("\n")[0]
    assert "fleet-apply.service" in texts["fleet-prove.service"].partition("After=")[2]
    assert "Before=libvirtd.service" in texts["fleet-prove.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong with what is installed."""
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name, text in units.unit_texts("/x.pyz", str(program)).items():
        (tmp_path / name).write_text(text)
    for name in units.UNITS:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        complaints = [line for line in done.stderr.splitlines() if "fleet-" in line]
        assert complaints == []


def test_the_staged_helper_runs_from_one_archive(tmp_path: Path) -> None:
    """The staged copy is made once per content and runs with an interpreter that has nothing."""
    paths = Paths(str(tmp_path))
    archive = units.stage_helper(paths)
    assert units.stage_helper(paths) == archive
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", archive, "nonsense"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
    assert Path(archive).stat().st_mode & 0o777 == 0o600


def test_an_archive_that_runs_knows_itself(tmp_path: Path) -> None:
    """What a unit runs is its own version: it settles what it armed by itself, at its point."""
    archive = units.stage_helper(Paths(str(tmp_path)))
    ask = (
        f"import sys; sys.path.insert(0, {archive!r})\n"
        "from fleet.host.transactions import files, units\n"
        f"print(units.own_archive(files.Paths({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", ask],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == archive


def test_an_audit_looks_for_every_unit_of_the_boot() -> None:
    """The names that an audit asks the disk for are those that arming installs."""
    assert {f"{name}.service" for name in lasting._UNITS} == set(units.UNITS)
