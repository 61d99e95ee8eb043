"""Open vSwitch under systemd and with the kernel's datapath: restarts, boots and power cuts."""

from __future__ import annotations

from typing import Any

import pytest
from machine import Machine, until

pytestmark = pytest.mark.timeout(1500)

PAIR = {"va": {"peer": "vb"}, "vb": {"peer": "va"}}
SWITCH = {
    "fail-mode": "secure",
    "external-ids": {"owner": "fleet"},
    "ports": {"va": {"tag": 10}},
}
FLOWS = {
    "groups": "group_id=4,type=all,bucket=output:va\n",
    "flows": "priority=9,udp,actions=group:4\npriority=1,actions=NORMAL\n",
}
WITH: dict[str, Any] = {
    "ethernets": {"eth0": {}},
    "virtual-ethernets": PAIR,
    "bridges": {"ovs0": {"interfaces": ["va"], "openvswitch": SWITCH}},
    "flows": {"ovs0": FLOWS},
}


def flows(machine: Machine) -> list[str]:
    """What the switch forwards by, as ovs-ofctl prints it."""
    said = machine.run(
        "ovs-ofctl --no-stats dump-flows ovs0; ovs-ofctl -O OpenFlow15 dump-groups ovs0"
    )
    return sorted(line.strip() for line in said.splitlines() if "actions=" in line)


def database(machine: Machine) -> str:
    return machine.run(
        "ovs-vsctl show | grep -v -e ovs_version -e '^[0-9a-f-]*$'; "
        "ovs-vsctl --columns=name,fail_mode,external_ids list Bridge"
    )


def test_what_a_switch_forgets_comes_back_with_it(machine: Machine) -> None:
    """After a restart of ovs-vswitchd, and after a boot, flows and groups are those that were
    committed, before any guest starts; an audit finds no drift."""
    machine.intend(WITH)
    machine.roll()
    before, there = flows(machine), database(machine)
    assert len(before) == 3
    machine.run("systemctl kill -s KILL ovs-vswitchd; systemctl restart ovs-vswitchd")
    until(lambda: flows(machine) == before, 60, "the flows are there again")
    machine.reboot()
    until(lambda: flows(machine) == before, 60, "the flows are there again")
    assert database(machine) == there
    assert machine.drift() == []
    assert "apply-switch" in machine.run("systemctl list-units --no-legend 'fleet-apply*'")
    assert machine.run("ovs-vsctl get Open_vSwitch . other_config") == "{}"


@pytest.mark.parametrize(("state", "count"), [("APPLYING", 2), ("APPLIED", 1)])
def test_a_power_cut_leaves_the_database_as_it_was(
    machine: Machine, state: str, count: int
) -> None:
    """The database is durable at once: what nobody confirmed is out of it before ovs-vswitchd
    starts, and what was there is there again."""
    machine.intend(WITH)
    machine.roll(expect=None)
    before, there, boot = flows(machine), database(machine), machine.boot_id()
    other = {
        **WITH,
        "bridges": {
            "ovs0": {
                "interfaces": ["va"],
                "openvswitch": {**SWITCH, "fail-mode": "standalone", "ports": {"va": {"tag": 20}}},
            },
            "ovs1": {"openvswitch": {}},
        },
        "flows": {"ovs0": "priority=3,tcp,actions=drop\n"},
    }
    machine.intend(other)
    machine.watch(state, count, "reset")
    with machine.start("rollout", "--yes", "--confirm-timeout", "60") as rollout:
        machine.await_boot(boot)
        rollout.communicate(timeout=400)
    last = machine.transactions()[-1]
    assert last["terminal"], last
    if last["state"] == "REVERTED":
        assert database(machine) == there
        until(lambda: flows(machine) == before, 60, "the flows are there again")
        machine.intend(WITH)
    else:
        assert (state, last["state"]) == ("APPLIED", "COMMITTED")
    assert machine.drift() == []
