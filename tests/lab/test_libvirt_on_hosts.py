"""libvirt's networks and filters by the whole way: hosts with a libvirtd of their own.

The judges are virsh, ip and ping inside the hosts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import World, opened, until

GONE = [name for name in ("libvirtd", "virsh", "dnsmasq") if not shutil.which(name)]
pytestmark = pytest.mark.skipif(bool(GONE), reason=f"not on this machine: {', '.join(GONE)}")

LAN = {"forward": "bridge", "bridge": "br0"}
WEB: dict[str, Any] = {
    "forward": "nat",
    "bridge": "virbr7",
    "addresses": ["198.19.40.1/24"],
    "dhcp": {
        "ranges": ["198.19.40.100-198.19.40.200"],
        "hosts": [{"mac": "52:54:00:00:00:01", "ip": "198.19.40.11"}],
    },
}
FILTER = "<filter name='site-web'><filterref filter='clean-traffic'/></filter>"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as made:
        for host in made.hosts:
            intend(made, host, lan=LAN, web=WEB)
        made.lab.up()
        yield made


def intend(world: World, host: str, **networks: Any) -> None:
    """Say which networks a host has, besides a bridge and a filter that all have."""
    world.hosts[host]["data"] = {
        "network": {"bridges": {"br0": {"interfaces": ["eno2"], "parameters": {"stp": False}}}},
        "libvirt": {"networks": networks, "nwfilters": {"site-web": FILTER}},
    }
    world.write()


def virsh(world: World, host: str, *words: str) -> str:
    return world.run(host, "virsh", "-q", "-c", "qemu:///system", *words)


def names(world: World, host: str) -> list[str]:
    return virsh(world, host, "net-list", "--all", "--name").split()


def test_networks_are_rolled_out_watched_repaired_and_removed(world: World) -> None:
    """What is written is what virsh has; what virsh changes an audit finds, by its path; the next
    rollout puts it right, and a network that is written no more is gone."""
    world.roll()
    for host in world.hosts:
        assert names(world, host) == ["lan", "web"]
        assert virsh(world, host, "net-info", "web").count("yes") == 3
        assert "<bridge name='br0'/>" in virsh(world, host, "net-dumpxml", "lan")
        assert "<host mac='52:54:00:00:00:01' ip='198.19.40.11'/>" in virsh(
            world, host, "net-dumpxml", "web"
        )
        assert world.held(host, "virbr7") == ["198.19.40.1/24"]
        assert "site-web" in virsh(world, host, "nwfilter-list")
        assert world.changes(host) == []
    world.fleet("audit")
    more = "<host mac='52:54:00:00:00:09' ip='198.19.40.19'/>"
    virsh(world, "hv1", "net-update", "web", "add-last", "ip-dhcp-host", more, "--live")
    virsh(world, "hv2", "net-destroy", "web")
    drift = world.fleet("audit", "--json", expect=3).json["hosts"]
    said = str(drift["hv1"])
    assert "running: ip[0]/dhcp/host[0]" in said
    assert "network/web" in str(drift["hv2"])
    assert "active" in str(drift["hv2"])
    world.roll()
    world.fleet("audit")
    assert "198.19.40.19" not in virsh(world, "hv1", "net-dumpxml", "web")
    assert world.held("hv2", "virbr7") == ["198.19.40.1/24"]
    intend(world, "hv1", lan=LAN)
    world.roll()
    assert names(world, "hv1") == ["lan"]
    assert names(world, "hv2") == ["lan", "web"]
    assert "virbr7" not in world.links("hv1")
    world.fleet("audit")


def test_a_rollout_is_taken_back(world: World) -> None:
    """A revert gives libvirt the definition it had, and ends the network that the rollout made."""
    world.roll()
    before = virsh(world, "hv1", "net-dumpxml", "--inactive", "web")
    moved = yaml.safe_load(yaml.safe_dump(WEB).replace("198.19.40.", "198.19.41."))
    intend(world, "hv1", lan=LAN, web=moved, extra={"forward": "isolated"})
    ran = world.roll("--host", "hv1", "--json")
    assert world.held("hv1", "virbr7") == ["198.19.41.1/24"]
    world.fleet("revert", "--yes", ran.json["run"])
    assert virsh(world, "hv1", "net-dumpxml", "--inactive", "web") == before
    assert world.held("hv1", "virbr7") == ["198.19.40.1/24"]
    assert names(world, "hv1") == ["lan", "web"]


def test_a_host_that_starts_again_has_its_networks(world: World) -> None:
    """What was rolled out runs again after a host's reset: libvirt starts it by itself."""
    world.roll()
    world.lab.reset("hv1")
    assert until(lambda: world.logs_in("hv1"))
    assert until(lambda: "web" in virsh(world, "hv1", "net-list", "--name"))
    assert world.held("hv1", "virbr7") == ["198.19.40.1/24"]
