"""Other Pythons for lab hosts: pyenv's, copied into a host at the path they are built for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from world import World

VERSIONS = Path("/root/.pyenv/versions")
#: What a host's helper needs nothing of, by far the most of a build.
_LEFT_OUT = ("test", "tests", "site-packages", "__pycache__", "idlelib", "ensurepip", "config-*")


def build(version: str) -> Path:
    """Return the newest build of a version such as 3.9; the test is skipped where there is none."""
    found = sorted(VERSIONS.glob(f"{version}.*")) if VERSIONS.is_dir() else []
    if not found:
        pytest.skip(f"needs Python {version} under {VERSIONS}: pyenv install {version}")
    return found[-1]


def give(world: World, host: str, version: str) -> str:
    """Copy a build into a host; return its interpreter's path there."""
    folder = build(version)
    left_out = [f"--exclude={name}" for name in _LEFT_OUT]
    parts = [str(folder.relative_to("/") / part) for part in (f"lib/python{version}", "bin")]
    parts += [str(path.relative_to("/")) for path in folder.glob("lib/libpython*.so*")]
    pack = subprocess.Popen(["tar", "-C", "/", "-c", *left_out, *parts], stdout=subprocess.PIPE)
    unpack = [*world.lab.prefix(host), shutil.which("tar") or "tar", "-C", "/", "-x"]
    with pack:
        subprocess.run(unpack, stdin=pack.stdout, check=True, timeout=60)
    assert pack.returncode == 0
    return str(folder / "bin" / f"python{version}")


def make_it_the_hosts(world: World, host: str, interpreter: str) -> None:
    """Let a host's python3 be another interpreter, as its distribution's would be."""
    world.run(host, "ln", "-sf", interpreter, "/usr/bin/python3")
