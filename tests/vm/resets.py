"""A reset without warning in the middle of a transaction, and what has to be there after it."""

from __future__ import annotations

from typing import Any

from machine import DEADLINE, Machine

#: The states of which a host may come up as it was committed.
_FORWARD = ("APPLIED", "CONFIRMED", "PERSISTING", "COMMITTED")


def files(machine: Machine) -> dict[str, str]:
    """Return the manager's files by path: what the next boot reads, and what is tried out."""
    out = machine.run(
        "cd / && for f in etc/systemd/network/* run/systemd/network/* etc/netplan/* "
        'run/netplan/*; do [ -f $f ] && echo "$f $(sha256sum < $f | cut -c1-16)"; done; true'
    )
    return dict(line.split() for line in out.splitlines())


def fleets(machine: Machine) -> list[str]:
    """Return fleet's own files among them."""
    return [name for name in files(machine) if "-fleet" in name]


def tried_out(machine: Machine) -> list[str]:
    """Return what is tried out just now."""
    return [name for name in fleets(machine) if name.startswith("run/")]


def reset_at(
    machine: Machine, before: dict[str, Any], wanted: dict[str, Any], state: str, count: int
) -> str:
    """Reset a host that goes from one intent to another once its journal has so many records of a
    state. It comes up reachable and as it was before, or as it was committed; return which."""
    machine.intend(before)
    machine.roll(expect=None)
    was, held = machine.picture(), fleets(machine)
    boot = machine.boot_id()
    machine.intend(wanted)
    machine.watch(state, count, "reset")
    with machine.start("rollout", "--yes", "--confirm-timeout", str(DEADLINE)) as rollout:
        machine.await_boot(boot)
        rollout.communicate(timeout=400)
    last = machine.transactions()[-1]
    assert last["terminal"], last
    links = machine.picture()["links"]
    if last["state"] == "COMMITTED":
        assert state in _FORWARD
        assert set(links) >= {
            name for section in wanted.values() for name in section if not name.startswith("eth")
        }
        assert machine.drift() == []
    else:
        assert last["state"] in ("REVERTED", "ABANDONED"), last
        assert machine.picture() == was
        assert fleets(machine) == held
    assert tried_out(machine) == []
    left = "find /etc /var/lib/fleet -name '*fleet-staged*' -o -name '*.fleet-before'"
    assert machine.run(left) == ""
    return str(last["state"])
