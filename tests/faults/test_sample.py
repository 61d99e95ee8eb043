"""A seeded sample of the fault harness: hosts are attacked, and judged from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .__main__ import last_line
from .places import Fault, draw
from .run import References, run
from .world import Keys, keys

pytestmark = [pytest.mark.faults, pytest.mark.kernel, pytest.mark.timeout(240)]

SEED, DRAWN = 11, 25
#: What every sample holds: one of each weak spot that the harness has found.
CHOSEN = [
    Fault("bridge", "apply.change.4.after", "kill", 1),
    Fault("bridge", "apply.change.5.before", "stop", 1),
    Fault("bridge", "apply.change.4.after", "kill-everything", 1),
    Fault("bridge", "apply.done", "hand-route", 1, confirms=False),
    Fault("bridge", "apply.change.1.before", "hand-neighbour", 1, confirms=False),
    Fault("bridge", "apply.change.4.before", "hand-same", 1, confirms=False),
    Fault("address-off", "apply.done", "hand-rule", 1, confirms=False),
    Fault("address-off", "apply.done", "hand-address", 1, confirms=False),
    Fault("address-off", "plan.after", "hand-address", 1),
    Fault("guests", "apply.done", "hand-alias", 1, confirms=False),
    Fault("guests", "apply.change.5.after", "hand-sysctl", 1, confirms=False),
    Fault("nft-new", "apply.done", "kill-watchdog", 1),
    Fault("default-route", "persist.file.0.before", "kill", 1),
    Fault("address", "confirm.decided", "kill", 1),
    Fault("address", "apply.done", "second-controller", 1),
]


@pytest.fixture(scope="module")
def made() -> Iterator[Keys]:
    if os.geteuid() != 0:
        pytest.skip("needs root: hosts are namespaces")
    with keys() as each:
        yield each


def test_a_sample_of_faults_leaves_every_host_as_before_or_committed(made: Keys) -> None:
    """Of 40 faulted runs none locks out, leaves a half state, loses a port or what is others'."""
    references = References(made)
    faults = [*CHOSEN, *(draw(SEED, index) for index in range(DRAWN))]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda fault: run(made, references, fault), faults))
    bad = [each for each in results if not each.good]
    assert bad == []
    line, good = last_line({n: vars(each) for n, each in enumerate(results)})
    assert good, line
    assert line.startswith("40 runs"), line
    assert sum(each.reached for each in results) >= 25
