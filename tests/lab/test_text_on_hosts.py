"""Free text of the intent on its host: every letter as it was written, and nothing of it run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from world import World

#: What a shell would run, and what a careless program would take for an option.
TEXT = "-rf; $(touch /pwned) `touch /pwned` | & > /pwned $HOME 'x' \\ *"


def assert_nothing_ran(world: World) -> None:
    """The file that a shell would have made is nowhere."""
    assert not Path("/pwned").exists()
    assert "No such file" in world.run("hv1", "sh", "-c", "ls /pwned 2>&1; true")


def test_text_reaches_a_table_as_it_was_written(world: World) -> None:
    """A rule's comment holds a shell's characters, and the audit finds no drift."""
    comment = TEXT.replace("\\ ", "")
    rules = f'chain c {{ counter comment "{comment}"; }}'
    world.intend("hv1", nftables={"inet/text": {"rules": rules}})
    world.roll("--host", "hv1")
    table = json.loads(world.run("hv1", "nft", "-j", "list", "table", "inet", "text"))["nftables"]
    assert [each["rule"]["comment"] for each in table if "rule" in each] == [comment]
    assert "no drift" in world.fleet("audit", "--host", "hv1").out
    assert_nothing_ran(world)


def test_text_reaches_the_kernel_as_it_was_written(world: World) -> None:
    """What is written to a kernel parameter is the text; the kernel refuses it, nothing runs."""
    world.hosts["hv1"]["data"] = {"sysctl": {"net.ipv4.ip_local_port_range": TEXT}}
    world.write()
    ran = world.roll("--host", "hv1", "--json", expect=4)
    assert f"expected to write {json.dumps(TEXT)}" in ran.json["hosts"]["hv1"]["message"]
    assert "update sysctl/net.ipv4.ip_local_port_range value" in world.changes("hv1")
    assert_nothing_ran(world)


@pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="no Open vSwitch on this machine")
def test_text_reaches_the_switchs_database_as_it_was_written(world: World) -> None:
    """A bridge's external-ids hold a shell's characters; flows with them are refused unapplied."""
    network = {
        "bridges": {"ovs0": {"openvswitch": {"external-ids": {"note": TEXT}}}},
        "flows": {"ovs0": "actions=NORMAL"},
    }
    world.intend("hv1", **network)
    world.lab.down()
    world.lab.up()
    world.roll("--host", "hv1")
    ids = world.run("hv1", "ovs-vsctl", "-f", "json", "get", "bridge", "ovs0", "external_ids:note")
    assert json.loads(ids) == TEXT
    world.intend("hv1", **{**network, "flows": {"ovs0": f"actions=NORMAL\n{TEXT}\n"}})
    ran = world.roll("--host", "hv1", "--json", expect=1)
    assert world.outcomes(ran) == {"hv1": "refused"}
    assert "NORMAL" in world.run("hv1", "ovs-ofctl", "dump-flows", "ovs0")
    assert_nothing_ran(world)
