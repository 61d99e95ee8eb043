"""Plan, rollout and audit through the program, on real hosts, judged by ip, bridge and ping."""

from __future__ import annotations

import copy
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from world import BRIDGE, GATEWAY, World

MANAGEMENT: dict[str, Any] = {
    "ethernets": {"eno1": {"addresses": [], "routes": []}},
    "bridges": {
        "br-mgmt": {
            "interfaces": ["eno1"],
            "addresses": ["{{ host.hostname }}/24"],
            "routes": [{"to": "default", "via": GATEWAY}],
            "parameters": {"stp": False, "forward-delay": 0},
        }
    },
}


def bridge(**other: Any) -> dict[str, Any]:
    """Return the guests' bridge, with some of it as said."""
    return {"br0": {**copy.deepcopy(BRIDGE), **other}}


def test_from_plan_to_repair(world: World) -> None:
    """What a plan shows a rollout does, once; drift is found with exit 3 and repaired."""
    world.intend("hv1", bridges=bridge())
    before = world.picture("hv1")
    planned = world.fleet("plan", "--host", "hv1", expect=3)
    assert "br0" in planned.out
    assert world.picture("hv1") == before

    world.roll("--host", "hv1")
    link = world.links("hv1")["br0"]
    assert (link["mtu"], link["linkinfo"]["info_data"]["ageing_time"]) == (1400, 12000)
    assert "UP" in link["flags"]
    assert world.held("hv1", "br0") == ["10.7.0.1/24"]
    assert world.links("hv1")["eno2"]["master"] == "br0"
    assert world.port("hv1", "eno2")["isolated"] is True

    assert "no drift" in world.fleet("audit", "--host", "hv1").out
    assert world.changes("hv1") == []
    settled = world.picture("hv1")
    again = world.fleet("rollout", "--host", "hv1", "--yes", "--json")
    assert world.outcomes(again) == {"hv1": "unchanged"}
    assert world.picture("hv1") == settled

    world.run("hv1", "ip", "link", "set", "br0", "mtu", "1300")
    world.run("hv1", "bridge", "link", "set", "dev", "eno2", "isolated", "off")
    world.run("hv1", "ip", "addr", "del", "10.7.0.1/24", "dev", "br0")
    audited = world.fleet("audit", "--host", "hv1", "--json", expect=3)
    found = {
        (item["resource"], item["attribute"]) for item in audited.json["hosts"]["hv1"]["drift"]
    }
    assert {
        ("bridge/br0", "mtu"),
        ("bridge/br0", "addresses"),
        ("bridge/br0", "ports.eno2.isolated"),
    } == found
    world.roll("--host", "hv1")
    assert world.picture("hv1") == settled
    assert world.port("hv1", "eno2")["isolated"] is True
    world.fleet("audit", "--host", "hv1")


def test_what_intent_no_longer_names_goes(world: World) -> None:
    """A bridge taken out of the intent is deleted, its NIC freed; what others made stays."""
    untouched = world.picture("hv1")
    world.intend("hv1", bridges=bridge(addresses=["10.7.0.1/24", "10.7.0.2/24"]))
    world.roll("--host", "hv1")
    assert world.held("hv1", "br0") == ["10.7.0.1/24", "10.7.0.2/24"]

    world.intend("hv1", bridges=bridge())
    world.roll("--host", "hv1")
    assert world.held("hv1", "br0") == ["10.7.0.1/24"]

    world.run("hv1", "ip", "link", "add", "theirs", "type", "bridge")
    world.intend("hv1")
    world.roll("--host", "hv1")
    links = world.links("hv1")
    assert "br0" not in links
    assert "theirs" in links
    assert "master" not in links["eno2"]
    world.run("hv1", "ip", "link", "del", "theirs")
    after = world.picture("hv1")
    assert [link["ifname"] for link in after[0]] == [link["ifname"] for link in untouched[0]]
    assert after[1] == untouched[1]
    assert world.changes("hv1") == []


