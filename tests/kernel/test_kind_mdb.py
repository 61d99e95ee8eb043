"""Permanent multicast groups in a real kernel, judged by bridge(8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, sh, space

from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import scope_of


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


BASE = {
    "veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"},
    "bridge/br0": {"interfaces": ["e0"], "parameters": {"multicast_snooping": True}},
}  # fmt: skip


def groups(host: Space) -> list[str]:
    (found,) = json.loads(sh("bridge", "-n", host.name, "-j", "mdb", "show"))
    return sorted(
        each["grp"]
        for each in found["mdb"]
        if each["state"] == "permanent" and each["port"] == "e0"
    )


def listed(*names: str) -> dict[str, Any]:
    return {"mdb/br0": {"entries": [{"group": name, "port": "e0"} for name in names]}}


def test_create_change_delete(host: Space) -> None:
    """Groups of IPv4, IPv6 and of MAC addresses are put once the port is there, and taken away."""
    host.roll({**BASE, **listed("239.1.1.1", "ff05::7", "01:00:5e:7f:00:01")})
    assert groups(host) == ["01:00:5e:7f:00:01", "239.1.1.1", "ff05::7"]
    host.roll({**BASE, **listed("239.1.1.2")})
    assert groups(host) == ["239.1.1.2"]
    host.roll(BASE)
    assert groups(host) == []


def test_adopt_release_and_revert(host: Space) -> None:
    """A group that was there stays when intent lets go; a revert is exact."""
    host.roll(BASE)
    words = ("mdb", "add", "dev", "br0", "port", "e0", "grp", "239.1.1.7", "permanent")
    sh("bridge", "-n", host.name, *words)
    assert host.roll({**BASE, **listed("239.1.1.7")}).changes == ()
    host.goes_back({**BASE, **listed("239.1.1.8")})
    assert groups(host) == ["239.1.1.7"]
    assert host.roll(BASE).changes == ()
    assert groups(host) == ["239.1.1.7"]


def test_groups_go_before_their_bridge_is_down(host: Space) -> None:
    """A bridge that intent brings up takes groups; a revert and a rollout end with it down."""
    down = {**BASE, "bridge/br0": {**BASE["bridge/br0"], "activation_mode": "off"}}
    host.roll(down)
    taken = capture(host.system, scope_of(host.plan({**BASE, **listed("239.1.1.1")})))
    ledger = host.ledger
    host.roll({**BASE, **listed("239.1.1.1")})
    assert groups(host) == ["239.1.1.1"]
    assert restore(host.system, taken) == []
    assert groups(host) == []
    assert "UP" not in host.json("link show br0")[0]["flags"]
    host.ledger = ledger
    host.roll({**BASE, **listed("239.1.1.1")})
    host.roll(down)
    assert groups(host) == []
    assert "UP" not in host.json("link show br0")[0]["flags"]
