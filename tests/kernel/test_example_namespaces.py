"""The example in docs/examples/namespaces does what it says, from its files to ping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import Space, sh, space

from fleet.host.state import decode_state
from fleet.intent.project import load_project, render_state

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "namespaces"


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made
        made.system.close()
        for name in ("secure", "dmz"):
            sh("ip", "netns", "del", f"{made.name}-{name}", check=False)


def own_names(value: Any, host: Space) -> Any:
    """Return the state with namespaces named for this test alone: /run/netns is everybody's."""
    if isinstance(value, dict):
        return {own_names(key, host): own_names(inner, host) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [own_names(inner, host) for inner in value]
    if value in ("secure-vm", "dmz-vm"):
        return f"{host.name}-{value[:-3]}"
    return value


def test_the_two_are_apart(host: Space) -> None:
    """Each reaches the host and not the other; the second plan is empty; nothing of it stays."""
    wire = own_names(render_state(load_project(EXAMPLE), "hv1").wire(), host)
    state = decode_state({"host": "hv1", "resources": wire["resources"]})
    resources = {each.key: each.spec for each in state.resources}
    host.roll(resources)
    secure, dmz = (Space(f"{host.name}-{name}") for name in ("secure", "dmz"))
    assert dmz.pings("198.18.20.1")
    assert host.pings("198.18.20.2")
    assert host.pings("198.18.10.2")
    assert secure.pings("198.18.10.1")
    assert not dmz.pings("198.18.10.2", 0.3)
    assert not secure.pings("198.18.20.2", 0.3)
    without = {key: spec for key, spec in resources.items() if key != "nftables/inet/isolation"}
    host.roll(without)
    assert secure.pings("198.18.20.2")
    # What guards secure-vm is its own table.
    assert not dmz.pings("198.18.10.2", 0.3)
    host.roll({"sysctl/net.ipv4.ip_forward": {"value": "1"}})
    assert not host.has("br-secure")
