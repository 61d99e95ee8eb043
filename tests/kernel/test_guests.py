"""Who holds a tap or a macvtap is found by what is held."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from pictures import Namespace, await_equal

from fleet.host.kernel.guests import guest_name
from fleet.host.kernel.observation import Observation

pytestmark = pytest.mark.kernel

HOLD_TAP = """
import fcntl, os, struct, sys, time
descriptor = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", sys.argv[1].encode(), int(sys.argv[2])))
print("held", flush=True)
time.sleep(60)
"""
HOLD_NODE = """
import os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)
print("held", flush=True)
time.sleep(60)
"""

Holder = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hold() -> Iterator[Holder]:
    """Give a starter of processes that hold something until the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def start(namespace: Namespace, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        argv = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_held_tap(namespace: Namespace, hold: Holder) -> None:
    """A tap's holder is the process with its descriptor, and nobody after that has ended."""
    namespace.do("ip tuntap add tap0 mode tap\nip tuntap add tap1 mode tap")
    assert Observation(namespace.system).holders == {}
    process = hold(
        namespace, HOLD_TAP, "tap0", str(0x1002), "-name", "guest=web-1,debug-threads=on"
    )
    found = Observation(namespace.system).holders
    assert set(found) == {"tap0"}
    (holder,) = found["tap0"]
    assert holder["pid"] == process.pid
    assert holder["guest"] == "web-1"
    assert holder["command"].startswith("python")
    process.kill()
    await_equal(lambda: Observation(namespace.system).holders, {})


def test_multi_queue_taps_count_each_process_once(namespace: Namespace, hold: Holder) -> None:
    """Several processes may hold the queues of one tap."""
    namespace.do("ip tuntap add tap0 mode tap multi_queue")
    flags = str(0x1002 | 0x100)
    pids = sorted(hold(namespace, HOLD_TAP, "tap0", flags).pid for _ in range(2))
    found = Observation(namespace.system).holders["tap0"]
    assert sorted(holder["pid"] for holder in found) == pids


def test_a_tap_of_the_same_name_elsewhere(
    make_namespace: Callable[[], Namespace], hold: Holder
) -> None:
    """A holder of another namespace's tap does not hold this one's of the same name."""
    here, there = make_namespace(), make_namespace()
    for namespace in (here, there):
        namespace.do("ip tuntap add tap0 mode tap")
    hold(there, HOLD_TAP, "tap0", str(0x1002))
    assert Observation(here.system).holders == {}
    assert set(Observation(there.system).holders) == {"tap0"}


def test_a_held_macvtap(namespace: Namespace, hold: Holder) -> None:
    """A macvtap's holder has its character device open."""
    namespace.do("""
        ip link add eth0 type veth peer name far0
        ip link add link eth0 name mt0 type macvtap mode bridge
        ip link set eth0 up
        ip link set mt0 up""")
    index = namespace.read("ip", "-j", "link", "show", "mt0")[0]["ifindex"]
    numbers = namespace.run("cat", f"/sys/class/net/mt0/tap{index}/dev").strip().split(":")
    node = f"/dev/tap{index}"
    device = os.makedev(int(numbers[0]), int(numbers[1]))
    made = not os.path.exists(node)  # a devtmpfs makes it by itself
    if made:
        os.mknod(node, 0o20600, device)
    try:
        if os.stat(node).st_rdev != device:
            pytest.skip(f"{node} is another namespace's")
        process = hold(namespace, HOLD_NODE, node)
        (holder,) = Observation(namespace.system).holders["mt0"]
        assert holder["pid"] == process.pid
    finally:
        if made:
            os.unlink(node)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("-name guest=web,debug-threads=on", "web"),
        ("-name web", "web"),
        ("-name debug-threads=on,guest=a,,b", "a,b"),
        ("-m 64 -nic none", ""),
        ("-name", ""),
    ],
)
def test_names_of_guests(words: str, name: str) -> None:
    """The name is read from QEMU's own command line."""
    assert guest_name(["qemu", *words.split()]) == name
