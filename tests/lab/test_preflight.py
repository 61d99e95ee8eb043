"""Hosts that lack something: one clear row each, nothing changed, exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pythons import give, make_it_the_hosts
from world import BRIDGE, World, opened, until

#: A python3 that says it is another; it runs what it is given as that one would.
OLD_PYTHON = """\
#!/usr/bin/{real} -IS
import sys
sys.version_info = (3, 8, 18, "final", 0)
exec(sys.argv[sys.argv.index("-c") + 1])
"""


ROWS = ("hv1: no plan", "hv1: failed:", "hv1: refused:")


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[World]:
    """One hypervisor that is to get a bridge."""
    with opened(tmp_path, {"hv1": "198.18.7.11"}) as world:
        world.lab.up()
        world.intend("hv1", bridges={"br0": BRIDGE})
        yield world


def problem(world: World, *words: str) -> dict[str, Any]:
    """Try to roll out, and return the one problem that the one row shows; nothing has changed."""
    before = world.picture("hv1")
    shown = world.roll(*words, expect=1)
    lines = [each for each in shown.out.splitlines() if each.startswith(ROWS)]
    assert len(lines) == 1, shown
    row = world.roll("--json", *words, expect=1).json["hosts"]["hv1"]
    assert row["outcome"] in ("failed", "refused"), row
    assert world.picture("hv1") == before
    assert "sysctl.d/90-fleet" not in world.run("hv1", "find", "/etc", "-name", "90-fleet*")
    (found,) = row["problems"]
    for word in ("expected", "actual", "remedy"):
        assert found[word], row
        assert found[word].split("\n")[0][:60] in shown.out.replace("\n", " "), shown
    return dict(found)


def test_a_python_that_is_too_old(lone: World) -> None:
    """A host with Python 3.8 is told what it needs."""
    real = Path("/usr/bin/python3").resolve().name
    text = OLD_PYTHON.format(real=real)
    lone.lab.run("hv1", "sh", "-c", "rm /usr/bin/python3; cat > /usr/bin/python3", text=text)
    lone.run("hv1", "chmod", "755", "/usr/bin/python3")
    found = problem(lone)
    assert found["expected"] == "Python 3.9 or later"
    assert found["actual"] == "Python 3.8"
    assert "install" in found["remedy"]
    assert lone.run("hv1", "ls", "-A", "/var/lib/fleet") == ""


def test_the_real_3_8(lone: World) -> None:
    """Python 3.8 itself says so too: what it is given first has nothing it cannot read."""
    make_it_the_hosts(lone, "hv1", give(lone, "hv1", "3.8"))
    assert problem(lone)["actual"] == "Python 3.8"


def test_no_python_at_all(lone: World) -> None:
    """A host without python3 is told to install it."""
    lone.run("hv1", "sh", "-c", "rm /usr/bin/python3 /usr/local/bin/python3 2>/dev/null; true")
    assert problem(lone)["expected"] == "python3"


def test_a_login_that_may_not_sudo(tmp_path: Path) -> None:
    """A login that is not root's, where sudo is not there or asks for a password."""
    with opened(tmp_path, {"hv1": "198.18.7.11"}) as world:
        world.defaults["username"] = "ops"
        world.intend("hv1", bridges={"br0": BRIDGE})
        world.lab.up()
        world.run("hv1", "useradd", "--create-home", "--shell", "/bin/sh", "ops")
        world.run("hv1", "usermod", "--password", "*", "ops")
        world.run("hv1", "cp", "-r", "/root/.ssh", "/home/ops/.ssh")
        world.run("hv1", "chown", "-R", "ops:ops", "/home/ops/.ssh")
        world.run("hv1", "sh", "-c", "rm -f /usr/bin/sudo")
        found = problem(world)
        assert found["expected"] == "sudo"
        assert "install sudo" in found["remedy"]
        sudo = "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n"
        world.lab.run("hv1", "sh", "-c", "cat > /usr/bin/sudo; chmod 755 /usr/bin/sudo", text=sudo)
        found = problem(world)
        assert found["expected"] == "sudo without a password"
        assert "sudo -n" in found["remedy"]


def test_no_nft_where_tables_are_intended(lone: World) -> None:
    """A host without nft is told which package has it, where the intent has nftables tables."""
    lone.intend("hv1", nftables={"inet/guests": {"rules": "chain forward { }"}})
    lone.run("hv1", "rm", "-f", "/usr/sbin/nft")
    found = problem(lone)
    assert found["resource"] == "nftables/inet/guests"
    assert found["expected"] == "/usr/sbin/nft"
    assert "nftables" in found["remedy"]


