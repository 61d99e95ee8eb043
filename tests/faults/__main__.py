"""``python -m tests.faults --runs N --seed S [--state FILE] [--jobs J] [--seconds T]``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .places import draw
from .races import race
from .run import References, Result, run
from .world import keys

_COUNTS = ("lockouts", "halves", "ports", "foreign")


def last_line(results: dict[int, dict[str, Any]]) -> tuple[str, bool]:
    """Return the figures as one line, and whether the four of them are zero."""
    points = {each["point"] for each in results.values() if each["reached"]}
    sums = [sum(1 for each in results.values() if each[name]) for name in _COUNTS]
    line = (
        f"{len(results)} runs, {len(points)} kill points: {sums[0]} lockouts, "
        f"{sums[1]} half states, {sums[2]} lost ports, {sums[3]} foreign changes"
    )
    return line, not any(sums)


def _read(path: Path, seed: int) -> dict[int, dict[str, Any]]:
    """Return the runs of a seed that a state file holds; a torn last line is not counted."""
    found = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                words = json.loads(line)
            except ValueError:
                continue
            if words["seed"] == seed:
                found[words["index"]] = words
    return found


def _say(index: int, result: Result) -> None:
    if not result.good:
        wrong = {name: getattr(result, name) for name in _COUNTS if getattr(result, name)}
        text = f"{wrong} {result.notes}"[:1000]
        print(f"run {index}: {result.point} -> {result.outcome}: {text}", flush=True)


def _races(count: int, jobs: int) -> int:
    """Sweep confirm over 50 ms around the deadline in steps of 1 ms, again and again."""
    offsets = [number % 101 - 50 for number in range(count)]
    with keys() as made, ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda offset: race(made, offset), offsets))
    bad = [each for each in found if not each.good]
    for each in bad:
        print(each)
    won = sum(each.outcome == "COMMITTED" for each in found)
    print(f"{count} races, {won} confirmed, {count - won} expired: {len(bad)} without one winner")
    return 1 if bad else 0


def main() -> int:
    """Run what is left of the runs and print the figures; 0 only where all four are 0."""
    parser = argparse.ArgumentParser(prog="tests.faults")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=None, help="where finished runs are kept")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=0, help="start no run after so long")
    parser.add_argument("--only", type=int, default=None, help="this run alone, with its result")
    parser.add_argument("--races", type=int, default=0, help="confirm against expiry, so often")
    words = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: hosts are namespaces")
    if words.races:
        return _races(words.races, words.jobs)
    path = words.state or Path(f".faults-{words.seed}.jsonl")
    done = _read(path, words.seed) if words.only is None else {}
    left = [index for index in range(words.runs) if index not in done]
    if words.only is not None:
        left = [words.only]
    end = time.monotonic() + words.seconds if words.seconds else float("inf")
    shown, undone = time.monotonic(), 0
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())  # finish what runs, start nothing more
    with keys() as made, ThreadPoolExecutor(words.jobs) as pool, open(path, "a") as state:
        references = References(made)
        running: dict[Future[Result], int] = {}
        waiting = iter(left)
        while True:
            while len(running) < words.jobs and time.monotonic() < end and not asked.is_set():
                index = next(waiting, None)
                if index is None:
                    break
                running[pool.submit(run, made, references, draw(words.seed, index))] = index
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                try:
                    result = future.result()
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    # The machine, not the host: the next call runs it again.
                    print(f"run {index} was not carried out: {str(error)[:200]}", flush=True)
                    undone += 1
                    continue
                line = {"seed": words.seed, "index": index, **asdict(result)}
                done[index] = line
                if words.only is None:
                    state.write(json.dumps(line) + "\n")
                    state.flush()
                else:
                    print(json.dumps(line, indent=1))
                _say(index, result)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{len(done)} of {words.runs} runs", file=sys.stderr, flush=True)
    text, good = last_line(done)
    print(text)
    return 0 if good and not undone else 1


if __name__ == "__main__":
    sys.exit(main())
