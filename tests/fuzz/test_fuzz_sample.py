"""A sample of ``make fuzz``: whatever fleet reads is taken or refused, and never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import TARGETS, changed, seeds

few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", list(TARGETS))
def test_good_inputs_are_taken(name: str, tmp_path: Path) -> None:
    """What is changed for the attack is good before it."""
    for data in seeds(name):
        TARGETS[name](data, tmp_path)


@pytest.mark.parametrize("name", list(TARGETS))
@few
@given(number=st.integers(0, 2**32))
def test_changed_inputs_are_taken_or_refused(name: str, number: int, tmp_path: Path) -> None:
    """A good input with a few changes raises nothing but fleet's own errors."""
    TARGETS[name](changed(name, random.Random(number)), tmp_path)


@pytest.mark.parametrize("name", list(TARGETS))
@few
@given(data=st.binary(max_size=400))
def test_any_bytes_are_taken_or_refused(name: str, data: bytes, tmp_path: Path) -> None:
    """Bytes that mean nothing raise nothing but fleet's own errors."""
    TARGETS[name](data, tmp_path)
