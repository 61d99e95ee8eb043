"""A host's button and cables: reset, and a NIC that loses its carrier."""

from __future__ import annotations

import pytest
from world import World, until

from fleet.lab import LabError


def test_a_pulled_cable_is_a_lost_carrier(world: World) -> None:
    """A host whose cable is pulled sees it, and is reached again once it is plugged in."""
    world.fleet("lab", "unplug", "hv1", "eno1")
    until(lambda: "LOWER_UP" not in world.links("hv1")["eno1"]["flags"])
    assert not world.reaches("198.18.7.11")
    world.fleet("lab", "plug", "hv1", "eno1")
    until(lambda: world.reaches("198.18.7.11"))
    with pytest.raises(LabError, match="eno9"):
        world.lab.cable("hv1", "eno9", plugged=False)


def test_a_reset_is_another_boot(world: World) -> None:
    """A host that was reset boots again, with its disk as it was."""
    world.run("hv1", "sh", "-c", "echo kept > /var/lib/kept; sync")
    world.run("hv1", "ip", "link", "set", "eno1", "mtu", "1400")
    before = world.run("hv1", "cat", "/proc/sys/kernel/random/boot_id")
    world.fleet("lab", "reset", "hv1")
    until(lambda: world.logs_in("hv1"), 300)
    assert world.run("hv1", "cat", "/proc/sys/kernel/random/boot_id") != before
    assert world.run("hv1", "cat", "/var/lib/kept") == "kept\n"
    assert world.links("hv1")["eno1"]["mtu"] == 1500
