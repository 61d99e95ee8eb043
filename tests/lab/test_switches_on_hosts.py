"""Open vSwitch by the whole way: hosts with a database and a switch of their own, and traffic."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import GATEWAY, World, opened, until

pytestmark = pytest.mark.skipif(
    not shutil.which("ovs-vswitchd"), reason="no Open vSwitch on this machine"
)

RULES = "priority=1,actions=NORMAL\n"


def network(number: int, rules: str = RULES, **switch: Any) -> dict[str, Any]:
    return {
        "ethernets": {"eno2": {}},
        "bridges": {
            "ovs0": {
                "interfaces": ["eno2"],
                "addresses": [f"10.7.0.{number}/24"],
                "openvswitch": {"fail-mode": "secure", **switch},
            }
        },
        "flows": {"ovs0": rules},
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as made:
        made.intend("hv1", **network(1))
        made.intend("hv2", **network(2))
        made.lab.up()
        yield made


def answered(world: World, address: str) -> bool:
    """Say whether hv1 gets an answer from an address."""
    said = world.run("hv1", "ping", "-n", "-c", "1", "-W", "1", address, check=False)
    return "1 received" in said


def test_bridges_and_flows_carry_and_drop(world: World) -> None:
    """Two hosts reach each other through their switches, a flow drops what it names, a tag parts
    what it parts; the audit finds what ovs-vsctl and ovs-ofctl change, and a revert takes it back.
    """
    world.roll()
    assert until(lambda: answered(world, "10.7.0.2"))
    world.fleet("audit")
    assert world.changes("hv1") == []
    world.intend("hv1", **network(1, RULES + "priority=9,icmp,actions=drop\n"))
    ran = world.roll("--host", "hv1", "--json")
    assert not answered(world, "10.7.0.2")
    assert "icmp actions=drop" in world.run("hv1", "ovs-ofctl", "dump-flows", "ovs0")
    world.fleet("revert", "--yes", ran.json["run"])
    assert answered(world, "10.7.0.2")
    assert "icmp" not in world.run("hv1", "ovs-ofctl", "dump-flows", "ovs0")
    for number in (1, 2):
        ports = {"red0": {"type": "internal", "tag": 10}, "blue0": {"type": "internal", "tag": 20}}
        world.intend(f"hv{number}", **network(number, ports=ports))
    world.roll()
    for number, device in ((1, "red0"), (2, "red0")):
        world.run(f"hv{number}", "ip", "addr", "add", f"10.8.0.{number}/24", "dev", device)
        world.run(f"hv{number}", "ip", "link", "set", device, "up")
    assert until(lambda: answered(world, "10.8.0.2"))
    world.run("hv2", "ovs-vsctl", "set", "port", "red0", "tag=20")
    assert not answered(world, "10.8.0.2")
    world.run("hv2", "ovs-ofctl", "del-flows", "ovs0")
    drift = world.fleet("audit", expect=3).out
    assert "openvswitch ovs0" in drift
    assert "flows ovs0" in drift
    world.roll("--host", "hv2")
    assert until(lambda: answered(world, "10.8.0.2"))


def test_the_management_nic_moves_into_a_switch(world: World) -> None:
    """The host is reached at its address through the switch, also where that is taken back; a
    bridge that forwards nothing cuts it off, and it comes back by itself."""
    before = world.picture("hv1")
    moved = network(1)
    moved["bridges"]["ovs-mgmt"] = {
        "interfaces": ["eno1"],
        "addresses": [f"{world.addresses['hv1']}/24"],
        "routes": [{"to": "default", "via": GATEWAY}],
        "openvswitch": {"fail-mode": "standalone"},
    }
    moved["ethernets"]["eno1"] = {"addresses": [], "routes": []}
    settings = {"management": {"interface": "ovs-mgmt"}, "lab": {"interface": "eno1"}}
    world.hosts["hv1"]["data"] = {"network": moved, "fleet": settings}
    world.write()
    ran = world.roll("--host", "hv1", "--json")
    assert world.held("hv1", "ovs-mgmt") == [f"{world.addresses['hv1']}/24"]
    assert world.held("hv1", "eno1") == []
    assert "eno1" in world.run("hv1", "ovs-vsctl", "list-ports", "ovs-mgmt")
    assert world.logs_in("hv1")
    world.fleet("audit", "--host", "hv1")
    # What comes in reaches the kernel beside a switch in user space; what goes out does not.
    cut = "priority=9,tcp,in_port=LOCAL,tp_src=22,actions=drop\n"
    moved["flows"]["ovs-mgmt"] = cut + RULES
    world.write()
    world.roll("--host", "hv1", expect=4)
    assert until(lambda: world.logs_in("hv1"))
    assert "tp_src=22" not in world.run("hv1", "ovs-ofctl", "dump-flows", "ovs-mgmt")
    del moved["flows"]["ovs-mgmt"]
    world.write()
    world.fleet("revert", "--yes", ran.json["run"])
    assert world.logs_in("hv1")
    assert world.picture("hv1") == before
    assert world.run("hv1", "ovs-vsctl", "list-br") == ""


def test_a_running_switch_is_intent(world: World) -> None:
    """What somebody made with ovs-vsctl and ovs-ofctl is intent that changes nothing."""
    made = "add-br br-x -- set bridge br-x datapath_type=netdev -- add-port br-x eno2 tag=7"
    world.run("hv1", "ovs-vsctl", *made.split())
    world.run("hv1", "ovs-ofctl", "add-flow", "br-x", "cookie=7,udp,actions=drop")
    found = yaml.safe_load(world.fleet("observe", "hv1", "--as-intent").out)
    assert found["network"]["bridges"]["br-x"]["openvswitch"]["ports"]["eno2"] == {"tag": 7}
    world.hosts["hv1"]["data"] = found
    world.write()
    assert world.changes("hv1") == []
    world.fleet("audit", "--host", "hv1")
