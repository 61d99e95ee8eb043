"""Bridges of Open vSwitch and flows, as an operator writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import one_host, specs

from fleet.errors import IntentError
from fleet.intent.project import render_state

DATA = """
network:
  bridges:
    br0: {parameters: {stp: true}}
    ovs0:
      interfaces: [eth1]
      addresses: [198.18.9.1/24]
      openvswitch:
        fail-mode: secure
        external-ids: {owner: fleet}
        ports: {eth1: {tag: 10, vlan-mode: native-untagged}}
  ethernets: {eth1: {}}
  flows:
    ovs0: |
      priority=10,tcp,actions=drop
"""


def test_a_bridge_with_the_key_is_open_vswitch_s(tmp_path: Path) -> None:
    """netplan's ``openvswitch`` makes a bridge one; the others stay the kernel's."""
    found = specs(render_state(one_host(tmp_path, DATA), "h1"))
    assert "bridge/br0" in found
    switch = found["openvswitch/ovs0"]
    assert switch["interfaces"] == ["eth1"]
    assert switch["openvswitch"] == {
        "fail_mode": "secure",
        "external_ids": {"owner": "fleet"},
        "ports": {"eth1": {"tag": 10, "vlan_mode": "native-untagged"}},
    }
    assert found["flows/ovs0"] == {"flows": "priority=10,tcp,actions=drop\n"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fail-mode: secure", "fail-mode: open", "'open'"),
        ("tag: 10", "tag: 4095", "4094"),
        ("fail-mode: secure", "failmode: secure", "fail-mode"),
    ],
)
def test_what_the_database_does_not_take_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    """A wrong word, number or key is an error with its place, before any host is contacted."""
    with pytest.raises(IntentError) as wrong:
        render_state(one_host(tmp_path, DATA.replace(old, new)), "h1")
    assert said in str(wrong.value) + str(getattr(wrong.value, "nearest", ""))
