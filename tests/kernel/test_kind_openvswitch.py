"""Bridges of Open vSwitch and their flows, judged by ovs-vsctl, ovs-ofctl and ip."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import HelperFailed, applied, confirm
from switch import DATABASE, SwitchHost, switch_host

pytestmark = pytest.mark.skipif(
    not shutil.which("ovs-vswitchd"), reason="no Open vSwitch on this machine"
)

BRIDGE: dict[str, Any] = {
    "interfaces": ["p1"],
    "openvswitch": {
        "datapath_type": "netdev",
        "fail_mode": "secure",
        "external_ids": {"owner": "fleet"},
        "ports": {"p1": {"tag": 10}, "in0": {"type": "internal", "trunks": [5, 6]}},
    },
    "addresses": [{"address": "198.18.9.1/24"}],
}


@pytest.fixture
def host() -> Iterator[SwitchHost]:
    with switch_host() as made:
        for number in (1, 2, 3):
            made.ip(f"link add p{number} type veth peer name q{number}")
            made.ip(f"link set p{number} up")
            made.ip(f"link set q{number} up")
        yield made


def state(*resources: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": [{"kind": kind, "name": name, "spec": spec} for kind, name, spec in resources],
    }


def roll_out(host: SwitchHost, wanted: dict[str, Any], name: str) -> None:
    helper, digest = applied(host, name=name, state=wanted)
    confirm(host.confirming(), digest, name)
    helper.close()


def changes(host: SwitchHost, wanted: dict[str, Any]) -> list[Any]:
    helper = host.helper()
    plan = helper.call("plan", state=wanted)["plan"]
    helper.close()
    assert plan["problems"] == []
    return list(plan["changes"])


def test_a_revert_does_not_wait_for_the_switch(host: SwitchHost) -> None:
    """While ovsdb-server is dead the kernel's part is put back; the rest once it lives again."""
    host.vsctl("add-br ovs0 -- set bridge ovs0 datapath_type=netdev external_ids:by=hand")
    before = host.database()
    wanted = state(
        ("openvswitch", "ovs0", BRIDGE),
        ("ethernet", "p2", {"mtu": 1400}),
        ("sysctl", "net.ipv4.ip_forward", {"value": "1"}),
    )
    helper, _ = applied(host, name="tx1", state=wanted)
    assert "mtu 1400" in host.ip("link show p2")
    host.sh("sh", "-c", "kill -9 $(cat /run/openvswitch/ovsdb-server.pid)")
    asked = threading.Thread(target=lambda: helper.call("revert", transaction="tx1"))
    asked.start()
    end = time.monotonic() + 10
    while "mtu 1500" not in host.ip("link show p2"):
        assert time.monotonic() < end, host.ip("link show p2")
        time.sleep(0.05)
    host.sh("sh", "-c", DATABASE)
    asked.join(40)
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert host.database() == before


def test_a_bridge_is_made_changed_and_taken_away(host: SwitchHost) -> None:
    """Each attribute of the intent is in the database, and nothing else of fleet's is."""
    before = host.database()
    roll_out(host, state(("openvswitch", "ovs0", BRIDGE)), "tx1")
    assert host.vsctl("list-ports ovs0").split() == ["in0", "p1"]
    assert host.row("Port", "p1")["tag"] == 10
    assert host.row("Port", "in0")["trunks"] == ["set", [5, 6]]
    assert host.row("Bridge", "ovs0")["fail_mode"] == "secure"
    assert "198.18.9.1/24" in host.ip("-br address show ovs0")
    assert changes(host, state(("openvswitch", "ovs0", BRIDGE))) == []
    host.vsctl("set bridge ovs0 external_ids:somebody=else")
    other = {
        **BRIDGE,
        "interfaces": ["p1", "p2"],
        "openvswitch": {
            "datapath_type": "netdev",
            "rstp": True,
            "other_config": {"mac-aging-time": "60"},
            "ports": {"p1": {"tag": 20, "ingress_policing_rate": 1000}},
            "mirrors": {"m0": {"select_all": True, "output_port": "p2"}},
        },
    }
    wanted = state(("openvswitch", "ovs0", other))
    roll_out(host, wanted, "tx2")
    assert host.vsctl("list-ports ovs0").split() == ["p1", "p2"]
    assert host.row("Port", "p1")["tag"] == 20
    assert host.row("Interface", "p1")["ingress_policing_rate"] == 1000
    bridge = host.row("Bridge", "ovs0")
    assert bridge["rstp_enable"] is True
    assert bridge["fail_mode"] == ["set", []]
    assert bridge["external_ids"] == ["map", [["somebody", "else"]]]
    assert bridge["other_config"] == ["map", [["mac-aging-time", "60"]]]
    assert host.row("Mirror", "m0")["select_all"] is True
    assert changes(host, wanted) == []
    roll_out(host, state(), "tx3")
    assert host.database() == before


