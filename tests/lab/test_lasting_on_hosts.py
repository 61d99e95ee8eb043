"""What makes a committed state last: files, the boot's program, and what audits say of them."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from pythons import give
from world import BRIDGE, World, until

from fleet.host.transactions.lasting import GENERATORS
from fleet.host.transactions.units import unit_texts
from fleet.lab import LabError

NETPLAN = "/etc/netplan/90-fleet.yaml"
SYSCTL = "/etc/sysctl.d/90-fleet.conf"
GENERATE = next((path for path in GENERATORS if os.path.exists(path)), "")
needs_netplan = pytest.mark.skipif(not GENERATE, reason="needs netplan: apt-get install netplan.io")


def managed(world: World, manager: str = "netplan") -> None:
    """Say that hosts have a manager, a bridge and a kernel parameter."""
    world.defaults["data"]["fleet"]["manager"] = manager
    world.defaults["data"]["network"]["ethernets"]["eno2"] = {"optional": True, "mtu": 1450}
    world.defaults["data"]["sysctl"] = {"net.ipv4.ip_forward": 1}
    world.intend("hv1", bridges={"br0": BRIDGE})


def drift(world: World, expect: int = 3) -> list[tuple[str, str, str]]:
    """Return (resource, attribute, when) of what an audit of hv1 finds."""
    ran = world.fleet("audit", "--host", "hv1", "--json", expect=expect)
    found = ran.json["hosts"]["hv1"]["drift"]
    return [(each["resource"], each["attribute"], each["when"]) for each in found]


def staged(world: World) -> str:
    """Return what of the files in preparation lies about."""
    return world.run("hv1", "find", "/etc", "-name", "*fleet-staged*", "-o", "-name", "*.fleet-b*")


@needs_netplan
def test_the_managers_file_is_netplans(world: World) -> None:
    """A rollout leaves a netplan file that netplan reads, root's alone, once; nothing else."""
    managed(world)
    assert "file /etc/netplan/90-fleet.yaml" in world.fleet("plan", "--host", "hv1", expect=3).out
    world.roll("--host", "hv1")
    assert world.run("hv1", "stat", "-c", "%a %U", NETPLAN).split() == ["600", "root"]
    world.run(
        "hv1", "sh", "-ec", f"mkdir -p /tmp/n/etc; cp -a {os.path.dirname(NETPLAN)} /tmp/n/etc"
    )
    world.run("hv1", GENERATE, "--root-dir", "/tmp/n")
    made = world.run("hv1", "sh", "-c", "cat /tmp/n/run/systemd/network/*netplan*")
    assert {"Kind=bridge", "STP=false", "Address=10.7.0.1/24", "Gateway=198.18.7.254"} <= set(
        made.split()
    )
    assert world.changes("hv1") == []
    assert drift(world, expect=0) == []
    assert staged(world) == ""


@needs_netplan
def test_what_is_wrong_at_the_next_boot_is_told_from_what_is_wrong_now(world: World) -> None:
    """Edited, missing and too open files are drift at next boot, the kernel's is now; a rollout
    repairs both."""
    managed(world)
    world.roll("--host", "hv1")
    good = world.run("hv1", "cat", NETPLAN, SYSCTL)
    world.run("hv1", "sed", "-i", "s/mtu: 1400/mtu: 1500/", NETPLAN)
    world.run("hv1", "chmod", "0644", NETPLAN)
    world.run("hv1", "rm", SYSCTL)
    assert drift(world) == [
        (f"file/{NETPLAN}", "text", "at next boot"),
        (f"file/{NETPLAN}", "mode", "at next boot"),
        (f"file/{SYSCTL}", "", "at next boot"),
    ]
    shown = world.fleet("audit", "--host", "hv1", expect=3).out
    assert f"file {NETPLAN} (at next boot)" in shown
    assert "mtu: 1500" in shown
    world.run("hv1", "sysctl", "-qw", "net.ipv4.ip_forward=0")
    assert drift(world)[0] == ("sysctl/net.ipv4.ip_forward", "value", "now")
    world.roll("--host", "hv1")
    assert world.run("hv1", "cat", NETPLAN, SYSCTL) == good
    assert world.run("hv1", "stat", "-c", "%a", NETPLAN).strip() == "600"
    assert drift(world, expect=0) == []


@needs_netplan
def test_a_host_that_goes_back_has_its_files_back(world: World) -> None:
    """A change that cuts the host off leaves the manager's file as the last commit wrote it."""
    managed(world)
    world.roll("--host", "hv1")
    good = world.run("hv1", "cat", NETPLAN, SYSCTL)
    world.defaults["data"]["network"]["ethernets"]["eno1"]["addresses"] = ["198.18.99.1/24"]
    world.defaults["data"]["network"]["ethernets"]["eno1"]["routes"] = []
    world.defaults["data"]["sysctl"]["net.ipv4.conf.all.rp_filter"] = 2
    world.defaults["data"]["fleet"]["management"]["address"] = "198.18.99.1"
    world.write()
    world.roll("--host", "hv1", "--confirm-timeout", "10", expect=4)
    assert world.run("hv1", "cat", NETPLAN, SYSCTL) == good
    assert staged(world) == ""


@needs_netplan
def test_another_manager_takes_the_file_away(world: World) -> None:
    """With manager none fleet's file goes, and what others keep beside it stays."""
    managed(world)
    world.roll("--host", "hv1")
    world.run("hv1", "sh", "-c", f"echo 'network: {{}}' > {os.path.dirname(NETPLAN)}/50-site.yaml")
    managed(world, "none")
    assert world.changes("hv1") == [f"delete file/{NETPLAN}"]
    world.roll("--host", "hv1")
    assert world.run("hv1", "ls", os.path.dirname(NETPLAN)).split() == ["50-site.yaml"]
    assert world.changes("hv1") == []


