"""What a plan knows of the devices of a host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fleet.host.change import Resource
from fleet.host.kinds import bridge
from fleet.host.planning.facts import Facts


def facts(port: dict[str, Any]) -> tuple[Resource, Facts]:
    wanted = Resource(kind="bridge", name="br0", spec={"interfaces": ["vnet0"]})
    observation: Any = SimpleNamespace(aliases={}, links={"vnet0": port})
    return wanted, Facts([wanted], observation)


@pytest.mark.parametrize(
    ("mode", "persist", "fits"),
    [("tap", False, True), ("tap", True, True), ("tun", False, False), ("tun", True, False)],
)
def test_a_guest_s_tap_can_be_a_port(mode: str, persist: bool, fits: bool) -> None:
    """A tap is taken into a bridge whoever holds it, and a tun, which has no frames, is not."""
    link = {"kind": "tun", "data": {"type": mode, "persist": persist}, "mtu": 1500, "master": ""}
    assert (list(bridge.unfit(*facts(link))) == []) is fits
