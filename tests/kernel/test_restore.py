"""What a restore leaves alone, and what it says of what it cannot put back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from pictures import Namespace, await_equal

from fleet.host.reverting.differences import differences
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture

pytestmark = pytest.mark.kernel


def taken(namespace: Namespace, *devices: str, **scope: Any) -> dict[str, Any]:
    """Capture, and send the snapshot through JSON as the watchdog gets it."""
    found = capture(namespace.system, {"devices": list(devices), **scope})
    return json.loads(json.dumps(found))


def test_foreign_devices_stay(namespace: Namespace) -> None:
    """What others make or change meanwhile on devices that were not touched stays as it is."""
    namespace.do("""
        ip link add br0 type bridge
        ip link add a0 type veth peer name a1
        ip link add b0 type veth peer name b1
        ip link set a0 master br0
        ip link set br0 up""")
    snapshot = taken(namespace, "br0", "a0")
    namespace.do("""
        ip link set b0 mtu 1300
        ip addr add 198.18.3.1/24 dev b0
        ip link add vnet7 type veth peer name far7
        ip link set vnet7 master br0
        ip link set b0 up
        ip link set b1 up
        ip route add 198.19.3.0/24 dev b0
        ip addr add 198.18.4.1/24 dev br0
        ip link set a0 nomaster""")
    assert restore(namespace.system, snapshot) == []
    links = {link["ifname"]: link for link in namespace.read("ip", "-j", "link")}
    assert links["vnet7"]["master"] == links["a0"]["master"] == "br0"
    assert links["b0"]["mtu"] == 1300
    assert namespace.read("ip", "-j", "route", "show", "198.19.3.0/24") != []
    assert "198.18.4.1" not in namespace.run("ip", "addr")


def test_leases_and_daemons_stay(namespace: Namespace) -> None:
    """A lease that came meanwhile and a routing daemon's route are not removed."""
    namespace.do("""
        ip link add a0 type veth peer name a1
        ip link set a0 up
        ip link set a1 up
        ip addr add 198.18.3.1/24 dev a0""")
    snapshot = taken(namespace, "a0")
    namespace.do("""
        ip addr add 198.18.9.1/24 dev a0 valid_lft 600 preferred_lft 600
        ip route add 198.19.3.0/24 via 198.18.3.7 proto bird
        ip route add 198.19.4.0/24 via 198.18.3.7""")
    assert restore(namespace.system, snapshot) == []
    routes = {route["dst"] for route in namespace.read("ip", "-j", "route")}
    assert "198.19.3.0/24" in routes
    assert "198.19.4.0/24" not in routes
    assert "198.18.9.1" in namespace.run("ip", "addr")


def test_nothing_is_touched_where_nothing_differs(namespace: Namespace) -> None:
    """A restore of what already is sends the kernel no change."""
    namespace.do("""
        ip link add br0 type bridge
        ip link add a0 type veth peer name a1
        ip link set a0 master br0
        ip addr add 198.18.3.1/24 dev br0""")
    snapshot = taken(namespace, "br0", rules=True)
    system = namespace.system
    sent: list[int] = []
    original = system.netlink.request
    system.netlink.request = lambda kind, *rest: (sent.append(kind), original(kind, *rest))[1]
    assert restore(system, snapshot) == []
    assert sent == []


