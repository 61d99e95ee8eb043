"""The lab itself: what is in it, what it leaves, what stands beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from world import ROOT, World, alive, opened, until

from fleet.lab import Lab, LabError


def traces(world: World) -> list[str]:
    """Return whatever there still is of a lab: processes, files, mounts, cgroups."""
    found = [f"process {pid}" for pid in alive(str(world.lab.folder))]
    lock = world.lab.folder.with_name(f"fleet-lab.{world.name}.lock")
    found.extend(str(path) for path in (world.lab.folder, lock) if path.exists())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(world.lab.folder) in line:
            found.append(line)
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if Path(mount, f"fleet-lab-{world.name}").exists():
            found.append(f"{mount}/fleet-lab-{world.name}")
    return found


def test_a_host_is_itself(world: World) -> None:
    """A host has its name, its NICs, its address, and nothing of the machine's own state."""
    assert world.run("hv1", "hostname").strip() == "hv1"
    assert set(world.links("hv1")) == {"lo", "eno1", "eno2"}
    assert world.held("hv1", "eno1") == ["198.18.7.11/24"]
    assert world.routes("hv1") == [("default", "198.18.7.254", "eno1")]
    assert sorted(
        os.path.basename(p) for p in world.run("hv1", "ls", "/sys/class/net").split()
    ) == [
        "eno1",
        "eno2",
        "lo",
    ]
    assert world.run("hv1", "ls", "-A", "/root").split() == [".ssh"]
    assert world.run("hv1", "ls", "-A", "/tmp").split() == []
    assert world.run("hv1", "readlink", "/proc/self/ns/net") != os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("folder", ["/etc", "/var/lib", "/run", "/root", "/usr/lib"])
def test_what_a_host_writes_is_its_own(world: World, folder: str) -> None:
    """A file written on one host is neither on another nor on the machine."""
    mark = f"{folder}/of-{world.name}"
    world.run("hv1", "touch", mark)
    assert world.run("hv1", "ls", mark).strip() == mark
    assert world.run("hv2", "ls", mark, check=False) == ""
    assert not Path(mark).exists()


