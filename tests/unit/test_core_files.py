"""What fleet holds in memory does not end in a core file."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: A limit that a login may well have set, what is run, and the limit then.
AFTER = """\
import resource
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, resource.getrlimit(resource.RLIMIT_CORE)[1]))
{program}
print("core", resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.mark.parametrize(
    "program",
    [
        "from fleet.cli import main; main(['version'])",
        "from fleet.host.helper import main; main()",
        "from fleet.host.helper import unit_main; unit_main(['wrong'])",
    ],
    ids=["controller", "helper", "unit"],
)
def test_no_core_is_written(program: str) -> None:
    """Controller, helper and what a unit runs have set the size of their core files to none."""
    import resource

    if 0 <= resource.getrlimit(resource.RLIMIT_CORE)[1] < 1 << 20:
        pytest.skip("this login may not write core files")
    done = subprocess.run(
        [sys.executable, "-c", AFTER.format(program=program)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "core 0" in done.stdout.splitlines(), done.stderr
