"""What an operator does at 3 a.m.: see what waits, keep all of it, or undo all of it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import Any

from world import BRIDGE, ROOT, World, until

#: A gate that never ends: every host of the rollout is applied, and waits.
ENDLESS = """
import asyncio

async def gates(task):
    await asyncio.sleep(600)
"""


def left_waiting(world: World) -> str:
    """Kill a rollout when both hosts wait to be confirmed, and return the transaction."""
    for host in world.addresses:
        world.intend(host, bridges={"br0": BRIDGE})
    (world.project / "tasks").mkdir(exist_ok=True)
    (world.project / "tasks" / "gates.py").write_text(ENDLESS)
    process = world.start("rollout", "--yes", "--canary", "0", "--confirm-timeout", "60")
    until(lambda: all(states(world).get(host) == "APPLIED" for host in world.addresses))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (world.project / "tasks" / "gates.py").unlink()
    return str(world.fleet("history", "--json").json["runs"][0]["run"])


def states(world: World) -> dict[str, str]:
    """Return the state of each host's last transaction."""
    found = world.fleet("status", "--json", expect=None).json["hosts"]
    return {
        host: about["transactions"][-1]["state"]
        for host, about in found.items()
        if about.get("transactions")
    }


def at_a_terminal(world: World, answer: bytes, *words: str) -> tuple[int, str]:
    """Run the program with a terminal as stdin, type an answer, and return what it said."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet.cli", *words],
            stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=ROOT, env=world.environment(),
        )  # fmt: skip
        os.write(master, answer)
        out, _ = process.communicate(timeout=60)
    finally:
        os.close(master)
        os.close(slave)
    return process.returncode, out


def refused(world: World, *words: str) -> Any:
    """Run a command that has to be refused as wrongly used."""
    return world.fleet(*words, expect=2).err


def test_all_that_waits_is_shown_and_kept(world: World) -> None:
    """Status names the one command; it asks, and after a yes both hosts are committed."""
    name = left_waiting(world)
    shown = world.fleet("status", expect=3).out
    assert "fleet confirm --all" in shown
    assert "fleet revert --all" in shown
    assert shown.count("the host puts itself back as before") == 2
    assert "fleet confirm --host hv1" in world.fleet("status", "--host", "hv1", expect=3).out
    assert "--yes" in refused(world, "confirm", "--all")
    assert "--yes" in refused(world, "revert", "--all")
    assert "--yes" in refused(world, "revert", name)
    assert "--all" in refused(world, "confirm")
    assert "--all" in refused(world, "confirm", name, "--all")
    code, said = at_a_terminal(world, b"n\n", "revert", "--all")
    assert (code, "puts itself back" in said, "Revert 2 hosts?" in said) == (3, True, True), said
    assert states(world) == {"hv1": "APPLIED", "hv2": "APPLIED"}
    code, said = at_a_terminal(world, b"y\n", "confirm", "--all")
    assert code == 0, said
    assert states(world) == {"hv1": "COMMITTED", "hv2": "COMMITTED"}
    for host in world.addresses:
        assert world.held(host, "br0") == ["10.7.0.1/24"]
    assert "nothing waits" in world.fleet("confirm", "--all", "--yes").out
    code, said = at_a_terminal(world, b"n\n", "revert", name)
    assert code == 3, said
    assert said.count("a rollout brings it back") == 2


def test_what_waits_is_undone_where_hosts_answer(world: World) -> None:
    """Of two hosts that wait one hangs: the other is put back, by selector or by --all."""
    before = {host: world.picture(host) for host in world.addresses}
    name = left_waiting(world)
    one = world.fleet("revert", "--host", "hv1", "--yes", "--json").json["hosts"]
    assert {host: (row["outcome"], row["transaction"]) for host, row in one.items()} == {
        "hv1": ("reverted", name)
    }
    assert world.picture("hv1") == before["hv1"]
    assert states(world)["hv2"] == "APPLIED"
    world.run("hv1", "sh", "-c", "kill -STOP $(cat /run/sshd.pid)")
    ran = world.fleet("revert", "--all", "--yes", "--json", expect=1)
    assert world.outcomes(ran) == {"hv1": "unreachable", "hv2": "reverted"}
    assert world.picture("hv2") == before["hv2"]
