"""The command line itself: help, start-up, errors, completion and init."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fleet.cli import main
from fleet.cli.command import guarded
from fleet.cli.program import COMMANDS, load
from fleet.errors import FleetError, IntentError, UsageError
from fleet.intent.tree import Place

#: Each of these costs more than the whole start-up may.
ROOT = str(Path(__file__).parents[2])
HEAVY = (
    "asyncio",
    "asyncssh",
    "jinja2",
    "nornir",
    "pydantic",
    "pyroute2",
    "rich",
    "sqlalchemy",
    "yaml",
)


def fleet(
    *words: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "fleet.cli", *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
    )


def loaded(*words: str, **environment: str) -> set[str]:
    """Return the top-level modules that a call of the program imports."""
    seen = fleet_traced(*words, **environment)
    return {
        line.rsplit("|", 1)[-1].strip().split(".")[0] for line in seen.splitlines() if "|" in line
    }


def fleet_traced(*words: str, **environment: str) -> str:
    """Run the program with ``-X importtime`` and return what it says on stderr."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fleet.cli", *words],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
    ).stderr


def leaves() -> list[list[str]]:
    """Return the words of every command."""
    found = []
    for name, (module, _) in COMMANDS.items():
        built = load(module, name)
        found += [[name, sub] for sub in getattr(built, "commands", {})] or [[name]]
    return found


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "--help"], ["rollout", "--help"], ["version"], ["lab", "--help"]]
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """Help and version import none of the libraries that work needs."""
    assert not loaded(*words) & set(HEAVY)


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    """Completing a host reads the inventory's text and imports no YAML library."""
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.yaml").write_text("hv-1:\n  groups: []\n")
    words = {"COMP_WORDS": f"fleet plan --project {tmp_path} --host hv", "COMP_CWORD": "5"}
    assert not loaded(_FLEET_COMPLETE="complete_bash", **words) & {*HEAVY} - {"rich"}


def best_of_five(*argv: str) -> float:
    """Return the least processor seconds that a command took."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run(argv, capture_output=True).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


def test_help_is_quick() -> None:
    """Help costs little more than importing typer, whatever else the machine does."""
    floor = best_of_five(sys.executable, "-c", "import typer")
    assert best_of_five(sys.executable, "-m", "fleet.cli", "--help") < 3 * floor


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_every_command_explains_itself(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command's help has a sentence, and examples that name the command."""
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert f"fleet {' '.join(words)}" in text.split("Examples:")[1]