def test_a_revert_puts_the_database_and_the_flows_back(host: SwitchHost) -> None:
    """Whatever was in the database before, made by hand, is in it after a revert."""
    host.vsctl("add-br ovs0 -- set bridge ovs0 datapath_type=netdev external_ids:by=hand")
    host.vsctl("add-port ovs0 p1 tag=7 -- add-port ovs0 p3 trunks=1,2")
    host.vsctl("-- --id=@p get port p1 -- --id=@m create mirror name=m1 select_all=true"
               " output_port=@p -- set bridge ovs0 mirrors=@m")  # fmt: skip
    host.sh("ovs-ofctl", "add-flow", "ovs0", "cookie=0x99,priority=7,tcp,actions=drop")
    before, flows = host.database(), host.flows("ovs0")
    rules = "priority=9,udp,in_port=p1,actions=drop\n"
    wanted = state(
        ("openvswitch", "ovs0", {**BRIDGE, "addresses": []}), ("flows", "ovs0", {"flows": rules})
    )
    helper, _ = applied(host, name="tx1", state=wanted)
    assert host.database() != before
    assert any("udp" in line for line in host.flows("ovs0"))
    helper.call("revert", transaction="tx1")
    host.wait_for_outcome()
    assert host.database() == before
    assert host.flows("ovs0") == flows


def test_flows_are_compared_by_what_they_mean(host: SwitchHost) -> None:
    """Names, old actions, masks and order are no drift; foreign flows stay; all or nothing."""
    rules = (
        "# web\n"
        "table=0,priority=100,in_port=p1,dl_vlan_pcp=7,udp actions=strip_vlan,output:p2\n"
        "priority=50 ip,nw_src=198.18.7.9/24,actions=mod_nw_tos:16,resubmit(,2)\n"
        "table=2,cookie=0x77,tcp,tp_dst=0x50,actions=NORMAL\n"
    )
    bridge = {**BRIDGE, "interfaces": ["p1", "p2"]}
    wanted = state(("openvswitch", "ovs0", bridge), ("flows", "ovs0", {"flows": rules}))
    roll_out(host, wanted, "tx1")
    assert len([line for line in host.flows("ovs0") if "cookie=0xf1ee7" in line]) == 2
    assert any("cookie=0x77" in line for line in host.flows("ovs0"))
    assert changes(host, wanted) == []
    host.sh("ovs-ofctl", "add-flow", "ovs0", "cookie=0x5,priority=3,arp,actions=drop")
    assert changes(host, wanted) == []
    host.sh("ovs-ofctl", "del-flows", "ovs0", "table=2")
    (change,) = changes(host, wanted)
    assert change["kind"] == "flows"
    fewer = state(
        ("openvswitch", "ovs0", bridge), ("flows", "ovs0", {"flows": "priority=1,actions=NORMAL\n"})
    )
    roll_out(host, fewer, "tx2")
    assert host.flows("ovs0") == [
        "cookie=0x5, priority=3,arp actions=drop",
        "cookie=0xf1ee7, priority=1 actions=NORMAL",
    ]
    roll_out(host, state(("openvswitch", "ovs0", bridge)), "tx3")
    assert host.flows("ovs0") == ["cookie=0x5, priority=3,arp actions=drop"]


