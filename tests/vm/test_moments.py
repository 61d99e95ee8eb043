"""A reset at each record of a transaction of many changes: as before, or as committed."""

from __future__ import annotations

from typing import Any

import pytest
from machine import Machine
from resets import reset_at

pytestmark = [pytest.mark.timeout(1500), pytest.mark.vm_all]

QUIET = {"stp": False, "forward-delay": 0}
BEFORE: dict[str, Any] = {"bridges": {"br0": {"parameters": QUIET}}}
#: Each pair and each bridge is some changes, and a change two records: its begin and its end.
WANTED: dict[str, Any] = {
    "virtual-ethernets": {
        **{f"va{n}": {"peer": f"vb{n}", "mtu": 1300} for n in range(4)},
        **{f"vb{n}": {"peer": f"va{n}", "mtu": 1300} for n in range(4)},
    },
    "bridges": {
        f"br{n}": {"interfaces": [f"va{n}"], "addresses": [f"10.9.{n}.1/24"], "parameters": QUIET}
        for n in range(4)
    },
}
#: Of the 67 records of APPLYING, one of the beginning and two of each change.
RECORDS = [*range(1, 66, 2), 2, 34]
MOMENTS = [
    *((state, 1) for state in ("PREPARED", "ARMED")),
    *(("APPLYING", count) for count in RECORDS),
    *((state, 1) for state in ("APPLIED", "CONFIRMED", "PERSISTING", "COMMITTED")),
]


@pytest.mark.parametrize(("state", "count"), MOMENTS)
def test_a_reset_at_any_moment(machine: Machine, state: str, count: int) -> None:
    """At each of more than forty moments, what comes up is what was before or what was committed,
    reachable."""
    reset_at(machine, BEFORE, WANTED, state, count)
