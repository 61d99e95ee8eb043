"""What a commit leaves comes back after a boot, and nothing else does, under a real systemd."""

from __future__ import annotations

import json
from typing import Any

import pytest
from machine import ADDRESS, GATEWAY, NETPLAN, NETWORKD, Machine, until
from resets import files, fleets, reset_at, tried_out

pytestmark = pytest.mark.timeout(1500)

ETH0: dict[str, Any] = {"addresses": [], "routes": []}
MANAGEMENT = {
    "interfaces": ["eth0"],
    "addresses": [f"{ADDRESS}/24"],
    "routes": [{"to": "default", "via": GATEWAY}],
    "parameters": {"stp": False, "forward-delay": 0},
}
GUESTS = {
    "interfaces": ["va", "tap7"],
    "mtu": 1400,
    "addresses": ["10.7.0.1/24"],
    "parameters": {"stp": False, "forward-delay": 0, "ageing-time": 120, "priority": 4096},
    "ports": {"va": {"isolated": True, "cost": 7}},
    "routing-policy": [{"from": "10.7.0.0/24", "table": 100, "priority": 1000}],
    "routes": [{"to": "default", "via": "10.7.0.254", "table": 100}],
}
#: Something of each kind that networkd can make, and the management address on a bridge.
ALL: dict[str, Any] = {
    "ethernets": {"eth0": ETH0, "eth1": {"mtu": 1450}},
    "virtual-ethernets": {"va": {"peer": "vb"}, "vb": {"peer": "va"}},
    "taps": {"tap7": {"owner": "nobody", "mtu": 1400}},
    "macvlans": {"mv1": {"link": "eth1", "mode": "bridge", "addresses": ["10.9.0.1/24"]}},
    "tunnels": {"vx5": {"mode": "vxlan", "id": 5, "local": "10.7.0.1", "remote": "10.7.0.254"}},
    "bridges": {"br-mgmt": MANAGEMENT, "br0": GUESTS},
}
FEW: dict[str, Any] = {
    "ethernets": {"eth0": ETH0},
    "bridges": {"br-mgmt": MANAGEMENT},
}


def applied_at_boot(machine: Machine) -> list[str]:
    """Return what fleet's own unit had to apply, for the manager had not brought it back."""
    log = machine.unit_log("fleet-apply.service")
    return [line for line in log.splitlines() if line.startswith("fleet: ")]


def test_networkd_brings_everything_back(machine: Machine) -> None:
    """After a boot networkd alone has made what was committed, the management address on its
    bridge with its NIC's MAC; nothing was tried out that stays, and an audit finds no drift."""
    machine.intend(ALL)
    machine.roll()
    assert tried_out(machine) == []
    before, mac = machine.picture(), machine.mac("br-mgmt")
    assert mac == machine.mac("eth0")
    assert set(before["links"]) >= {"br-mgmt", "br0", "va", "vb", "tap7", "mv1", "vx5"}
    machine.reboot()
    assert machine.picture() == before
    assert machine.mac("br-mgmt") == mac
    assert applied_at_boot(machine) == []
    assert machine.drift() == []
    assert machine.transactions()[-1]["first_boot"] == {"result": "passed"}
    assert machine.ssh("test -e /var/lib/fleet/unproven.json") is None


def test_now_is_told_from_the_next_boot(machine: Machine) -> None:
    """A changed file of networkd's is drift at next boot, a changed device is drift now; a rollout
    mends both."""
    machine.intend(ALL)
    machine.roll(expect=None)
    file = "/etc/systemd/network/05-fleet-br0.netdev"
    machine.run(f"sed -i s/AgeingTimeSec=120/AgeingTimeSec=300/ {file}")
    assert machine.drift() == [(f"file/{file}", "text", "at next boot")]
    machine.run("ip link set br0 mtu 1380")
    assert machine.drift()[0] == ("bridge/br0", "mtu", "now")
    machine.roll()
    assert machine.drift() == []
    assert machine.run(f"grep Ageing {file}") == "AgeingTimeSec=120"


def test_a_device_that_goes_stays_away(machine: Machine) -> None:
    """A device whose file is still there until the commit is not made again by networkd."""
    machine.intend(ALL)
    machine.roll(expect=None)
    machine.intend(FEW)
    machine.roll()
    kept = set(machine.picture()["links"])
    assert kept.isdisjoint({"br0", "va", "vb", "tap7", "mv1", "vx5"})
    assert tried_out(machine) == []
    machine.run("networkctl reload; sleep 1")
    assert set(machine.picture()["links"]) == kept


def test_going_back_has_networkd_go_back(machine: Machine) -> None:
    """Where nobody can confirm, networkd has its old files again, and the kernel is as before."""
    machine.intend(FEW)
    machine.roll(expect=None)
    before, held = machine.picture(), files(machine)
    machine.intend(
        {**FEW, "bridges": {"br-mgmt": {**MANAGEMENT, "addresses": ["198.18.7.99/24"]}}},
        management={"interface": "br-mgmt", "address": "198.18.99.1"},
    )
    machine.fleet("rollout", "--yes", "--confirm-timeout", "25", expect=None)
    until(lambda: machine.ssh("true", timeout=15) is not None, 120, "a login again")
    until(lambda: machine.picture() == before, 60, "the kernel is as before")
    assert files(machine) == held