@needs_netplan
def test_netplan_has_a_say_before_anything_changes(world: World) -> None:
    """Where netplan would refuse its files, the rollout is refused with netplan's own reason."""
    managed(world)
    site = f"{os.path.dirname(NETPLAN)}/50-site.yaml"
    world.run("hv1", "sh", "-c", f"echo 'network: {{bogus: 1}}' > {site}")
    before = world.picture("hv1")
    host = world.roll("--host", "hv1", "--json", expect=1).json["hosts"]["hv1"]
    assert host["outcome"] == "refused"
    assert "unknown key 'bogus'" in host["problems"][0]["actual"]
    assert site in host["problems"][0]["actual"]
    assert world.picture("hv1") == before
    assert world.run("hv1", "ls", os.path.dirname(NETPLAN)).split() == ["50-site.yaml"]


def test_a_state_that_the_next_boot_would_not_bring_is_drift(world: World) -> None:
    """What the kernel has as intended, but nothing has committed, is drift at next boot."""
    managed(world, "none")
    world.roll("--host", "hv1")
    world.run("hv1", "ip", "link", "set", "br0", "mtu", "1380")
    world.intend("hv1", bridges={"br0": {**BRIDGE, "mtu": 1380}})
    assert drift(world) == [("file//var/lib/fleet/state.json", "resources", "at next boot")]
    world.roll("--host", "hv1")
    assert drift(world, expect=0) == []
    world.run("hv1", "sed", "-i", "s/1380/1390/", "/var/lib/fleet/state.json")
    assert drift(world) == [("file//var/lib/fleet/state.json", "text", "at next boot")]
    world.roll("--host", "hv1")
    assert drift(world, expect=0) == []


def boot(world: World, host: str, interpreter: str = "") -> None:
    """Run what the boot's units would, in their order, by the very words of ExecStart."""
    (archive,) = world.run(host, "sh", "-c", "ls /var/lib/fleet/boot/*.pyz").split()
    texts = unit_texts(archive)
    for unit in ("fleet-recover", "fleet-apply-early", "fleet-apply"):
        started = re.search(r"^ExecStart=(.*)$", texts[f"{unit}.service"], re.MULTILINE)
        assert started is not None
        words = started[1].split()
        assert words[:4] == ["/usr/bin/python3", "-I", "-S", "-B"]
        world.run(host, interpreter or words[0], *words[1:])


def rebooted(world: World, host: str) -> None:
    """Cut a host's power and boot it: its disk stays, the kernel's state is new."""
    world.lab.kill(host)
    until(lambda: not world.lab.status()[host]["pid"])
    world.lab.boot(host)


def pictured(world: World, host: str) -> Any:
    """Return a host's picture without indexes, and MACs that the kernel made up."""
    picture = world.picture(host)
    for link in picture[0]:
        link.pop("link_index", None)
        if link["ifname"] in ("va", "vb"):
            del link["address"]
    return picture


def everything() -> dict[str, Any]:
    """Return an intent with something of all that no network manager keeps."""
    eno1 = {"addresses": [], "routes": []}
    managed_by = {
        "interfaces": ["eno1"],
        "addresses": ["198.18.7.11/24"],
        "routes": [{"to": "default", "via": "198.18.7.254"}],
        "parameters": {"stp": False, "forward-delay": 0},
    }
    guests = {
        **BRIDGE,
        "interfaces": ["eno2", "va"],
        "routing-policy": [{"from": "10.7.0.0/24", "table": 100, "priority": 1000}],
        "routes": [{"to": "default", "via": "10.7.0.254", "table": 100}],
    }
    return {
        "ethernets": {"eno1": eno1, "eno2": {"mtu": 1450}},
        "virtual-ethernets": {"va": {"peer": "vb"}, "vb": {"peer": "va"}},
        "bridges": {"br-mgmt": managed_by, "br0": guests},
    }


@pytest.mark.parametrize("python", ["the host's own", "3.13"])
def test_a_boot_brings_the_committed_state_back(world: World, python: str) -> None:
    """After a power cut the units' program makes the host as it was committed, by whatever Python
    the host has by then; run again it changes nothing."""
    world.defaults["data"]["sysctl"] = {"net.ipv4.ip_forward": 1}
    world.intend("hv1", **everything())
    world.roll("--host", "hv1")
    before = pictured(world, "hv1")
    assert set(world.links("hv1")) >= {"br-mgmt", "br0", "va", "vb"}
    rebooted(world, "hv1")
    assert "br0" not in world.links("hv1")
    interpreter = give(world, "hv1", python) if python[0] == "3" else ""
    boot(world, "hv1", interpreter)
    until(lambda: pictured(world, "hv1") == before, 5)
    assert world.run("hv1", "sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
    assert world.port("hv1", "eno2")["isolated"] is True
    boot(world, "hv1", interpreter)
    assert pictured(world, "hv1") == before
    assert world.logs_in("hv1")
    assert drift(world, expect=0) == []


def test_a_boot_without_a_nic_brings_the_rest_back(world: World) -> None:
    """Where hardware is gone the boot's program says so, and brings back all that it can."""
    guests = {"addresses": ["10.7.0.1/24"], "parameters": {"stp": False}}
    world.intend("hv1", bridges={"br0": guests}, ethernets={"eno2": {"mtu": 1450}})
    world.roll("--host", "hv1")
    rebooted(world, "hv1")
    world.run("hv1", "ip", "link", "delete", "eno2")
    with pytest.raises(LabError, match="ethernet/eno2"):
        boot(world, "hv1")
    assert world.held("hv1", "br0") == ["10.7.0.1/24"]