@pytest.mark.parametrize(
    "words", [w for w in leaves() if w[0] not in ("init", "version")], ids=" ".join
)
def test_every_command_takes_a_project(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that works in a project can be told which."""
    main([*words, "--help"])
    assert "--project DIR" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plan", "audit", "status", "history", "observe", "rollout"])
def test_what_reads_speaks_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that reads has --json."""
    main([name, "--help"])
    assert "--json" in capsys.readouterr().out


def test_wrong_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command is exit 2 and names the nearest."""
    assert main(["rolout"]) == 2
    assert "Did you mean 'rollout'?" in capsys.readouterr().err


def test_wrong_option_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped option is exit 2 and names the nearest."""
    assert main(["plan", "--gruop", "x"]) == 2
    assert "did you mean --group?" in capsys.readouterr().err


def test_missing_argument_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing argument is named, with where the help is."""
    assert main(["init"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "fleet init: Missing argument 'DIR'.",
        "Try 'fleet init --help'.",
    ]


def test_no_project_is_exit_2(tmp_path: Path) -> None:
    """Where there is no project, fleet says what it looked for."""
    result = fleet("plan", cwd=tmp_path)
    assert result.returncode == 2
    assert "inventory/" in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_say_where_and_exit_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """An intent error prints file, line and path, and exits with 2."""

    def wrong() -> int:
        raise IntentError(
            "mtu 10 is too small\x1b[2J", Place("inventory/hosts.yaml", 12, 5), "network.mtu"
        )

    assert guarded(wrong) == 2
    said = capsys.readouterr().err
    assert said.startswith("fleet: inventory/hosts.yaml:12")
    assert "network.mtu: mtu 10 is too small" in said
    assert "\x1b" not in said


def test_internal_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of fleet is one line that says how to report it; the traceback only when asked."""

    def fault() -> int:
        raise KeyError("oops\x1b[31m")

    assert guarded(fault) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "internal error: KeyError" in said
    assert "-v" in said
    assert "\x1b" not in said
    assert guarded(fault, verbose=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_exit_code_of_an_error_is_the_programs() -> None:
    """Each error's own exit code is the program's."""

    class NeedsPerson(FleetError):
        exit_code = 5

    def fail(error: Exception) -> int:
        raise error

    assert guarded(lambda: fail(NeedsPerson("x"))) == 5
    assert guarded(lambda: fail(UsageError("x"))) == 2
    assert guarded(lambda: None) == 0
    with pytest.raises(typer.Abort):
        guarded(lambda: fail(typer.Abort()))


def test_reader_that_goes_away_is_no_traceback() -> None:
    """A reader that closes its end (head, less) ends the program quietly."""
    program = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", "schema", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    program.stdout.close()
    assert program.communicate(timeout=20)[1] == ""


def complete(line: str, *, project: Path | None = None) -> list[str]:
    """Return what bash would be offered for a line."""
    words = line.split(" ")
    extra = {"FLEET_PROJECT": str(project)} if project else {}
    return fleet(
        _FLEET_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **extra
    ).stdout.split()


def test_completion_of_names(tmp_path: Path) -> None:
    """Commands, hosts, groups and tasks complete from the project's files, quoted names too."""
    inventory, tasks = tmp_path / "inventory", tmp_path / "tasks"
    inventory.mkdir()
    tasks.mkdir()
    (inventory / "hosts.yaml").write_text(
        "---\n# hv-0:\nhv-1:\n  groups: [a]\n'hv-2': {}\n\"hv-3\": {}\nother: {}\n"
    )
    (inventory / "groups.yaml").write_text("---\nrack1: {}\nrack2:\n")
    (tasks / "mine.py").write_text("")
    (tasks / "_hidden.py").write_text("")
    assert complete("fleet ro") == ["rollout"]
    assert complete("fleet plan --host hv-", project=tmp_path) == ["hv-1", "hv-2", "hv-3"]
    assert complete("fleet audit --group ra", project=tmp_path) == ["rack1", "rack2"]
    assert complete("fleet intent show o", project=tmp_path) == ["other"]
    assert complete("fleet run mi", project=tmp_path) == ["mine"]
    assert complete("fleet plan --host hv", project=tmp_path / "nothing") == []


def test_completion_of_transactions(tmp_path: Path) -> None:
    """Runs and transactions complete from the record, newest first; no record is no error."""
    (tmp_path / "inventory").mkdir()
    assert complete("fleet confirm 2", project=tmp_path) == []
    (tmp_path / ".fleet").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / ".fleet" / "record.sqlite")) as record:
        record.execute("CREATE TABLE runs (id TEXT, started REAL)")
        record.executemany("INSERT INTO runs VALUES (?, ?)", [("2026a", 1.0), ("2026b", 2.0)])
        record.commit()
    assert complete("fleet confirm 2", project=tmp_path) == ["2026b", "2026a"]
    assert complete("fleet history 2026a", project=tmp_path) == ["2026a"]


def test_init_makes_a_project_and_overwrites_nothing(tmp_path: Path) -> None:
    """A new project has the starter's files as files; a second init is refused, nothing changed."""
    project = tmp_path / "mine"
    assert main(["init", str(project)]) == 0
    hosts = project / "inventory" / "hosts.yaml"
    assert not (project / "inventory").is_symlink()
    hosts.write_text("mine: {}\n")
    assert main(["init", str(project)]) == 2
    assert hosts.read_text() == "mine: {}\n"
    assert sorted(p.name for p in project.iterdir()) == ["inventory", "tasks", "templates"]


def test_options_may_stand_before_the_command(tmp_path: Path) -> None:
    """``fleet --project DIR plan`` means ``fleet plan --project DIR``."""
    result = fleet("--project", str(tmp_path / "nowhere"), "plan")
    assert result.returncode == 2
    assert "nowhere" in result.stderr