def test_the_timer_puts_the_host_back_alone(machine: Machine) -> None:
    """With the helper and both watchdogs killed and nobody able to log in, systemd's timer puts
    the host back at the deadline."""
    machine.intend(FEW)
    machine.roll(expect=None)
    before, held = machine.picture(), files(machine)
    machine.intend({**FEW, "virtual-ethernets": {"vc": {"peer": "vd"}, "vd": {"peer": "vc"}}})
    machine.watch("APPLYING", 1, "kill", 50)
    machine.roll(expect=None, deadline=25)
    until(lambda: machine.ssh("true", timeout=15) is not None, 120, "a login again")
    last = until(lambda: (found := machine.transactions()[-1])["terminal"] and found, 60, "its end")
    assert last["state"] == "REVERTED"
    log = machine.unit_log(f"fleet-deadman-{last['transaction']}.service")
    assert '"state":"REVERTED"' in log.replace(" ", "")
    assert machine.picture() == before
    assert files(machine) == held


@pytest.mark.parametrize(
    ("state", "count"),
    [("ARMED", 1), ("APPLYING", 6), ("APPLIED", 1), ("CONFIRMED", 1), ("PERSISTING", 1)],
)
def test_a_hard_reset_leaves_before_or_after(machine: Machine, state: str, count: int) -> None:
    """Reset without warning in any state, the host comes up reachable, as it was before or as it
    was committed, never between; and the journal says which."""
    wanted = {
        **FEW,
        "virtual-ethernets": {"ve": {"peer": "vf"}, "vf": {"peer": "ve", "mtu": 1300}},
        "bridges": {
            "br-mgmt": MANAGEMENT,
            "br9": {"interfaces": ["ve"], "parameters": {"stp": False, "forward-delay": 0}},
        },
    }
    reset_at(machine, FEW, wanted, state, count)


def test_a_first_boot_that_reaches_nothing_goes_back(machine: Machine) -> None:
    """Where a target that was reached at the commit is not reached after the first boot, the files
    of the boot before come back, the host boots once more into them, and ``fleet status`` says so.
    """
    machine.intend(FEW)
    machine.roll(expect=None)
    machine.reboot()
    before, held = machine.picture(), fleets(machine)
    boot = machine.boot_id()
    machine.intend(
        {**FEW, "virtual-ethernets": {"vg": {"peer": "vh"}, "vh": {"peer": "vg"}}},
        probes={"targets": [f"{GATEWAY}:8999"]},
    )
    with machine.listener(8999):
        machine.roll()
    assert "vg" in machine.picture()["links"]
    machine.ssh("systemctl --no-block reboot")
    machine.await_boot(boot)
    first = machine.boot_id()
    if machine.transactions()[-1]["first_boot"].get("result") != "went back":
        machine.await_boot(first)
    assert machine.picture() == before
    assert fleets(machine) == held
    told = machine.transactions()[-1]["first_boot"]
    assert told["result"] == "went back"
    assert f"{GATEWAY}:8999" in told["reason"]
    assert told["left"] == []
    assert "WENT BACK" in machine.fleet("status", expect=None)
    machine.intend(FEW)
    assert machine.drift() == []


def test_fleets_own_units_bring_everything_back(machine: Machine) -> None:
    """With no manager to write for, the files of networkd's go, and after a boot fleet's own units
    have made what was committed, tables before the network."""
    table = {"inet/fleet-test": {"rules": "chain in { type filter hook input priority 0; }"}}
    machine.intend({**ALL, "nftables": table}, manager="none")
    machine.roll()
    assert fleets(machine) == []
    before = machine.picture()
    machine.reboot()
    assert machine.picture() == before
    assert "fleet-test" in machine.unit_log("fleet-apply-early.service")
    assert any("br-mgmt" in line for line in applied_at_boot(machine))
    assert machine.drift() == []


def test_netplan_brings_everything_back(machine: Machine) -> None:
    """With netplan as the host's manager the same holds: tried out from /run/netplan, renamed into
    /etc, and back after a boot."""
    machine.intend(FEW)
    machine.run("cd /var/cache/fleet-lab/optional && dpkg -i --force-confold *.deb >/dev/null 2>&1")
    site = {"network": {"version": 2, "ethernets": {"eth0": {"addresses": [f"{ADDRESS}/24"]}}}}
    machine.run(f"rm -f {NETWORKD}; cat > {NETPLAN}; chmod 600 {NETPLAN}", json.dumps(site))
    machine.intend(ALL, manager="netplan")
    machine.roll()
    assert [name for name in fleets(machine) if name.startswith("etc/")] == [
        "etc/netplan/90-fleet.yaml"
    ]
    assert machine.ssh("test -e /run/netplan/90-fleet.yaml") is None
    before, mac = machine.picture(), machine.mac("br-mgmt")
    machine.reboot()
    assert machine.picture() == before
    assert machine.mac("br-mgmt") == mac == machine.mac("eth0")
    assert machine.drift() == []
    brought = "\n".join(applied_at_boot(machine))
    for name in ("br-mgmt", "vx5"):
        assert name not in brought
