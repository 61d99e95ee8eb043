"""A sample of the sweep over confirm and expiry; ``python -m tests.faults --races N`` runs more."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from .races import race
from .world import keys

pytestmark = [pytest.mark.faults, pytest.mark.kernel]


def test_confirm_and_expiry_have_one_winner() -> None:
    """Swept over 50 ms around the deadline, each race has one winner and both sides agree."""
    if os.geteuid() != 0:
        pytest.skip("needs root: hosts are namespaces")
    with keys() as made, ThreadPoolExecutor(4) as pool:
        offsets = (*range(-50, 51, 10), -3, -1, 1, 3)
        found = list(pool.map(lambda offset: race(made, offset), offsets))
    assert [each for each in found if not each.good] == []
    assert "REVERTED" in {each.outcome for each in found}