def test_a_line_that_is_no_flow_is_refused_with_the_switch_s_reason(host: SwitchHost) -> None:
    """What ovs-ofctl does not take changes nothing."""
    roll_out(host, state(("openvswitch", "ovs0", BRIDGE)), "tx1")
    helper = host.helper()
    wanted = state(
        ("openvswitch", "ovs0", BRIDGE), ("flows", "ovs0", {"flows": "frob=1,actions=drop\n"})
    )
    (problem,) = helper.call("plan", state=wanted)["plan"]["problems"]
    assert "unknown keyword frob" in problem["actual"]


def test_a_port_that_the_switch_cannot_have_is_taken_back(host: SwitchHost) -> None:
    """The database takes a port of any name; where the switch does not, the host is as before."""
    before = host.database()
    wrong = {**BRIDGE, "openvswitch": {**BRIDGE["openvswitch"], "ports": {"t0": {"type": "vxlan"}}}}
    with pytest.raises(HelperFailed) as failed:
        applied(host, name="tx1", state=state(("openvswitch", "ovs0", wrong)))
    assert failed.value.code == "reverted"
    assert "t0" in str(failed.value)
    assert host.database() == before


def test_bonds_queues_and_controllers(host: SwitchHost) -> None:
    """A bond of two NICs, a queue without a rate and a controller without a mode are there too."""
    before = host.database()
    switch = {
        "datapath_type": "netdev",
        "controller": {"addresses": ["ptcp:6653:127.0.0.1"]},
        "ports": {
            "bond0": {"members": {"p1": {}, "p2": {}}, "bond_mode": "active-backup"},
            "p3": {"qos": {"type": "linux-htb", "queues": {"0": {}, "5": {"dscp": 10}}}},
        },
    }
    wanted = state(("openvswitch", "ovs0", {"openvswitch": switch}))
    roll_out(host, wanted, "tx1")
    assert host.vsctl("get-controller ovs0").split() == ["ptcp:6653:127.0.0.1"]
    assert host.vsctl("list-ifaces ovs0").split() == ["p1", "p2", "p3"]
    assert host.row("Port", "bond0")["bond_mode"] == "active-backup"
    assert "0=" in host.vsctl("--columns=queues list QoS")
    assert changes(host, wanted) == []
    roll_out(host, state(), "tx2")
    assert host.database() == before


def forwarding(host: SwitchHost, what: str) -> str:
    """The groups or meters of a bridge, as ovs-ofctl prints them."""
    said = host.sh("ovs-ofctl", "-O", "OpenFlow15", "--no-names", f"dump-{what}", "ovs0")
    return said.partition("\n")[2].strip()


