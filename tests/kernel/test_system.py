"""The door to a host: namespaces, programs, /proc and the clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import Namespace

from fleet.host.kernel.system import CommandError, System

pytestmark = pytest.mark.kernel


def own_namespace() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_enters_and_comes_back(namespace: Namespace) -> None:
    """Inside the block the thread is in the namespace, after it, even a failed one, at home."""
    home = own_namespace()
    with namespace.system.enter():
        assert own_namespace() != home
    with pytest.raises(RuntimeError), namespace.system.enter():
        raise RuntimeError
    assert own_namespace() == home


def test_a_missing_namespace_is_an_error() -> None:
    """A namespace that does not exist is FileNotFoundError, and the thread stays at home."""
    home = own_namespace()
    system = System("fleet-no-such-namespace")
    assert not system.exists()
    with pytest.raises(FileNotFoundError), system.enter():
        pass
    assert own_namespace() == home


def test_programs_run_inside(namespace: Namespace) -> None:
    """A program sees the namespace's devices, the C locale and an empty standard input."""
    done = namespace.system.run(["ip", "-br", "link"])
    assert [line.split()[0] for line in done.out.splitlines()] == ["lo"]
    assert namespace.system.run(["cat"]).out == ""
    assert namespace.system.run(["cat"], input="text").out == "text"
    environment = namespace.system.run(["env"]).out.splitlines()
    assert "LC_ALL=C" in environment
    assert not [line for line in environment if line.startswith(("PYTHON", "LD_"))]


def test_programs_that_fail() -> None:
    """A failed, missing or late program is CommandError that says which and why."""
    system = System()
    with pytest.raises(CommandError, match="No such file"):
        system.run(["fleet-no-such-program"])
    with pytest.raises(CommandError, match="false"):
        system.run(["false"])
    assert system.run(["false"], check=False).code == 1
    start = time.monotonic()
    with pytest.raises(CommandError, match=r"within 0\.2 s"):
        system.run(["sleep", "10"], timeout=0.2)
    assert time.monotonic() - start < 5


def test_arguments_are_data(tmp_path: Path) -> None:
    """What a shell would take as code reaches a program as text."""
    text = f"$(touch {tmp_path}/made); `id` > x & \n'\""
    assert System().run(["printf", "%s", text]).out == text
    assert not list(tmp_path.iterdir())


def test_parameters_belong_to_the_namespace(namespace: Namespace) -> None:
    """A key is read and written in the namespace, by either spelling of its name."""
    home = System().sysctl("net.ipv4.ip_forward")
    namespace.do("ip link add eth0.7 type veth peer name p0")
    system = namespace.system
    system.set_sysctl("net.ipv4.ip_forward", "1")
    system.set_sysctl("net.ipv4.conf.eth0/7.rp_filter", "2")
    assert namespace.run("sysctl", "-n", "net.ipv4.ip_forward") == "1\n"
    assert system.sysctl("net/ipv4/conf/eth0.7/rp_filter") == "2"
    assert System().sysctl("net.ipv4.ip_forward") == home


@pytest.mark.parametrize(
    "name",
    ["net.ipv4.no_such", "", "..", "net/../../etc/passwd", "net..ipv4", "a\0b", "/etc/passwd"],
)
def test_what_is_no_key(name: str) -> None:
    """A name that is no key, or would lead out of /proc/sys, has no value and takes none."""
    assert System().sysctl(name) is None
    with pytest.raises(FileNotFoundError):
        System().set_sysctl(name, "1")


def test_unreadable_keys(namespace: Namespace) -> None:
    """A key that exists and shows nothing has no value."""
    assert namespace.system.sysctl("net.ipv6.conf.lo.stable_secret") is None


def test_the_same_door(namespace: Namespace) -> None:
    """Doors of one host are the same objects, whichever way one comes to them."""
    system = System()
    there = system.at(namespace.name)
    assert there is system.at(namespace.name)
    assert there.at("") is system
    system.close()


def test_pyroute2_works_inside(namespace: Namespace) -> None:
    """The socket that applies is in the namespace too."""
    system = namespace.system
    system.route.link("add", ifname="br0", kind="bridge")
    assert "br0" in namespace.run("ip", "link")


def test_files(tmp_path: Path) -> None:
    """A file is read below the root, and one that is absent is None."""
    (tmp_path / "file").write_text("text\n")
    system = System(root=str(tmp_path))
    assert system.read("/file") == "text\n"
    assert system.read("/file/below") is None
    assert system.read("/absent") is None


def test_clock() -> None:
    """Time since boot rises, and the boot has a name."""
    system = System()
    assert 0 < system.boottime() <= system.boottime()
    assert len(system.boot_id()) == 36


def test_two_namespaces_at_once(make_namespace: Callable[[], Namespace]) -> None:
    """Blocks may be nested: each puts back what it found."""
    first, second = make_namespace(), make_namespace()
    with first.system.enter():
        inside = own_namespace()
        with second.system.enter():
            assert own_namespace() != inside
        assert own_namespace() == inside
