"""What ethtool sets, on the virtual cables of a real kernel; judged by ethtool(8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import STATE, applied, hypervisor
from namespaces import Space, apply, space, words

from fleet.host.change import HostError
from fleet.host.reverting.restore import restore
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import scope_of

NIC = {"veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"}}


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        made.roll(NIC)
        yield made


def features(host: Space, device: str = "e0") -> dict[str, bool]:
    found = json.loads(host.run("ethtool", "--json", "-k", device))[0]
    return {name: said["active"] for name, said in found.items() if name != "ifname"}


def channels(host: Space, device: str = "e0") -> tuple[int, int]:
    """Receive and transmit queues as `ethtool -l` shows them last."""
    lines = host.run("ethtool", "-l", device).split("Current hardware settings:")[1].splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(found["RX"]), int(found["TX"])


def test_features_by_any_name(host: Space) -> None:
    """A feature by the kernel's, ethtool's or netplan's name is set; others stay as they are."""
    before = features(host)
    wanted = {
        "tcp-segmentation-offload": False, "rx-gro": True, "tx-udp-segmentation": False,
        "receive-checksum-offload": False, "large-receive-offload": False,
    }  # fmt: skip
    plan = host.roll({**NIC, "ethtool/e0": {"features": wanted}})
    now = features(host)
    assert [c.what for c in plan.changes] == ["features"]
    assert plan.changes[0].impact == "blip"
    assert "large-receive-offload" not in plan.changes[0].after
    segmentation = [name for name in now if name.startswith("tx-tcp") and "segment" in name]
    assert not any(now[name] for name in [*segmentation, "tx-udp-segmentation", "rx-checksumming"])
    assert now["generic-receive-offload"] is True
    named = {*segmentation, "tcp-segmentation-offload", "tx-udp-segmentation", "rx-checksumming"}
    named |= {"generic-receive-offload"}
    assert {n: v for n, v in now.items() if n not in named} == {
        n: v for n, v in before.items() if n not in named
    }


def test_what_is_no_longer_named_goes_back(host: Space) -> None:
    """A part that intent names no more, and all of it, has what it had before fleet came."""
    host.run("ethtool", "-K", "e0", "tx-tcp6-segmentation", "off")
    before = features(host)
    settings = {"features": {"scatter-gather": False}, "channels": {"rx": 2, "tx": 2}}
    host.roll({**NIC, "ethtool/e0": settings})
    assert channels(host) == (2, 2)
    assert features(host)["tx-tcp-segmentation"] is False  # it goes with scatter-gather
    host.roll(NIC)
    assert channels(host) == (1, 1)
    assert features(host) == before


def test_a_device_that_the_plan_makes(host: Space) -> None:
    """Settings follow the device that the same plan makes, and drift is put right."""
    pair = {"veth/n0": {"peer": "n1"}, "veth/n1": {"peer": "n0"}}
    wanted = {**NIC, **pair, "ethtool/n0": {"channels": {"rx": 2}, "features": {"rx-gro": True}}}
    host.roll(wanted)
    assert channels(host, "n0") == (2, 1)
    host.run("ethtool", "-K", "n0", "gro", "off")
    host.run("ethtool", "-L", "n0", "rx", "1")
    drift = host.plan(wanted)
    assert [words(change) for change in drift.changes] == [
        "update ethtool/n0 channels: {'rx': 1} -> {'rx': 2}",
        "update ethtool/n0 features: {'rx-gro': False} -> {'rx-gro': True}",
    ]
    host.roll(wanted)
    assert features(host, "n0")["generic-receive-offload"] is True


def test_revert(host: Space) -> None:
    """A revert gives back queues and features, also what somebody turned off that stays off."""
    host.run("ethtool", "-K", "e0", "tx-tcp6-segmentation", "off", "gro", "on")
    before = features(host), channels(host)
    settings: dict[str, Any] = {
        "features": {"tx-checksumming": False, "rx-gro": False, "tx-udp-segmentation": False},
        "channels": {"rx": 2},
    }
    plan = host.plan({**NIC, "ethtool/e0": settings})
    taken = json.loads(json.dumps(capture(host.system, scope_of(plan))))
    for change in plan.changes:
        apply(host.system, change)
    assert (features(host), channels(host)) != before
    assert restore(host.system, taken) == []
    assert (features(host), channels(host)) == before


@pytest.mark.parametrize(
    ("settings", "what", "said"),
    [
        ({"features": {"warp-drive": True}}, "features", "none is called warp-drive"),
        ({"features": {"rx-lro": True}}, "features", "keeps rx-lro off"),
        ({"features": {"large-receive-offload": True}}, "features", "keeps rx-lro off"),
        ({"channels": {"combined": 2}}, "channels", "only rx, tx"),
        ({"channels": {"rx": 4000}}, "channels", "takes at most"),
        ({"rings": {"rx": 512}}, "rings", "the driver has none"),
        ({"coalesce": {"rx_usecs": 5}}, "coalesce", "the driver has none"),
        ({"pause": {"rx": True}}, "pause", "the driver has none"),
        ({"private_flags": {"legacy-rx": True}}, "private-flags", "the driver has none"),
    ],
)
def test_what_the_driver_does_not_take(
    host: Space, settings: dict[str, Any], what: str, said: str
) -> None:
    """What ethtool could not set either is a problem of the plan, and nothing is planned."""
    plan = host.plan({**NIC, "ethtool/e0": settings})
    assert plan.changes == ()
    [problem] = plan.problems
    assert problem.what == what
    assert said in problem.actual
    assert problem.remedy


def test_a_feature_that_another_holds_back(host: Space) -> None:
    """What the kernel takes and then holds back fails, with what to do."""
    host.run("ethtool", "-K", "e0", "sg", "off")
    plan = host.plan({**NIC, "ethtool/e0": {"features": {"tx-tcp-segmentation": True}}})
    with pytest.raises(HostError, match="depends on another feature"):
        apply(host.system, plan.changes[0])


def test_nobody_confirms() -> None:
    """The watchdog gives queues and features back when the deadline passes."""
    more = {
        "kind": "ethtool", "name": "eth0",
        "spec": {"features": {"tcp-segmentation-offload": False}, "channels": {"rx": 2}},
    }  # fmt: skip
    with hypervisor() as host:
        shown = ("ethtool", "--json", "-k", "eth0"), ("ethtool", "-l", "eth0")
        before = [host.sh(*argv) for argv in shown]
        applied(host, deadline=3, state={**STATE, "resources": [*STATE["resources"], more]})
        assert all(host.sh(*argv) != old for argv, old in zip(shown, before, strict=True))
        assert host.wait_for_outcome(seconds=20)["state"] == "REVERTED"
        assert [host.sh(*argv) for argv in shown] == before
