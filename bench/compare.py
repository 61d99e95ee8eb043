"""Compare fleet, Ansible, pyinfra and bare asyncssh on one job against real sshds, in one run.

The job: a bridge with STP and an address, a veth pair with one end in it, three sysctls, an nft
table. Every tool meets hosts that lack it (first), then hosts that have it (again); bare asyncssh
runs ``true``. Each rival is there twice: as its documentation writes the job, and with everything
read by one shell line. Run as root, with the tools in the directory named by --rivals:

    python bench/compare.py --sizes 20,100 --rivals DIR/bin
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import startup
from job import CLEAN, DONE, FLEET, TOOLS, commands, describe, write_project

Rows = dict[str, dict[str, float]]
#: What Ansible and pyinfra say of a host that they changed; fleet's audit exits with 3.
CHANGED = re.compile(r"changed=[1-9]|\] Success")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Measured:
    """One command's wall and controller CPU seconds, whole process tree."""

    def __init__(self, argv: list[str], scratch: str) -> None:
        # A control path of its own: no connection outlives a run, as an audit comes hours after
        # the last one. Within a run they live as long as Ansible lets them by itself, 60 s.
        with tempfile.TemporaryDirectory(dir=scratch) as control:
            env = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_HOME": scratch, "HOME": scratch}
            env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = control
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.monotonic()
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**startup.compiling(), **env},
            )
            self.wall = time.monotonic() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            for path in Path(control).iterdir():
                subprocess.run(["ssh", "-O", "exit", "-S", str(path), "-"], capture_output=True)
        self.out = done.stdout + done.stderr
        if done.returncode:
            tail = (done.stdout + done.stderr)[-2000:]
            raise SystemExit(f"{' '.join(argv[:6])} … exited {done.returncode}:\n{tail}")


def on_all(lab: str, project: Path, names: list[str], script: str) -> list[str]:
    """Run a shell script on every host of the lab and return where it failed."""
    from fleet.lab import Lab

    opened = Lab(lab, project)

    def one(name: str) -> int:
        argv = [*opened.prefix(name), "sh", "-c", script]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True).returncode

    with ThreadPoolExecutor(4) as pool:
        return [name for name, code in zip(names, pool.map(one, names), strict=True) if code]


def measure(size: int, rivals: Path, runs: int, tools: list[str]) -> Rows:
    """Bring a lab of ``size`` hosts up, run every tool, and return medians in seconds."""
    lab = f"bench{os.getpid()}"
    results: Rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        project = directory / "project"
        names = write_project(project, size)
        lab_argv = ["--project", str(project), "--lab", lab]
        subprocess.run([FLEET, "lab", "up", *lab_argv], check=True, stdout=sys.stderr)
        try:
            files = describe(lab, project, names, directory)
            for tool, (first, again) in commands(lab, project, files, rivals).items():
                if tool not in tools:
                    continue
                on_all(lab, project, names, CLEAN)
                prefix = enter(lab, project) if tool != "fleet" else []
                row = {"first": Measured([*prefix, *first], scratch).wall}
                lacking = on_all(lab, project, names, DONE) if tool != "bare" else []
                if lacking:
                    raise SystemExit(f"{tool} has not done the job on {', '.join(lacking)}")
                # Ansible's takes minutes at 100 hosts: once is enough to see it.
                times = 1 if tool.startswith("ansible") else runs
                repeated = [Measured([*prefix, *again], scratch) for _ in range(times)]
                if any(CHANGED.search(COLOUR.sub("", each.out)) for each in repeated):
                    raise SystemExit(f"{tool} changes what is done already:\n{repeated[0].out}")
                row["again"] = statistics.median(m.wall for m in repeated)
                row["again cpu"] = statistics.median(m.cpu for m in repeated)
                results[tool] = row
                print(f"{size} hosts: {tool}: {row}", file=sys.stderr)
        finally:
            subprocess.run([FLEET, "lab", "down", *lab_argv], check=True, stdout=sys.stderr)
    return results