def test_what_cannot_come_back_is_said(namespace: Namespace) -> None:
    """A named tap that lived with its process stays gone; the rest is restored all the same."""
    namespace.do("""
        ip link add br0 type bridge
        ip addr add 198.18.3.1/24 dev br0""")
    holder = subprocess.Popen(
        ["ip", "netns", "exec", namespace.name, sys.executable, "-c", HOLD], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        snapshot = taken(namespace, "br0", "held0")
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    await_equal(lambda: "held0" in namespace.run("ip", "link"), False)
    namespace.do("ip link del br0")
    remaining = restore(namespace.system, snapshot)
    assert [(item["part"], item["name"], item["what"]) for item in remaining] == [
        ("links", "held0", "exists")
    ]
    assert "process that held it" in remaining[0]["error"]
    assert "198.18.3.1" in namespace.run("ip", "addr")


HOLD = """
import fcntl, os, struct, sys, time
descriptor = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", b"held0", 0x1002))
print("held", flush=True)
time.sleep(60)
"""


def test_a_lifetime_goes_on(namespace: Namespace) -> None:
    """An address with a lifetime comes back with what is left of it, not with all of it."""
    namespace.do("""
        ip link add a0 type veth peer name a1
        ip link set a0 up
        ip addr add 198.18.3.1/24 dev a0 valid_lft 600 preferred_lft 500""")
    snapshot = taken(namespace, "a0")
    snapshot["at"] -= 100
    namespace.do("ip addr flush dev a0")
    assert restore(namespace.system, snapshot) == []
    (item,) = namespace.read("ip", "-j", "-4", "addr", "show", "dev", "a0")[0]["addr_info"]
    assert 490 <= item["valid_life_time"] <= 500
    assert 390 <= item["preferred_life_time"] <= 400


def test_an_expired_lease_stays_away(namespace: Namespace) -> None:
    """An address whose lifetime has run out since is no difference."""
    namespace.do("""
        ip link add a0 type veth peer name a1
        ip addr add 198.18.3.1/24 dev a0 valid_lft 60 preferred_lft 50""")
    snapshot = taken(namespace, "a0")
    snapshot["at"] -= 100
    namespace.do("ip addr flush dev a0")
    assert restore(namespace.system, snapshot) == []
    assert "198.18.3.1" not in namespace.run("ip", "addr")


def test_devices_come_home(make_namespace: Callable[[], Namespace]) -> None:
    """A device that moved to another namespace comes back with its addresses and routes."""
    host, guest = make_namespace(), make_namespace()
    host.do("""
        ip link add a0 type veth peer name a1
        ip link set a0 up
        ip link set a1 up
        ip addr add 198.18.3.1/24 dev a0
        ip route add 198.19.3.0/24 via 198.18.3.7""")
    before = host.picture()
    snapshot = taken(host, "a0", namespaces={guest.name: {"devices": ["a0"]}})
    host.do(f"ip link set a0 netns {guest.name}")
    assert restore(host.system, snapshot) == []
    await_equal(host.picture, before)
    assert "a0" not in guest.run("ip", "link")


def test_a_pair_across_namespaces_comes_back(make_namespace: Callable[[], Namespace]) -> None:
    """Both ends of a deleted pair come back, each in its namespace with its address."""
    host, guest = make_namespace(), make_namespace()
    host.do(f"""
        ip link add a0 type veth peer name a1 netns {guest.name}
        ip link set a0 up
        ip addr add 198.18.3.1/24 dev a0""")
    guest.do("""
        ip link set a1 up
        ip addr add 198.18.3.2/24 dev a1
        ip route add default via 198.18.3.1""")
    snapshot = taken(host, "a0", namespaces={guest.name: {"devices": ["a1"]}})
    host.do("ip link del a0")
    assert restore(host.system, snapshot) == []
    host.run("ping", "-c1", "-W2", "198.18.3.2")
    assert guest.read("ip", "-j", "route", "show", "default") != []


def test_files_come_back(namespace: Namespace, tmp_path: Any) -> None:
    """Files come back with their content and mode, and go where there were none."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("as it was")
    old.chmod(0o640)
    snapshot = taken(namespace, files=[str(old), str(new)])
    old.write_text("changed")
    old.chmod(0o600)
    new.write_text("made")
    assert restore(namespace.system, snapshot) == []
    assert old.read_text() == "as it was"
    assert old.stat().st_mode & 0o777 == 0o640
    assert not new.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_is_quick_with_many_ports(namespace: Namespace) -> None:
    """A bridge with a hundred ports that was deleted is back, with all of them, within 5 s."""
    script = ["link add br0 type bridge"]
    for number in range(100):
        script += [f"link add p{number} type veth peer name q{number}"]
        script += [f"link set p{number} master br0"]
    subprocess.run(
        ["ip", "-n", namespace.name, "-b", "-"], input="\n".join(script), text=True, check=True
    )
    snapshot = taken(namespace, "br0")
    namespace.do("ip link del br0")
    start = time.monotonic()
    assert restore(namespace.system, snapshot) == []
    assert time.monotonic() - start < 5
    ports = namespace.read("bridge", "-j", "link")
    assert len([port for port in ports if port.get("master") == "br0"]) == 100


def test_wide_parameters(namespace: Namespace) -> None:
    """Turning on forwarding resets every device's own; turning it back restores them all."""
    namespace.do("""
        ip link add a0 type veth peer name a1
        ip link add b0 type veth peer name b1
        sysctl -w net.ipv4.conf.a0.forwarding=1
        sysctl -w net.ipv4.conf.b1.accept_redirects=0""")
    before = namespace.picture()
    snapshot = taken(namespace, sysctls=["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"])
    namespace.do("""
        sysctl -w net.ipv4.ip_forward=1
        sysctl -w net.ipv6.conf.all.forwarding=1
        sysctl -w net.ipv4.ip_forward=0
        sysctl -w net.ipv4.ip_forward=1""")
    assert restore(namespace.system, snapshot) == []
    await_equal(namespace.picture, before)


def test_differences_are_pure(namespace: Namespace) -> None:
    """Comparing touches neither snapshot, and a snapshot does not differ from itself."""
    namespace.do("ip link add br0 type bridge\nip addr add 198.18.3.1/24 dev br0")
    snapshot = taken(namespace, "br0", rules=True)
    before = json.dumps(snapshot)
    assert differences(snapshot, snapshot) == []
    namespace.do("ip link set br0 mtu 1400")
    found, follows = differences(snapshot, capture(namespace.system, snapshot["scope"], snapshot))
    assert follows["name"] == "net/ipv6/conf/br0/mtu"
    assert (found["name"], found["what"], found["expected"], found["actual"]) == (
        "br0", "mtu", 1500, 1400,
    )  # fmt: skip
    assert json.dumps(snapshot) == before


def test_a_bridge_gets_its_own_timers_back_below_another_s_root(namespace: Namespace) -> None:
    """Below another root a bridge shows that one's timers; those it was told itself come back."""

    def timers() -> list[int]:
        shown = namespace.read("ip", "-j", "-d", "link", "show", "br0")[0]["linkinfo"]["info_data"]
        return [shown[key] for key in ("hello_time", "max_age", "forward_delay")]

    own, roots = [300, 1800, 1100], [100, 1000, 800]
    namespace.do("""
        ip link add br0 type bridge stp_state 1 hello_time 300 max_age 1800 forward_delay 1100
        ip link add br1 type bridge stp_state 1 priority 0 hello_time 100 max_age 1000 \
            forward_delay 800
        ip link add a0 type veth peer name a1
        ip link set a0 master br0 up
        ip link set a1 master br1 up
        ip link set br0 up
        ip link set br1 up""")
    await_equal(timers, roots)
    snapshot = taken(namespace, "br0")
    namespace.do("ip link set br0 type bridge hello_time 200 max_age 2000 forward_delay 1500")
    assert timers() == roots
    assert restore(namespace.system, snapshot) == []
    namespace.do("ip link set br1 down")
    namespace.do("ip link set a0 nomaster")
    await_equal(timers, own)