def test_groups_and_meters_are_made_changed_and_taken_away(host: SwitchHost) -> None:
    """They come before the flows that use them and go after; another's stay; a flush keeps all."""
    groups = (
        "group_id=1,type=select,bucket=output:p1,bucket=weight:50,mod_vlan_vid:5,output:p2\n"
        "# towards the guests\n"
        "group_id=2,type=all,bucket=mod_nw_src:1.2.3.4,output:p1\n"
    )
    meters = "meter=7 kbps burst bands=type=drop rate=1000 burst_size=100\n"
    rules = "priority=5,ip,actions=meter:7,group:1\n"
    bridge = {**BRIDGE, "interfaces": ["p1", "p2"]}
    words = {"flows": rules, "groups": groups, "meters": meters}
    wanted = state(("openvswitch", "ovs0", bridge), ("flows", "ovs0", words))
    roll_out(host, wanted, "tx1")
    made = forwarding(host, "groups")
    assert "group_id=1,type=select,bucket=bucket_id:0,actions=output:" in made
    assert "weight:50,actions=push_vlan:0x8100,set_field:4101->vlan_vid" in made
    assert "rate=1000 burst_size=100" in forwarding(host, "meters")
    assert changes(host, wanted) == []
    host.sh("ovs-ofctl", "-O", "OpenFlow15", "add-group", "ovs0", "group_id=99,type=all,bucket=1")
    assert changes(host, wanted) == []
    other = {
        "flows": "priority=5,ip,actions=group:1\n",
        "groups": "group_id=1,type=all,bucket=output:p2\n",
    }
    opened = {**bridge, "openvswitch": {**bridge["openvswitch"], "fail_mode": "standalone"}}
    changed = state(("openvswitch", "ovs0", opened), ("flows", "ovs0", other))
    roll_out(host, changed, "tx2")
    found = forwarding(host, "groups")
    assert "group_id=1,type=all" in found
    assert "group_id=99" in found
    assert "group_id=2" not in found
    assert forwarding(host, "meters") == ""
    assert changes(host, changed) == []
    roll_out(host, state(("openvswitch", "ovs0", opened)), "tx3")
    assert forwarding(host, "groups").split(",")[0] == "group_id=99"


def test_a_revert_has_the_groups_and_meters_of_before(host: SwitchHost) -> None:
    """What was changed, added or lost with a flush is as it was, and so are flows that use it."""
    host.vsctl("add-br ovs0 -- set bridge ovs0 datapath_type=netdev -- add-port ovs0 p1")
    for verb, words in (
        ("add-group", "group_id=1,type=all,bucket=output:1"),
        ("add-group", "group_id=5,type=indirect,bucket=group:1"),
        ("add-meter", "meter=3 pktps bands=type=drop rate=5"),
        ("add-flow", "cookie=0x9,priority=3,tcp,actions=group:1"),
    ):
        host.sh("ovs-ofctl", "-O", "OpenFlow15", verb, "ovs0", words)
    before = [forwarding(host, "groups"), forwarding(host, "meters"), host.flows("ovs0")]
    words = {
        "groups": "group_id=1,type=all,bucket=LOCAL\ngroup_id=2,type=all,bucket=LOCAL\n",
        "meters": "meter=4 pktps bands=type=drop rate=9\n",
        "flows": "priority=8,udp,actions=group:2\n",
    }
    wanted = state(("openvswitch", "ovs0", BRIDGE), ("flows", "ovs0", words))
    helper, _ = applied(host, name="tx1", state=wanted)
    assert "group_id=2" in forwarding(host, "groups")
    helper.call("revert", transaction="tx1")
    host.wait_for_outcome()
    after = [forwarding(host, "groups"), forwarding(host, "meters"), host.flows("ovs0")]
    assert [sorted(str(each).splitlines()) for each in after] == [
        sorted(str(each).splitlines()) for each in before
    ]


@pytest.mark.parametrize(
    ("part", "line", "said"),
    [
        ("groups", "group_id=1,type=all,frob=2,bucket=1", "frob"),
        ("groups", "type=all,bucket=1", "no such group"),
        ("groups", "group_id=1,type=all,bucket=frob", "frob"),
        ("meters", "meter=1 kbps bands=type=drop speed=3", "speed"),
        ("meters", "meter=1 kbps", "bands"),
    ],
)
def test_what_is_no_group_or_meter_is_refused_by_the_plan(
    host: SwitchHost, part: str, line: str, said: str
) -> None:
    """The plan says what is wrong with it, before anything changes."""
    roll_out(host, state(("openvswitch", "ovs0", BRIDGE)), "tx1")
    helper = host.helper()
    wanted = state(("openvswitch", "ovs0", BRIDGE), ("flows", "ovs0", {part: f"{line}\n"}))
    (problem,) = helper.call("plan", state=wanted)["plan"]["problems"]
    assert said in problem["actual"]
