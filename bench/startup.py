"""How long fleet takes to start, beside the imports that it cannot do without.

A command that connects is timed up to its first ``connect()``, where an audit hook ends it; so
nothing is contacted. Run alone it prints the medians: ``python bench/startup.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

FLOOR, CONNECTING = "import asyncssh, typer", "audit up to its first connect"
QUICK = ("--help", "completion")
#: PEP 578: asyncio's sock_connect raises it before the kernel is asked.
STOPPED = """\
import os, sys

def stop(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        os._exit(75)

sys.addaudithook(stop)
from fleet.cli import main
sys.exit(main(sys.argv[1:]))
"""
REACHED = 75


def calls() -> dict[str, tuple[list[str], dict[str, str], int]]:
    """Return what is timed: its words after ``python``, its environment and its exit code."""
    inventory = Path(__file__).resolve().parent.parent
    completing = {"_FLEET_COMPLETE": "complete_bash", "COMP_WORDS": "fleet au", "COMP_CWORD": "1"}
    return {
        FLOOR: (["-c", "import asyncssh, typer"], {}, 0),
        "--help": (["-m", "fleet.cli", "--help"], {}, 0),
        "completion": (["-m", "fleet.cli"], completing, 0),
        CONNECTING: (["-c", STOPPED, "audit", "--project", str(inventory)], {}, REACHED),
    }


def medians(runs: int = 11) -> dict[str, float]:
    """Return the median seconds of each call; they take turns, so that all meet the same load.

    The first round counts for nothing: it may have to compile what was edited last.
    """
    took: dict[str, list[float]] = {name: [] for name in calls()}
    for _ in range(1 + runs):
        for name, (words, more, code) in calls().items():
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words],
                env={**compiling(), **more},
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            took[name].append(time.perf_counter() - start)
            if done.returncode != code:
                raise SystemExit(f"{name} exited {done.returncode}: {done.stderr.decode()}")
    return {name: statistics.median(values[1:]) for name, values in took.items()}


def compiling() -> dict[str, str]:
    """Return the environment in which Python keeps what it compiles, as it does by itself."""
    return {name: said for name, said in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def report(took: dict[str, float]) -> None:
    """Print medians, and how often the floor each of them is."""
    print("\nstart-up                              s   ÷ floor")
    for name, seconds in took.items():
        print(f"  {name:30} {seconds:6.2f} {seconds / took[FLOOR]:8.2f}")


if __name__ == "__main__":
    report(medians())
