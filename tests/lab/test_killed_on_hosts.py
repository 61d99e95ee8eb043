"""Rollouts in waves over many hosts: killed at random moments and resumed, with hosts that hang.

``FLEET_KILLS=100 FLEET_SEED=1`` is the long form; its figures are printed.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from world import BRIDGE, World, opened, until

KILLS = int(os.environ.get("FLEET_KILLS", "2"))
SEED = int(os.environ.get("FLEET_SEED", "1"))
COUNT = 20
HOSTS = {f"hv{number}": f"198.18.7.{number + 10}" for number in range(1, COUNT + 1)}
#: A canary and waves of five.
WAVES = ("--canary", "1", "--wave", "5", "--max-failures", "6")
#: A gate that no host passes.
UNWELL = """
async def gates(task):
    raise RuntimeError("not well")
"""
ENDS = {"COMMITTED", "REVERTED", "ABANDONED"}


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[World]:
    """Twenty hypervisors with sshd."""
    with opened(tmp_path, HOSTS) as made:
        made.lab.up()
        yield made


def intend_mtu(world: World, mtu: int) -> None:
    """Say that every host's bridge has an MTU."""
    for host in world.addresses:
        bridge = copy.deepcopy(BRIDGE) | {"mtu": mtu}
        world.hosts[host]["data"] = {"network": {"bridges": {"br0": bridge}}}
    world.write()


def mtu_of(world: World, host: str) -> int:
    """Return the MTU of a host's bridge, 0 without one."""
    found = world.links(host).get("br0")
    return int(found["mtu"]) if found else 0


def journals(world: World, host: str) -> dict[str, str]:
    """Return how each transaction of a host ended, from the files it keeps; "" is not at all."""
    script = (
        "cd /var/lib/fleet/journal 2>/dev/null || exit 0; "
        'for tx in *; do [ -d $tx ] || continue; echo "$tx $(tail -n +2 $tx/outcome 2>/dev/null || '
        'tail -n +2 /run/fleet/$tx/outcome 2>/dev/null)"; done'
    )
    found = {}
    for line in world.run(host, "sh", "-c", script).splitlines():
        name, _, rest = line.partition(" ")
        found[name] = json.loads(rest)["state"] if rest.strip() else ""
    return found


def killed_at(world: World, seconds: float) -> bool:
    """Roll out and kill the controller after so long; whether it was still at it."""
    process = world.start("rollout", "--yes", "--confirm-timeout", "12", *WAVES)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    process.communicate()
    return False


def started(world: World) -> list[str]:
    """Return the names of the runs on record, newest first."""
    return [run["run"] for run in world.fleet("history", "--json").json["runs"]]


def settled(world: World, before: dict[str, dict[str, str]], old: int, new: int) -> tuple[int, int]:
    """Judge every host by its kernel and its journals; return how many have the new state, the old.

    Each ended committed or as before, and no change was committed on it twice.
    """
    counts = {old: 0, new: 0}
    for host in world.addresses:
        ends = {
            name: end for name, end in journals(world, host).items() if name not in before[host]
        }
        assert set(ends.values()) <= ENDS, (host, ends)
        mtu = mtu_of(world, host)
        assert mtu in counts, (host, mtu)
        counts[mtu] += 1
        committed = sum(end == "COMMITTED" for end in ends.values())
        assert committed == (mtu == new), (host, mtu, ends)
    return counts[new], counts[old]


@pytest.mark.timeout(120 + 60 * KILLS)
def test_a_rollout_killed_at_any_moment_is_resumed(rack: World) -> None:
    """Killed anywhere and resumed, every host is committed once or as before; the budget holds."""
    dice = random.Random(SEED)
    mtus = [1400 + 4 * number for number in range(KILLS + 2)]
    intend_mtu(rack, mtus[0])
    rack.roll(*WAVES)
    intend_mtu(rack, mtus[1])
    began = time.monotonic()
    rack.roll(*WAVES)
    whole = time.monotonic() - began
    killed = resumed = kept = back = 0
    for number, (old, new) in enumerate(pairwise(mtus[1:]), 1):
        before = {host: journals(rack, host) for host in rack.addresses}
        runs = started(rack)
        intend_mtu(rack, new)
        killed += killed_at(rack, dice.uniform(0.15, 1.0) * whole)
        fresh = [run for run in started(rack) if run not in runs]
        if fresh:
            ran = rack.fleet("rollout", "--resume", fresh[0], "--yes", "--json", expect=None)
            assert ran.code in (0, 4), ran
            resumed += 1
            outcomes = list(rack.outcomes(ran).values())
            assert outcomes.count("reverted") <= 6 + 5, ran  # the budget, and a wave in flight
            assert "unknown" not in outcomes, ran
        has, had = settled(rack, before, old, new)
        kept, back = kept + has, back + had
        if had:
            rack.roll(*WAVES)  # level ground for the next moment
        print(
            f"\nseed {SEED}, {number} moments: {killed} rollouts killed, {resumed} resumed: "
            f"{kept} hosts committed once, {back} as before, 0 twice, 0 unknown",
            flush=True,
        )


def rolled(world: World, mtu: int, *words: str) -> tuple[float, dict[str, str], Any]:
    """Roll an MTU out everywhere and return the seconds it took and each host's outcome."""
    intend_mtu(world, mtu)
    began = time.monotonic()
    ran = world.fleet(
        "rollout",
        "--yes",
        "--confirm-timeout",
        "15",
        "--canary",
        "0",
        "--json",
        *words,
        expect=None,
    )
    return time.monotonic() - began, world.outcomes(ran), ran


def test_hosts_that_hang_or_are_dead_cost_their_own_rows(rack: World) -> None:
    """With one host that hangs and one that is dead, the other 18 are committed."""
    rolled(rack, 1400)
    rack.run("hv3", "sh", "-c", "kill -STOP $(cat /run/sshd.pid)")
    rack.run("hv4", "sh", "-c", "kill $(cat /run/sshd.pid)")
    until(lambda: not rack.logs_in("hv4"))
    _, outcomes, ran = rolled(rack, 1404, "--max-failures", "3")
    assert outcomes.pop("hv3") == outcomes.pop("hv4") == "unreachable", ran
    assert set(outcomes.values()) == {"committed"}, ran
    for host in outcomes:
        assert mtu_of(rack, host) == 1404
    assert mtu_of(rack, "hv3") == mtu_of(rack, "hv4") == 1400


def test_the_budget_is_overshot_by_a_wave_at_most(rack: World) -> None:
    """Where every host fails, no more than one wave beyond the budget is changed at all."""
    rolled(rack, 1400)
    before = {host: journals(rack, host) for host in rack.addresses}
    (rack.project / "tasks").mkdir(exist_ok=True)
    (rack.project / "tasks" / "gates.py").write_text(UNWELL)
    _, outcomes, ran = rolled(rack, 1404, "--wave", "5", "--max-failures", "2")
    tried = [host for host in rack.addresses if set(journals(rack, host)) - set(before[host])]
    assert 2 < len(tried) <= 2 + 5, ran
    assert {outcomes[host] for host in tried} == {"reverted"}, ran
    assert {end for host, end in outcomes.items() if host not in tried} == {"not started"}, ran
    assert {mtu_of(rack, host) for host in rack.addresses} == {1400}