def enter(lab: str, project: Path) -> list[str]:
    """Return the argv prefix that runs a command where the lab's controller stands."""
    from fleet.lab import Lab

    return Lab(lab, project).controller_prefix()


def report(sizes: list[int], measured: dict[int, Rows]) -> None:
    """Print medians, ratios against bare asyncssh, slopes and the fixed part."""
    for size in sizes:
        bare = measured[size]["bare"]["again"]
        print(f"\n{f'{size} hosts':19} first s   again s   again ÷ bare   CPU ms a host (again)")
        for tool, row in measured[size].items():
            print(
                f"  {tool:17} {row['first']:7.2f} {row['again']:9.2f} {row['again'] / bare:14.2f}"
                f" {1000 * row['again cpu'] / size:15.1f}"
            )
    low, high = sizes[0], sizes[-1]
    if low == high:
        return
    print(f"\nper host, as a slope between {low} and {high} hosts; the fixed part apart")
    slopes = slopes_of(measured, low, high, "again")
    for tool, slope in slopes.items():
        fixed = measured[low][tool]["again"] - slope * low
        print(
            f"  {tool:17} {1000 * slope:9.1f} ms   {slope / slopes['bare']:6.2f} × bare"
            f"   fixed {fixed:6.2f} s"
        )


def slopes_of(measured: dict[int, Rows], low: int, high: int, column: str) -> dict[str, float]:
    """Return what one host more costs each tool, in seconds."""
    return {
        tool: (measured[high][tool][column] - measured[low][tool][column]) / (high - low)
        for tool in measured[high]
        if tool in measured[low]
    }


def budgets(sizes: list[int], measured: dict[int, Rows], started: dict[str, float]) -> None:
    """Print what was measured beside the limits that it is held against."""
    low, high = sizes[0], sizes[-1]
    top = measured[high]
    lines: list[tuple[str, float, str, float]] = []
    if low != high and "fleet" in top:
        slopes = slopes_of(measured, low, high, "again")
        cpu = slopes_of(measured, low, high, "again cpu")
        lines.append(("audit, slope ÷ bare", slopes["fleet"] / slopes["bare"], "at most", 1.6))
        lines.append(("controller CPU, ms a host", 1000 * cpu["fleet"], "at most", 10))
    for rival, limit in (("ansible", 30), ("pyinfra", 3)):
        for tool in (rival, f"{rival}, one read"):
            if tool in top and "fleet" in top:
                ratio = top[tool]["again"] / top["fleet"]["again"]
                lines.append((f"{tool} ÷ fleet, {high} hosts", ratio, "at least", limit))
    floor = started[startup.FLOOR]
    lines += [(f"{name}, s", started[name], "at most", 0.25) for name in startup.QUICK]
    lines.append(
        (f"{startup.CONNECTING} ÷ floor", started[startup.CONNECTING] / floor, "at most", 2)
    )
    print("\nbudgets")
    for what, found, way, limit in lines:
        kept = found <= limit if way == "at most" else found >= limit
        print(f"  {what:48} {found:7.2f}   {way} {limit:g}{'' if kept else '   MISSED'}")


def main() -> None:
    """Run the comparison named on the command line and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="20,100")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of the second run")
    parser.add_argument("--rivals", type=Path, default=Path(sys.executable).parent)
    parser.add_argument("--tools", default="", help="some of them, by name, with semicolons")
    chosen = parser.parse_args()
    sizes = [int(size) for size in chosen.sizes.split(",")]
    tools = ["bare", *chosen.tools.split(";")] if chosen.tools else TOOLS
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, ", end="")
    print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}", flush=True)
    started = startup.medians()
    startup.report(started)
    measured = {size: measure(size, chosen.rivals, chosen.runs, tools) for size in sizes}
    report(sizes, measured)
    budgets(sizes, measured, started)


if __name__ == "__main__":
    main()