def test_a_host_cannot_set_what_is_the_machine_s(world: World) -> None:
    """Only the network's sysctls can be written inside a host."""
    world.run("hv1", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    with pytest.raises(LabError, match="Read-only"):
        world.run("hv1", "sh", "-c", "echo 60 > /proc/sys/vm/swappiness")


def test_the_controller_is_behind_a_router(world: World) -> None:
    """A host is reached through the router only, with its own host key, strictly checked."""
    argv = [*world.lab.controller_prefix(), "ip", "route", "get", "198.18.7.11"]
    assert "via" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert world.reaches("198.18.7.11")
    assert world.logs_in("hv1")
    assert world.logs_in("hv2")
    keys = world.lab.folder / "known_hosts"
    first, second = keys.read_text().splitlines()
    keys.write_text(f"{first.split()[0]} {' '.join(second.split()[1:])}\n")
    assert not world.logs_in("hv1")


def test_nothing_leaves_the_lab(world: World) -> None:
    """What is not in the lab is unreachable, for hosts and for the controller."""
    for prefix in (world.lab.prefix("hv1"), world.lab.controller_prefix()):
        argv = [*prefix, "ping", "-n", "-c", "1", "-W", "2", "192.0.2.1"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "Unreachable" in done.stdout


def test_exec_is_one_of_the_host_s_processes(world: World) -> None:
    """`fleet lab exec` runs in all of a host's namespaces and exits as its command does."""
    assert world.fleet("lab", "exec", "hv2", "--", "cat", "/etc/hostname").out == "hv2\n"
    world.fleet("lab", "exec", "hv2", "--", "sh", "-c", "exit 7", expect=7)
    assert "sshd" in world.run("hv2", "cat", "/proc/2/cmdline")
    unknown = world.fleet("lab", "exec", "hv9", "--", "true", expect=2)
    assert "hv9" in unknown.err


def test_status_shows_hosts_and_pids(world: World) -> None:
    """`fleet lab status` says which hosts run, where, and which have ended."""
    world.lab.kill("hv2")
    status = world.lab.status()
    assert status["hv1"]["state"] == "up"
    assert Path(f"/proc/{status['hv1']['pid']}").exists()
    assert status["hv2"]["state"] == "ended"
    shown = world.fleet("lab", "status", expect=1).out
    assert "hv1" in shown
    assert "198.18.7.12" in shown


def test_status_tells_a_dead_sshd(world: World) -> None:
    """A host whose sshd is gone is not up: exit 1; exec still enters it, as a person would."""
    assert world.fleet("lab", "status", "--json").json["hosts"]["hv1"]["state"] == "up"
    pid = world.run("hv1", "cat", "/run/sshd.pid").strip()
    world.run("hv1", "kill", "-9", pid)
    until(lambda: world.lab.status()["hv1"]["state"] == "no sshd")
    assert not world.logs_in("hv1")
    told = world.fleet("lab", "status", "--json", expect=1).json
    states = {host: about["state"] for host, about in told["hosts"].items()}
    assert states == {"hv1": "no sshd", "hv2": "up"}
    assert told["exit_code"] == 1
    assert world.fleet("lab", "exec", "hv1", "--", "hostname").out == "hv1\n"


def test_a_host_boots_again(world: World) -> None:
    """A host that was cut off the power comes back with its disk, and with nothing else."""
    world.run("hv1", "sh", "-c", "echo kept > /var/lib/kept; echo lost > /run/lost; sync")
    world.run("hv1", "ip", "link", "set", "eno1", "mtu", "1400")
    before = world.run("hv1", "cat", "/proc/sys/kernel/random/boot_id")
    world.lab.kill("hv1")
    assert not world.reaches("198.18.7.11")
    world.lab.boot("hv1")
    assert world.run("hv1", "cat", "/var/lib/kept") == "kept\n"
    assert world.run("hv1", "ls", "/run/lost", check=False) == ""
    assert world.links("hv1")["eno1"]["mtu"] == 1500
    assert world.run("hv1", "cat", "/proc/sys/kernel/random/boot_id") != before
    assert world.logs_in("hv1")


def test_up_again_keeps_what_is_up(world: World) -> None:
    """A second up changes nothing for hosts that are up, and boots those that ended."""
    pid = world.lab.pid("hv1")
    world.lab.kill("hv2")
    assert world.lab.up() == ["hv1", "hv2"]
    assert world.lab.pid("hv1") == pid
    assert world.logs_in("hv2")


def test_hosts_can_be_added(tmp_path: Path) -> None:
    """A lab of one host takes another of the inventory later."""
    with opened(tmp_path) as world:
        assert world.lab.up(["hv2"]) == ["hv2"]
        assert world.lab.up(["hv1"]) == ["hv2", "hv1"]
        assert world.logs_in("hv1")


def test_down_leaves_nothing(world: World) -> None:
    """After down there are no processes, files, mounts or cgroups, and down again is no error."""
    pids = [about["pid"] for about in world.lab.status().values()]
    world.run("hv1", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    world.run("hv1", "ip", "netns", "add", "inner")
    world.lab.down()
    assert traces(world) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    world.lab.down()


def test_a_killed_warden_takes_all_along(world: World) -> None:
    """When the lab's one process is killed no host is left, and down removes the rest."""
    pids = [about["pid"] for about in world.lab.status().values()]
    warden = int((world.lab.folder / "warden").read_text().split()[0])
    os.kill(warden, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert world.lab.status() == {}
    world.lab.down()
    assert traces(world) == []


@pytest.mark.parametrize("stage", ["log", "warden", "lab.json", "control", "hosts/hv1"])
def test_down_after_a_killed_up(tmp_path: Path, stage: str) -> None:
    """However far an up that was killed had got, down leaves nothing, and up works again."""
    with opened(tmp_path) as world:
        program = "import sys; from fleet.lab import Lab; Lab(*sys.argv[1:]).up()"
        argv = [sys.executable, "-c", program, world.name, str(world.project)]
        with subprocess.Popen(argv, cwd=ROOT) as up:
            until(lambda: (world.lab.folder / stage).exists() or up.poll() is not None)
            up.kill()
        world.lab.down()
        # A warden that had not begun sees that whoever started it has gone.
        until(lambda: traces(world) == [])
        assert world.lab.up() == ["hv1", "hv2"]
        assert world.logs_in("hv1")


def test_two_labs_side_by_side(world: World, tmp_path: Path) -> None:
    """Two labs of one inventory have the same addresses and do not see each other."""
    other = Lab(f"{world.name}b", world.project)
    try:
        other.up()
        world.run("hv1", "ip", "addr", "add", "198.18.7.99/24", "dev", "eno1")
        assert world.reaches("198.18.7.99")
        argv = [*other.controller_prefix(), "ping", "-n", "-c", "1", "-W", "1", "198.18.7.99"]
        assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
        config = str(other.folder / "ssh_config")
        argv = [*other.controller_prefix(), "ssh", "-F", config, "hv1", "hostname"]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "hv1\n"
    finally:
        other.down()
    assert world.logs_in("hv1")
    assert not other.folder.exists()


def test_no_lab_waits_for_another(tmp_path: Path) -> None:
    """While one lab's up stands still, another comes up and goes down, and a second up waits."""
    with opened(tmp_path / "still") as still, opened(tmp_path / "other") as other:
        program = "import sys; from fleet.lab import Lab; print(Lab(*sys.argv[1:]).up())"
        argv = [sys.executable, "-c", program, still.name, str(still.project)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
            until((still.lab.folder / "warden").exists)
            first.send_signal(signal.SIGSTOP)
            try:
                with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as second:
                    assert other.lab.up(["hv1"]) == ["hv1"]
                    other.lab.down()
                    assert traces(other) == []
                    assert second.poll() is None
                    first.send_signal(signal.SIGCONT)
                    assert [up.communicate()[0] for up in (first, second)] == [
                        "['hv1', 'hv2']\n",
                        "['hv1', 'hv2']\n",
                    ]
            finally:
                first.send_signal(signal.SIGCONT)
        still.lab.down()
        assert traces(still) == []


def test_a_host_that_does_not_come_up_is_said(tmp_path: Path) -> None:
    """An up that fails names the host and why, exits 2, and leaves nothing."""
    with opened(tmp_path) as world:
        world.hosts["hv2"]["data"] = {"network": {"ethernets": {"lo": {}}}}
        world.write()
        failed = world.fleet("lab", "up", expect=None)
        assert failed.code == 2, failed
        assert "hv2" in failed.err
        assert traces(world) == []
