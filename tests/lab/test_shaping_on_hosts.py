"""Rate limits by the whole way: rolled out, audited, taken back, and found on a running host."""

from __future__ import annotations

import re

import yaml
from world import World

LIMITS = {"eno2": {"egress": {"rate": "100mbit"}, "ingress": {"rate": "50mbit", "burst": "64kb"}}}
SHARED = {
    "eno2": {
        "classes": [
            {"name": "dns", "rate": "1mbit", "match": {"protocol": "udp", "source-port": 53}},
            {"name": "rest", "rate": "9mbit", "ceil": "10mbit"},
        ],
        "default": "rest",
    }
}


def shown(world: World) -> str:
    """Return what tc shows of the device, without counters."""
    text = ""
    for words in ("qdisc", "class", "filter"):
        text += world.run("hv1", "tc", "-d", words, "show", "dev", "eno2")
    return re.sub(r"direct_packets_stat \d+|refcnt \d+", "", text)


def test_rolled_out_and_taken_back(world: World) -> None:
    """Limits are rolled out, the audit is clean and finds what somebody changes; gone, all is as
    it was, and what a running host has is intent that changes nothing."""
    ethernets = {"eno2": {}}
    world.intend("hv1", ethernets=ethernets)
    world.roll("--host", "hv1")
    plain = shown(world)
    world.intend("hv1", ethernets=ethernets, shaping=LIMITS)
    world.roll("--host", "hv1")
    world.fleet("audit", "--host", "hv1")
    assert "tbf f1ee: root" in shown(world)
    assert "ifb-eno2" in world.links("hv1")
    found = yaml.safe_load(world.fleet("observe", "hv1", "--as-intent").out)
    assert found["network"]["shaping"]["eno2"]["ingress"]["rate"] == "50mbit"
    assert "ifb-eno2" not in found["network"]["shaping"]
    limited = shown(world)
    world.intend("hv1", ethernets=ethernets, shaping=SHARED)
    ran = world.roll("--host", "hv1", "--json")
    assert "htb f1ee: root" in shown(world)
    assert "ifb-eno2" not in world.links("hv1")
    world.run("hv1", "tc", "class", "change", "dev", "eno2", "parent", "f1ee:1", "classid",
              "f1ee:11", "htb", "rate", "5mbit")  # fmt: skip
    world.fleet("audit", "--host", "hv1", expect=3)
    assert world.changes("hv1") == ["update shaping/eno2 classes"]
    world.hosts["hv1"]["data"] = found
    world.write()
    refused = world.fleet("revert", "--yes", ran.json["run"], expect=1)
    assert "changed by somebody else since" in refused.out
    world.fleet("revert", "--yes", ran.json["run"], "--allow", "foreign")
    assert shown(world) == limited
    # Names are intent's alone, so what the host is like is all that a plan finds.
    assert [line for line in world.changes("hv1") if " file/" not in line] == []
    world.intend("hv1", ethernets=ethernets)
    world.roll("--host", "hv1")
    assert shown(world) == plain
