"""A revert that cannot even look at the host."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.host.reverting import restore
from fleet.host.transactions import recover


def test_a_revert_that_cannot_look_tries_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error again and again, as of a program that is killed, ends no revert early."""
    errors = [OSError("nft was killed")] * 8

    def look(system: Any, snapshot: Any) -> list[Any]:
        if errors:
            raise errors.pop()
        return []

    monkeypatch.setattr(restore, "restore", look)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    system: Any = None
    assert recover._rounds(system, {"scope": {}}) == []
    assert not errors


def test_a_revert_that_never_can_look_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when its budget is spent, and says why."""

    def look(system: Any, snapshot: Any) -> list[Any]:
        raise OSError("nft was killed")

    monkeypatch.setattr(restore, "restore", look)
    monkeypatch.setattr(recover, "REVERT_BUDGET", 0.2)
    system: Any = None
    assert recover._rounds(system, {"scope": {}}) == ["OSError: nft was killed"]
