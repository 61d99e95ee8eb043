"""Kernel parameters in a real kernel, judged by sysctl(8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from namespaces import Space, apply, space

from fleet.host.change import HostError


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def test_set_and_release(host: Space) -> None:
    """Keys get their values, also of devices yet to be made, and keep them when released."""
    state = {
        "sysctl/net.ipv4.ip_forward": {"value": "1"},
        "sysctl/net.ipv4.tcp_rmem": {"value": "4096 131072 6000000"},
        "sysctl/net.ipv4.conf.br0.rp_filter": {"value": "2"},
        "sysctl/net.ipv4.conf.br0.forwarding": {"value": "0"},
        "bridge/br0": {},
    }
    host.roll(state)
    assert host.sysctl("net.ipv4.ip_forward") == "1"
    assert host.sysctl("net.ipv4.tcp_rmem").split() == ["4096", "131072", "6000000"]
    assert host.sysctl("net.ipv4.conf.br0.rp_filter") == "2"
    assert host.sysctl("net.ipv4.conf.br0.forwarding") == "0"
    assert host.ledger["sysctl/net.ipv4.ip_forward"].before == {"value": "0"}
    host.roll({**state, "sysctl/net.ipv4.ip_forward": {"value": "0"}})
    assert host.sysctl("net.ipv4.ip_forward") == "0"
    plan = host.roll({"bridge/br0": {}})
    assert plan.changes == ()
    assert host.sysctl("net.ipv4.conf.br0.rp_filter") == "2"


def test_absent_and_read_only_keys(host: Space) -> None:
    """A key this kernel lacks is a problem of the plan, one it refuses to write a HostError."""
    plan = host.plan({"sysctl/net.core.no_such_key": {"value": "1"}})
    assert plan.problems[0].resource == "sysctl/net.core.no_such_key"
    plan = host.plan({"sysctl/net.ipv4.conf.eth7.rp_filter": {"value": "1"}})
    assert "eth7" in plan.problems[0].expected
    plan = host.plan({"sysctl/net.ipv4.conf.all.rp_filter": {"value": "fast"}})
    with pytest.raises(HostError, match="refuses"):
        apply(host.system, plan.changes[0])
