"""Hypervisors that exist already, taken into the inventory."""

from __future__ import annotations

from pathlib import Path

import yaml
from world import World

GROUPS = """\
# The racks.
---
rack7:   # next to the door
  data: {rack: 7}
"""
HOSTS = """\
# The hypervisors.
---
hv1:
  hostname: 198.18.7.11
  groups: [rack7]
  data: {unit: 11}  # top
# The second.
hv2:
  hostname: 198.18.7.12
  groups: [rack7]
"""
BY_HAND = """
ip link add br0 type bridge priority 4096
ip link set eno2 master br0
ip link set eno2 up
ip link set br0 up
ip addr add 10.9.{unit}.1/24 dev br0
bridge link set dev eno2 isolated on
ip route add default via 10.9.{unit}.254 table 100
ip rule add from 10.9.{unit}.0/24 table 100 priority 900
ip link add dmz0 type veth peer name dmz1
ip link set dmz0 mtu 1400
ip link set dmz0 up
ip link add docker0 type bridge
"""


def by_hand(world: World) -> None:
    """Make two hosts what somebody made them before there was fleet, and an inventory of names."""
    for host, unit in (("hv1", 11), ("hv2", 12)):
        for line in BY_HAND.format(unit=unit).strip().splitlines():
            world.run(host, *line.split())
        # Not the first word that the site's files have on it.
        said = "net.core.somaxconn=5\n-net.core.somaxconn = 777\n"
        world.run(host, "sh", "-c", f"printf '%s' '{said}' > /etc/sysctl.d/30-site.conf")
        world.run(host, "sysctl", "-qw", "net.core.somaxconn=777")
    world.defaults["data"].pop("network")
    world.write()
    folder = world.project / "inventory"
    (folder / "groups.yaml").write_text(GROUPS)
    (folder / "hosts.yaml").write_text(HOSTS)


def texts(world: World) -> dict[str, str]:
    folder = world.project / "inventory"
    return {path.name: path.read_text() for path in sorted(Path(folder).glob("*.yaml"))}


def test_adopt_a_group(world: World) -> None:
    """The diff is shown first; written, the audit is clean and the plan empty, comments are kept,
    and what the hosts share stands in their group."""
    by_hand(world)
    before = texts(world)
    shown = world.fleet("adopt", "--group", "rack7")
    assert texts(world) == before
    assert "nothing was written" in shown.err
    added = [line for line in shown.out.splitlines() if line.startswith("+") and "+++" not in line]
    assert "+          addresses: [10.9.12.1/24]" in added
    world.fleet("adopt", "--group", "rack7", "--write")
    world.fleet("audit")
    assert world.changes("hv1") == world.changes("hv2") == []
    after = texts(world)
    for name, text in before.items():
        comments = [line[line.index("#") :] for line in text.splitlines() if "#" in line]
        assert all(comment in after[name] for comment in comments)
    group = yaml.safe_load(after["groups.yaml"])["rack7"]["data"]
    assert group["rack"] == 7
    assert group["network"]["bridges"]["br0"] == {
        "interfaces": ["eno2"],
        "parameters": {"priority": 4096},
        "ports": {"eno2": {"isolated": True}},
    }
    assert group["network"]["virtual-ethernets"]["dmz0"] == {"mtu": 1400, "peer": "dmz1"}
    host = yaml.safe_load(after["hosts.yaml"])["hv2"]["data"]
    assert host["network"]["bridges"]["br0"] == {
        "addresses": ["10.9.12.1/24"],
        "routes": [{"table": 100, "to": "default", "via": "10.9.12.254"}],
        "routing-policy": [{"from": "10.9.12.0/24", "priority": 900, "table": 100}],
    }
    assert "docker0" not in after["hosts.yaml"] + after["groups.yaml"]
    # Once more there is nothing to add; and a rollout of it changes nothing.
    again = world.fleet("adopt", "--group", "rack7", "--write")
    assert again.out == ""
    assert texts(world) == after
    # What somebody breaks is repaired by one rollout, and nothing is left for a second.
    world.run("hv1", "ip", "link", "del", "br0")
    world.run("hv1", "sysctl", "-qw", "net.core.somaxconn=77")
    world.fleet("rollout", "--yes")
    assert world.run("hv1", "sysctl", "-n", "net.core.somaxconn").strip() == "777"
    assert world.changes("hv1") == []
    world.fleet("audit")


def test_as_intent(world: World) -> None:
    """One host as intent is YAML on stdout; put into the host's data, its plan is empty."""
    by_hand(world)
    shown = world.fleet("observe", "hv1", "--as-intent")
    intent = yaml.safe_load(shown.out)
    assert list(intent) == ["network", "sysctl"]
    assert intent["network"]["ethernets"]["eno1"] == {
        "addresses": ["198.18.7.11/24"],
        "routes": [{"to": "default", "via": "198.18.7.254"}],
    }
    world.hosts["hv1"]["data"] = intent
    world.write()
    world.fleet("intent", "validate", "--host", "hv1")
    assert world.changes("hv1") == []
    world.fleet("audit", "--host", "hv1")
