"""The command line: ``main`` is the program, one short module per command group."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run fleet and return its exit code (0 done, 1 failed, 2 usage, 3 drift, 4 reverted, 5 help).

    ``arguments`` are the words after ``fleet``, by default those of the process.
    """
    import gc

    # What a start makes, modules above all, lives as long as the program. Python's own threshold
    # of 700 has it looked through a hundred times: an eighth of the time to the first connect.
    gc.set_threshold(50_000)
    # What it holds in memory, passwords of the inventory among it, is not for a core file.
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    from fleet.cli.program import run

    return run(arguments)