def test_management_moves_into_a_bridge_and_back(world: World) -> None:
    """The NIC with the management address becomes a port, its address the bridge's, and back."""
    world.defaults["data"]["fleet"]["management"] = {"interface": "br-mgmt"}
    for host in world.addresses:
        world.intend(host, **MANAGEMENT)
    mac = world.links("hv1")["eno1"]["address"]
    argv = [*world.lab.controller_prefix(), "ping", "-n", "-i", "0.2", world.addresses["hv1"]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as ping:
        world.roll("--canary", "1")
        ping.send_signal(signal.SIGINT)
        seen = ping.communicate()[0]
    sent, received = (int(part.split()[0]) for part in seen.splitlines()[-2].split(",")[:2])
    assert sent - received <= 10, seen
    for host, address in world.addresses.items():
        assert world.held(host, "br-mgmt") == [f"{address}/24"]
        assert world.held(host, "eno1") == []
        assert world.links(host)["eno1"]["master"] == "br-mgmt"
        assert world.routes(host) == [("default", GATEWAY, "br-mgmt")]
        assert world.logs_in(host)
    assert world.links("hv1")["br-mgmt"]["address"] == mac
    world.fleet("audit")
    assert world.changes("hv2") == []

    world.defaults["data"]["fleet"]["management"] = {"interface": "eno1"}
    for host in world.addresses:
        world.intend(host)
    world.roll()
    for host, address in world.addresses.items():
        assert world.held(host, "eno1") == [f"{address}/24"]
        assert world.routes(host) == [("default", GATEWAY, "eno1")]
        assert "br-mgmt" not in world.links(host)
        assert world.logs_in(host)
    world.fleet("audit")


def test_a_reviewed_plan_is_what_runs(world: World, tmp_path: Path) -> None:
    """--plan runs the plan of the file and nothing else, on the hosts of the file."""
    plan = str(tmp_path / "reviewed.plan")
    world.intend("hv1", bridges=bridge())
    world.intend("hv2", bridges=bridge())
    world.fleet("plan", "--host", "hv1", "--out", plan, expect=3)
    ran = world.roll("--plan", plan, "--json")
    assert world.outcomes(ran) == {"hv1": "committed"}
    assert world.links("hv1")["br0"]["mtu"] == 1400
    assert "br0" not in world.links("hv2")


@pytest.mark.parametrize("moved", ["host", "intent"])
def test_a_plan_that_is_stale_is_refused(world: World, tmp_path: Path, moved: str) -> None:
    """A plan whose host or intent has moved since it was reviewed is refused; nothing changes."""
    plan = str(tmp_path / "reviewed.plan")
    world.intend("hv1", bridges=bridge())
    world.fleet("plan", "--host", "hv1", "--out", plan, expect=3)
    if moved == "host":
        world.run("hv1", "ip", "link", "set", "eno2", "up")
    else:
        world.intend("hv1", bridges=bridge(mtu=1300))
    before = world.picture("hv1")
    refused = world.fleet("rollout", "--plan", plan, "--yes", "--json", expect=1)
    assert world.outcomes(refused) == {"hv1": "refused"}
    assert "stale" in refused.json["hosts"]["hv1"]["message"]
    assert world.picture("hv1") == before


def test_somebody_else_s_guest_keeps_its_port(world: World) -> None:
    """A tap that a guest holds stays in the bridge, unmanaged, and is not in the way."""
    world.intend("hv1", bridges=bridge())
    world.roll("--host", "hv1")
    with guest(world, "hv1", "vnet0", "br0"):
        world.intend("hv1", bridges=bridge(mtu=1350))
        world.roll("--host", "hv1")
        assert world.links("hv1")["vnet0"]["master"] == "br0"
        assert world.links("hv1")["br0"]["mtu"] == 1350
        world.fleet("audit", "--host", "hv1")


class guest:
    """A process that holds a tap in a bridge, as QEMU would."""

    SCRIPT = """
import fcntl, struct, subprocess, sys
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
subprocess.run(["ip", "link", "set", sys.argv[1], "master", sys.argv[2], "up"], check=True)
print("up", flush=True)
sys.stdin.read()
"""

    def __init__(self, world: World, host: str, tap: str, into: str) -> None:
        argv = ["/usr/bin/python3", "-I", "-c", self.SCRIPT, tap, into]
        self.process = subprocess.Popen(
            [*world.lab.prefix(host), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> guest:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("", timeout=10)


@pytest.mark.parametrize("select", [["--host", "hv2"], ["--filter", "role=edge"]])
def test_only_selected_hosts_change(world: World, select: list[str]) -> None:
    """Hosts that the selectors leave out are neither planned nor changed."""
    for host, role in (("hv1", "compute"), ("hv2", "edge")):
        world.intend(host, bridges=bridge())
        world.hosts[host]["data"]["role"] = role
    world.write()
    ran = world.roll("--json", *select)
    assert world.outcomes(ran) == {"hv2": "committed"}
    assert "br0" in world.links("hv2")
    assert "br0" not in world.links("hv1")
