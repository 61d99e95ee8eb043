"""Probes between apply and confirm: what answered before has to answer, or the host goes back."""

from __future__ import annotations

import copy
import subprocess
from typing import Any

import pytest
from test_main_job import bridge, guest
from world import GATEWAY, World

#: A host gate that does by hand, between apply and confirm, what a change may bring about.
GATE = """import subprocess


def meanwhile(task):
    for argv in {deeds!r}:
        subprocess.run(argv, check=True, capture_output=True)
"""
#: net/ipv4/arp.c, arp_ignore(): 8 answers for no local address.
NO_ECHO, NO_ARP = "net.ipv4.icmp_echo_ignore_all=1", "net.ipv4.conf.all.arp_ignore=8"


def meanwhile(world: World, *deeds: list[str]) -> None:
    """Have the next rollout do some things when everything is applied, before it confirms."""
    folder = world.project / "tasks"
    folder.mkdir(exist_ok=True)
    (folder / "meanwhile.py").write_text(GATE.format(deeds=list(deeds)))
    world.defaults["data"]["fleet"]["gates"] = ["meanwhile"] if deeds else []
    world.write()


def router(world: World, setting: str) -> list[str]:
    """Return the command that sets a kernel parameter of the lab's router, the gateway."""
    return [*world.lab.router_prefix(), "sysctl", "-qw", setting]


def ended(world: World, expect: int) -> dict[str, Any]:
    """Roll the first host out and return how it ended."""
    ran = world.roll("--host", "hv1", "--json", expect=expect)
    return dict(ran.json["hosts"]["hv1"])


def test_a_gateway_that_stops_answering_takes_the_change_back(world: World) -> None:
    """With neither echo nor ARP the host is put back, the gateway named; either one is enough."""
    before = world.picture("hv1")
    world.intend("hv1", bridges=bridge())
    meanwhile(world, router(world, NO_ECHO), router(world, NO_ARP))
    end = ended(world, 4)
    assert end["outcome"] == "reverted"
    assert f"gateway {GATEWAY}" in end["message"]
    assert "no answer to ICMP echo or ARP" in str(end["problems"])
    assert world.picture("hv1") == before

    subprocess.run(router(world, NO_ARP.replace("8", "0")), check=True)
    meanwhile(world)
    assert ended(world, 0)["outcome"] == "committed"  # by ARP alone

    subprocess.run(router(world, NO_ECHO.replace("1", "0")), check=True)
    world.intend("hv1", bridges=bridge(mtu=1350))
    meanwhile(world, router(world, NO_ARP))
    assert ended(world, 0)["outcome"] == "committed"  # by echo alone


def test_a_gateway_that_was_silent_before_is_asked_nothing(world: World) -> None:
    """What did not answer before the change is no reason to take it back."""
    assert world.logs_in("hv1")  # both know each other's MAC address from here on
    for setting in (NO_ECHO, NO_ARP):
        subprocess.run(router(world, setting), check=True)
    world.intend("hv1", bridges=bridge())
    assert ended(world, 0)["outcome"] == "committed"


@pytest.mark.parametrize("into", ["nomaster", "master br1"])
def test_a_guest_whose_port_is_detached_takes_the_change_back(world: World, into: str) -> None:
    """A guest that loses its port while a change waits is found before the confirm: reverted."""
    bridges = {**bridge(), "br1": {"parameters": {"stp": False}}}
    world.intend("hv1", bridges=bridges)
    world.roll("--host", "hv1")
    changed = copy.deepcopy(bridges)
    changed["br0"]["mtu"] = 1350
    with guest(world, "hv1", "vnet0", "br0"):
        world.intend("hv1", bridges=changed)
        deed = ["ip", "link", "set", "vnet0", *into.split()]
        meanwhile(world, [*world.lab.prefix("hv1"), *deed])
        end = ended(world, 4)
        assert end["outcome"] == "reverted"
        assert "guest vnet0" in end["message"]
        assert "port is attached to" in str(end["problems"])
        links = world.links("hv1")
        assert links["vnet0"]["master"] == "br0"
        assert links["br0"]["mtu"] == 1400
