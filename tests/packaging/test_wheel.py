"""The wheel: built from this checkout, installed into an empty environment, used there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(400)]


def run(*argv: str | Path, cwd: Path = ROOT) -> str:
    """Run a program with an environment of its own; the test fails where it does."""
    # How pip reaches its registry is the machine's to say.
    kept = ("PATH", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "SSL_CERT_FILE")
    env = {k: v for k, v in os.environ.items() if k in kept or k.startswith("PIP_")}
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={**env, "HOME": os.environ.get("HOME", "/root"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, f"{argv[0]} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what it asks for, at locked versions."""
    folder = tmp_path_factory.mktemp("empty")
    locked = re.findall(r"^\S+==[^\s;\\]+", (ROOT / "requirements.lock").read_text(), re.M)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(locked) + "\n")
    run("/usr/bin/python3", "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "-c", constraints, wheel, cwd=folder)
    return folder / "venv/bin"


def test_the_wheel_carries_the_starter_and_nothing_besides(wheel: Path) -> None:
    """The example project is in the wheel, and nothing lies at the top but fleet itself."""
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("inventory/hosts.yaml", "tasks/push.py", "__init__.py"):
        assert f"fleet/_starter/{wanted}" in names
    assert any(name.startswith("fleet/_starter/templates/") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fleet"}
    assert not any("__pycache__" in name for name in names)


def test_an_installed_fleet_makes_a_project_and_validates_it(
    installed: Path, tmp_path: Path
) -> None:
    """`fleet init` writes a project that `fleet intent validate` finds nothing wrong with."""
    project = tmp_path / "mine"
    run(installed / "fleet", "init", project, cwd=tmp_path)
    assert (project / "inventory/hosts.yaml").exists()
    run(installed / "fleet", "intent", "validate", "--project", project, cwd=tmp_path)
    shown = run(
        installed / "fleet", "intent", "show", "hv-r3-1", "--project", project, cwd=tmp_path
    )
    assert "br-mgmt" in shown


def test_an_installed_fleet_is_nornir_s_to_use(installed: Path, tmp_path: Path) -> None:
    """The connection, runner and inventory plugins are found by Nornir by their names."""
    program = (
        "from importlib.metadata import entry_points as e\n"
        "for group, name in (('connections', 'asyncssh'), ('runners', 'asyncio'),"
        " ('inventory', 'fleet')):\n"
        "    found, = e(group=f'nornir.plugins.{group}', name=name)\n"
        "    print(found.load().__module__)\n"
    )
    printed = run(installed / "python", "-I", "-W", "error", "-c", program, cwd=tmp_path)
    assert [line.partition(".")[0] for line in printed.split()] == ["fleet"] * 3
