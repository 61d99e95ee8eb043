"""Taps in a real kernel, judged by ip(8), and by a process that holds one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, sh, space

from fleet.host.planning.plan import allowed


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def held(name: str, host: Space) -> subprocess.Popen[bytes]:
    """Start a process that holds a tap as a guest does."""
    code = (
        "import fcntl, os, struct, sys, time\n"
        "d = os.open('/dev/net/tun', os.O_RDWR)\n"
        "fcntl.ioctl(d, 0x400454CA, struct.pack('=16sH22x', sys.argv[1].encode(), 0x1002))\n"
        "print(flush=True)\ntime.sleep(60)\n"
    )
    words = ["ip", "netns", "exec", host.name, sys.executable, "-c", code, name]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def info(host: Space, name: str) -> dict[str, Any]:
    found: dict[str, Any] = host.link(name)["linkinfo"]["info_data"]
    return found


def test_create_change_delete(host: Space) -> None:
    """A tap is made with what is named, changes in place or is made again, and goes."""
    host.roll({
        "tap/tap0": {
            "owner": "1", "group": "daemon", "multi_queue": True, "vnet_hdr": True,
            "mtu": 1400, "macaddress": "52:54:00:11:22:33",
            "addresses": [{"address": "198.18.9.1/24"}],
        },
    })  # fmt: skip
    data = info(host, "tap0")
    assert (data["type"], data["persist"], data["multi_queue"], data["vnet_hdr"]) == (
        "tap", True, True, True,
    )  # fmt: skip
    assert (data["user"], data["group"]) == ("daemon", "daemon")
    assert (host.link("tap0")["mtu"], host.link("tap0")["address"]) == (1400, "52:54:00:11:22:33")
    index = host.link("tap0")["ifindex"]
    host.roll({"tap/tap0": {"owner": "0", "multi_queue": True, "vnet_hdr": True, "mtu": 1500}})
    assert host.link("tap0")["ifindex"] == index
    assert info(host, "tap0")["user"] == "root"
    plan = host.roll({"tap/tap0": {"owner": "0", "multi_queue": False}})
    assert [c.action for c in plan.changes][:2] == ["delete", "create"]
    assert info(host, "tap0").get("multi_queue") in (None, False)
    host.roll({})
    assert not host.has("tap0")


def test_made_again_it_is_a_port_again(host: Space) -> None:
    """A tap that is made again joins its bridge again, with its flags, addresses and keys."""
    bridge = {"interfaces": ["tap0"], "ports": {"tap0": {"isolated": True}}}
    state = {
        "bridge/br0": bridge,
        "tap/tap0": {"multi_queue": False},
        "fdb/tap0": {"entries": [{"macaddress": "52:54:00:00:00:09"}]},
        "sysctl/net.ipv4.conf.tap0.rp_filter": {"value": "2"},
    }
    host.roll(state)
    host.roll({**state, "tap/tap0": {"multi_queue": True}})
    assert host.link("tap0")["master"] == "br0"
    assert host.port("tap0")["isolated"] is True
    assert host.sysctl("net.ipv4.conf.tap0.rp_filter") == "2"
    assert "52:54:00:00:00:09" in sh("bridge", "-n", host.name, "fdb", "show", "dev", "tap0")


def test_a_guest_on_it(host: Space) -> None:
    """What a process holds is deleted or made again only where that is allowed by name."""
    host.roll({"tap/tap0": {}})
    process = held("tap0", host)
    try:
        for state in ({}, {"tap/tap0": {"multi_queue": True}}):
            plan = host.plan(state)
            change = plan.changes[0]
            assert (change.action, change.impact) == ("delete", "drain")
            assert allowed(plan, ())
        assert host.plan({"tap/tap0": {}}).changes == ()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_adopt_release_and_revert(host: Space) -> None:
    """A tap that was there stays when intent lets go; a revert is exact either way."""
    host.ip("tuntap add dev tap1 mode tap user 1000")
    host.roll({"tap/tap1": {"owner": "1000"}})
    assert host.ledger["tap/tap1"].created is False
    assert host.roll({}).changes == ()
    assert host.has("tap1")
    host.goes_back({"tap/tap1": {"multi_queue": True}, "tap/tap2": {"mtu": 1400}})
    plan = host.plan({"tun/tap1": {}})
    assert "a tap" in plan.problems[0].actual
    assert "tap/tap1" in host.plan({}).unmanaged
