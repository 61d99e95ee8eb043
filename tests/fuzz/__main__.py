"""``python -m tests.fuzz --inputs N --seed S``: changed inputs for all that fleet reads.

Input number i of a seed is always the same: ``--only I`` repeats it, ``--first I`` goes on there.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .targets import TARGETS, changed

#: No input may take longer, in seconds, and the process may hold no more at any time, in KiB.
LONGEST, MOST = 5, 256 * 1024
#: Where fleet is sent beyond what it may hold, it must not take the machine along.
ADDRESS_SPACE = 2 << 30


def _hangs(number: int, frame: object) -> None:
    raise TimeoutError(f"an input took over {LONGEST} s")


def main() -> int:
    """Run the inputs and print the figures; 0 only where nothing was found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--only", type=int, default=None, help="this input alone")
    parser.add_argument("--seconds", type=float, default=0, help="start no input after so long")
    words = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, _hangs)
    numbers = range(words.first, words.first + words.inputs)
    if words.only is not None:
        numbers = range(words.only, words.only + 1)
    begun, done, raised, hung = time.monotonic(), 0, 0, 0
    names = list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="fleet-fuzz-") as folder:
        for number in numbers:
            if words.seconds and time.monotonic() - begun > words.seconds:
                break
            name = names[number % len(names)]
            data = changed(name, random.Random(f"{words.seed}/{number}"))
            done += 1
            signal.alarm(LONGEST)
            try:
                TARGETS[name](data, Path(folder))
            except Exception as error:
                hung += isinstance(error, TimeoutError)
                raised += not isinstance(error, TimeoutError)
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"input {number} ({name}): {error!r} at {where.filename}:{where.lineno}")
                print(f"    {data[:2000]!r}", flush=True)
            finally:
                signal.alarm(0)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{done} inputs from number {numbers.start}, seed {words.seed}: {raised} tracebacks, "
        f"{hung} hangs over {LONGEST} s, at most {memory // 1024} MiB"
    )
    return 1 if raised or hung or memory > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
