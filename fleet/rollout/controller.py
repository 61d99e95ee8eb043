"""Who this controller is, which inventory it reads, and whether another one still lives."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket
import time
from pathlib import Path


def owner() -> str:
    """Return user@host of whoever runs this."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def new_run() -> str:
    """Return a name for a run and its transactions: when it began, and what tells it apart."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def alive(controller: str, pid: int) -> bool:
    """Say whether the process that runs a run still does; only this machine's can be seen."""
    if controller.rpartition("@")[2] != socket.gethostname() or pid == os.getpid():
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"fleet" in word for word in words)


async def revision(project: Path) -> str:
    """Return the git revision of a project, ``-dirty`` appended where its files differ from it.

    Empty where the project is in no git repository, or git is not there or does not answer.
    """
    head = await _git(project, "rev-parse", "HEAD")
    if not head:
        return ""
    parts = [name for name in ("inventory", "templates", "tasks") if (project / name).exists()]
    changed = await _git(project, "status", "--porcelain", "--", *parts)
    return f"{head}-dirty" if changed else head


async def _git(project: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            "-C",
            str(project),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(10):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return out.decode("utf-8", "replace").strip() if process.returncode == 0 else ""
