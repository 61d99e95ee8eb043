"""What goes wrong: lock-outs, hosts that are away or hostile, controllers that die."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from world import BRIDGE, GATEWAY, World, until

#: Where the controller stands, sent to a gateway that is not there: the host works, its own
#: gateway answers, and whoever operates it is cut off.
NOWHERE = {"to": "198.19.255.0/24", "via": "198.18.7.253"}
DEFAULT = {"to": "default", "via": GATEWAY}
LOCK_OUT: dict[str, Any] = {"eno1": {"routes": [DEFAULT, NOWHERE]}}


def test_a_host_that_is_cut_off_puts_itself_back(world: World) -> None:
    """A change that locks out is taken back: exit 4, all as before, no second victim."""
    for host in world.addresses:
        world.intend(host, ethernets=LOCK_OUT, bridges={"br0": BRIDGE})
    before = {host: world.picture(host) for host in world.addresses}
    ran = world.roll("--canary", "1", "--json", expect=4)
    outcomes = world.outcomes(ran)
    assert outcomes.pop("hv1") == "reverted"
    assert outcomes.get("hv2") in (None, "not-started", "not started", "skipped"), ran
    for host in world.addresses:
        assert world.picture(host) == before[host]
        assert world.logs_in(host)
    assert world.fleet("status", "--json").json["hosts"]["hv1"]["transactions"] is not None
    for host in world.addresses:
        world.intend(host, bridges={"br0": BRIDGE})
    world.roll()
    assert world.held("hv2", "br0") == ["10.7.0.1/24"]


def test_a_default_route_into_nowhere_is_taken_back(world: World) -> None:
    """A host whose gateway no longer answers after the change goes back, without waiting."""
    world.intend("hv1", ethernets={"eno1": {"routes": [{"to": "default", "via": "198.18.7.253"}]}})
    before = world.picture("hv1")
    ran = world.roll("--host", "hv1", "--json", expect=4)
    assert world.outcomes(ran) == {"hv1": "reverted"}
    assert world.picture("hv1") == before
    assert world.logs_in("hv1")


def test_the_controller_is_killed_while_a_host_is_armed(world: World) -> None:
    """A controller killed at its worst moment: the host goes back alone, a rerun goes through."""
    world.intend("hv1", ethernets=LOCK_OUT)
    before = world.picture("hv1")
    process = world.start("rollout", "--host", "hv1", "--yes", "--confirm-timeout", "12")
    until(lambda: len(world.routes("hv1")) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: world.picture("hv1") == before)
    until(lambda: world.logs_in("hv1"))
    world.intend("hv1", bridges={"br0": BRIDGE})
    world.roll("--host", "hv1")
    assert world.held("hv1", "br0") == ["10.7.0.1/24"]


def _in_soak(world: World, soak: str) -> Any:
    """Start a rollout of both hosts and return it when the canary is done and it soaks."""
    for host in world.addresses:
        world.intend(host, bridges={"br0": BRIDGE})
    process = world.start("rollout", "--yes", "--canary", "1", "--soak", soak)

    def committed() -> bool:
        runs = world.fleet("history", "--json").json["runs"]
        assert process.poll() is None, process.communicate()
        return any(run["outcomes"].get("committed") for run in runs)

    until(committed)
    return process


def test_a_killed_rollout_is_resumed(world: World) -> None:
    """A rollout killed between its waves goes on with --resume, with the hosts that are left."""
    process = _in_soak(world, "15")
    process.kill()
    process.communicate()
    run = world.fleet("history", "--json").json["runs"][0]["run"]
    ran = world.fleet("rollout", "--resume", run, "--yes", "--json")
    assert world.outcomes(ran)["hv2"] == "committed"
    for host in world.addresses:
        assert world.held(host, "br0") == ["10.7.0.1/24"]
    world.fleet("audit")


def test_ctrl_c_stops_before_the_next_wave(world: World) -> None:
    """Ctrl-C settles what is in flight and starts no other host; nothing stays armed."""
    process = _in_soak(world, "90")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0, out + err
    assert "Traceback" not in err
    assert "br0" in world.links("hv1")
    assert "br0" not in world.links("hv2")
    statuses = world.fleet("status", "--json").json["hosts"]
    states = {t["state"] for about in statuses.values() for t in about["transactions"]}
    assert states <= {"COMMITTED"}


def test_away_and_refused_are_told_apart(world: World, tmp_path: Path) -> None:
    """A host without sshd is unreachable, one whose plan is stale refuses; neither is changed."""
    plan = str(tmp_path / "reviewed.plan")
    for host in world.addresses:
        world.intend(host, bridges={"br0": BRIDGE})
    world.fleet("plan", "--out", plan, expect=3)
    world.run("hv1", "sh", "-c", "kill $(cat /run/sshd.pid)")
    world.run("hv2", "ip", "link", "set", "eno2", "up")
    argv = ("--plan", plan, "--max-failures", "5", "--canary", "0", "--json")
    ran = world.roll(*argv, expect=1)
    assert world.outcomes(ran) == {"hv1": "unreachable", "hv2": "refused"}
    assert "br0" not in world.links("hv1")
    assert "br0" not in world.links("hv2")


def test_why_a_host_cannot_be_asked(world: World) -> None:
    """No sshd, no permission, a disk that cannot be written: each is said as what it is."""
    world.run("hv1", "sh", "-c", "kill $(cat /run/sshd.pid)")
    world.run("hv2", "rm", "/root/.ssh/authorized_keys")
    hosts = world.roll("--json", expect=1).json["hosts"]
    assert hosts["hv1"]["outcome"] == hosts["hv2"]["outcome"] == "unreachable"
    assert "connection refused" in hosts["hv1"]["message"]
    assert "login refused for root" in hosts["hv2"]["message"]
    world.run("hv1", "/usr/sbin/sshd")
    until(lambda: world.logs_in("hv1"))
    world.run("hv1", "mount", "-t", "tmpfs", "-o", "ro", "none", "/var/lib")
    hosts = world.roll("--host", "hv1", "--json", expect=1).json["hosts"]
    assert "Read-only file system" in hosts["hv1"]["message"]


def test_a_host_that_does_not_answer_costs_its_own_row(world: World) -> None:
    """A host whose sshd is stopped in its tracks is one unreachable row; the other is committed."""
    for host in world.addresses:
        world.intend(host, bridges={"br0": BRIDGE})
    world.run("hv1", "sh", "-c", "kill -STOP $(cat /run/sshd.pid)")
    ran = world.roll("--max-failures", "1", "--canary", "0", "--json", expect=1)
    assert world.outcomes(ran) == {"hv1": "unreachable", "hv2": "committed"}


@pytest.mark.parametrize(
    "script",
    [
        "printf 'not JSON at all\\n\\033[31mred\\033[0m\\n'",
        'printf \'{"id": 1, "ok": true}\\n\'',
        "exec yes '\033]0;title\007'",
        "exit 3",
        "exec head -c 300000000 /dev/zero",
    ],
    ids=["garbage", "wrong JSON", "endless", "closes early", "zeros"],
)
def test_a_hostile_host_is_one_row(world: World, script: str) -> None:
    """A host whose python is not one fails alone, and nothing it says reaches the terminal raw."""
    world.run("hv1", "rm", "/usr/bin/python3")
    program = f"#!/bin/sh\n{script}\n"
    world.lab.run(
        "hv1", "sh", "-c", "cat > /usr/bin/python3; chmod 755 /usr/bin/python3", text=program
    )
    audited = world.fleet("audit", expect=1)
    assert "hv1" in audited.out + audited.err
    assert "Traceback" not in audited.err
    shown = audited.out + audited.err
    assert not any(ord(c) < 32 and c not in "\n\t\r" for c in shown)
    assert len(shown) < 20_000
    told = world.fleet("audit", "--json", expect=1).json["hosts"]
    assert "error" in told["hv1"]
    assert "error" not in told["hv2"]


def test_a_changed_host_key_is_refused(world: World) -> None:
    """A host with another key than known_hosts has is not spoken to."""
    world.run("hv1", "sh", "-c", "rm /etc/ssh/ssh_host_ed25519_key; ssh-keygen -q -t ed25519 -N '' "
              "-f /etc/ssh/ssh_host_ed25519_key; kill $(cat /run/sshd.pid)")  # fmt: skip
    until(lambda: not world.logs_in("hv1"))
    world.run("hv1", "/usr/sbin/sshd")
    told = world.fleet("audit", "--json", expect=1).json["hosts"]
    assert "key" in told["hv1"]["error"]["message"].lower()
    assert "error" not in told["hv2"]


def test_secrets_are_in_no_argument_list_and_no_json(world: World) -> None:
    """While a rollout runs no process has a host's password among its words, nor has its JSON."""
    secret = "wrong-horse-battery-staple"
    world.intend("hv1", bridges={"br0": BRIDGE})
    world.hosts["hv1"]["password"] = secret
    world.hosts["hv1"]["connection_options"] = {"asyncssh": {"password": secret}}
    world.write()
    process = world.start("rollout", "--yes", "--host", "hv1", "--json", "--verbose")
    seen: set[bytes] = set()
    while process.poll() is None:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    seen.add((folder / "cmdline").read_bytes())
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert any(b"rollout" in words for words in seen)
    assert not [words for words in seen if secret.encode() in words]
    assert secret not in out + err


def test_secrets_are_in_no_log_and_no_record(world: World) -> None:
    """What the inventory holds besides intent is in no output, no record, no host's files."""
    secret = "correct-horse-battery-staple"
    world.intend("hv1", bridges={"br0": BRIDGE})
    world.hosts["hv1"]["data"]["bmc"] = {"password": secret}
    world.hosts["hv1"]["password"] = secret
    world.write()
    ran = world.roll("--host", "hv1", "--verbose")
    assert secret not in ran.out + ran.err
    for folder, _, files in os.walk(world.project):
        for name in files:
            if name != "hosts.yaml":
                with open(os.path.join(folder, name), "rb") as file:
                    assert secret.encode() not in file.read(), name
    found = world.run(
        "hv1", "grep", "-rl", secret, "/var/lib", "/var/log", "/run", "/tmp", "/etc", check=False
    )
    assert found == ""