def test_a_read_only_disk(lone: World) -> None:
    """Where /var/lib cannot be written the row says so, before the first push and after it."""
    lone.run("hv1", "mount", "-t", "tmpfs", "-o", "ro", "none", "/var/lib")
    found = problem(lone)
    assert "Read-only" in found["actual"]
    assert "writable" in found["expected"]
    lone.run("hv1", "mount", "-o", "remount,rw", "/var/lib")
    lone.fleet("plan", expect=3)
    lone.run("hv1", "mount", "-o", "remount,ro", "/var/lib")
    assert "ead-only" in problem(lone)["actual"]
    lone.run("hv1", "mount", "-o", "remount,rw", "/var/lib")
    lone.roll()


def test_a_full_disk(lone: World) -> None:
    """Where /var/lib is full the row says so, before the first push and after it."""
    lone.run("hv1", "mount", "-t", "tmpfs", "-o", "size=64m", "none", "/var/lib")
    fill = "head -c 70000000 /dev/zero > /var/lib/ballast"
    lone.run("hv1", "sh", "-c", fill, check=False)
    assert "space" in problem(lone)["expected"]
    lone.run("hv1", "rm", "/var/lib/ballast")
    lone.fleet("plan", expect=3)
    lone.run("hv1", "sh", "-c", fill, check=False)
    found = problem(lone)
    assert "space" in found["expected"] or "free" in found["expected"]
    lone.run("hv1", "rm", "/var/lib/ballast")
    lone.roll()


@pytest.mark.parametrize("version", ["3.9"])
def test_the_whole_way_on_the_oldest_python(world: World, version: str) -> None:
    """On Python 3.9: push, plan, rollout, audit, a lock-out taken back, a revert by hand, recover,
    and the boot's program."""
    for host in world.addresses:
        make_it_the_hosts(world, host, give(world, host, version))
    assert world.run("hv1", "python3", "-V").startswith(f"Python {version}.")
    world.intend("hv1", bridges={"br0": BRIDGE})
    world.fleet("plan", "--host", "hv1", expect=3)
    world.roll("--host", "hv1")
    settled = world.picture("hv1")
    assert world.held("hv1", "br0") == ["10.7.0.1/24"]
    assert world.changes("hv1") == []
    assert "no drift" in world.fleet("audit", "--host", "hv1").out
    (code,) = world.run("hv1", "sh", "-c", "ls /var/lib/fleet/helper/*/code-* | head -1").split()
    assert code.endswith(f"-{MAGIC[version]}")

    # Cut off: the host's own watchdog puts it back.
    nic = {"addresses": ["198.18.99.1/24"], "routes": []}
    world.intend("hv1", bridges={"br0": BRIDGE}, ethernets={"eno1": nic})
    world.hosts["hv1"]["data"]["fleet"] = {"management": {"address": "198.18.99.1"}}
    world.write()
    world.roll("--host", "hv1", "--confirm-timeout", "10", expect=4)
    assert world.picture("hv1") == settled

    # An address that nobody reaches has to confirm; the controller dies, and somebody reverts.
    nic = {"addresses": ["{{ host.hostname }}/24", "198.18.99.1/24"]}
    world.intend("hv1", bridges={"br0": BRIDGE}, ethernets={"eno1": nic})
    addresses = ["198.18.7.11", "198.18.99.1"]
    world.hosts["hv1"]["data"]["fleet"] = {"management": {"address": addresses}}
    world.write()
    process = world.start("rollout", "--host", "hv1", "--yes", "--confirm-timeout", "60")
    until(lambda: "198.18.99.1/24" in world.held("hv1", "eno1"))
    process.kill()
    process.communicate()
    (open_one,) = (
        each
        for each in world.fleet("status", "--host", "hv1", "--json", expect=None).json["hosts"][
            "hv1"
        ]["transactions"]
        if each["state"] not in ("COMMITTED", "REVERTED")
    )
    world.fleet("revert", "--yes", open_one["transaction"], "--host", "hv1")
    assert world.picture("hv1") == settled

    # What units run, on this Python.
    archive = world.run("hv1", "sh", "-c", "ls -t /var/lib/fleet/boot/*.pyz").split()[0]
    for words in (["recover"], ["boot", "early"], ["boot", "late"]):
        world.run("hv1", "/usr/bin/python3", "-I", "-S", "-B", archive, *words)
    assert world.picture("hv1") == settled


#: importlib.util.MAGIC_NUMBER of a release, its first two bytes as a number.
MAGIC = {"3.9": 3425}
