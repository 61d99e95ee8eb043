"""The way back of a committed transaction is a transaction itself: armed, confirmed, or undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypervisor import STATE, Hypervisor, applied, armed, confirm, hypervisor, until

pytestmark = pytest.mark.kernel

SYSCTL_FILE = "etc/sysctl.d/90-fleet.conf"
BACK = {"name": "tx2", "back": "tx1"}


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    with hypervisor() as made:
        yield made


def committed(host: Hypervisor) -> None:
    helper, digest = applied(host)
    confirm(host.confirming(), digest)
    helper.close()


def test_it_ends_where_the_transaction_began(host: Hypervisor) -> None:
    """Confirmed, the kernel and the files are as before the transaction, the ledger included."""
    before = host.kernel()
    committed(host)
    helper, digest = applied(host, **BACK)
    assert host.kernel() == before
    assert confirm(host.confirming(), digest, "tx2")["state"] == "COMMITTED"
    assert host.kernel() == before
    assert not (host.root / SYSCTL_FILE).exists()
    assert not (host.root / "var/lib/fleet/ledger.json").exists()
    helper.close()


def test_unconfirmed_it_is_taken_back_itself(host: Hypervisor) -> None:
    """At its deadline the host is as the committed transaction left it, its files too."""
    committed(host)
    between = host.kernel()
    helper, _ = applied(host, deadline=1.5, **BACK)
    assert host.kernel() != between
    assert host.wait_for_outcome("tx2")["state"] == "REVERTED"
    until(lambda: host.kernel() == between)
    assert (host.root / SYSCTL_FILE).exists()
    helper.close()


@pytest.mark.parametrize("point", ["apply.change.0.before", "apply.change.0.after"])
def test_killed_on_its_way_it_is_taken_back_itself(host: Hypervisor, point: str) -> None:
    """An applier that dies before or after going back leaves the host as it was committed."""
    committed(host)
    between = host.kernel()
    helper, _ = armed(host, deadline=30.0, extra=f"die_at({point!r})\n", **BACK)
    helper.send("apply", transaction="tx2")
    assert host.wait_for_outcome("tx2")["state"] == "REVERTED"
    until(lambda: host.kernel() == between)
    helper.close()


def test_it_is_bound_to_what_was_seen(host: Hypervisor) -> None:
    """What somebody does between plan and arm makes the plan of the way back stale."""
    committed(host)
    helper = host.helper()
    plan = helper.call("plan", state=STATE, back="tx1")["plan"]
    assert plan["problems"] == []
    host.ip("link set br0 mtu 1300")
    other = helper.call("plan", state=STATE, back="tx1")["plan"]
    assert plan["digest"] != other["digest"]
    assert [each["resource"] for each in other["problems"]] == ["device/br0"]
    helper.close()


def test_without_a_snapshot_the_state_is_gone_to(host: Hypervisor) -> None:
    """A host that does not have the transaction's snapshot any more says so."""
    committed(host)
    (host.root / "var/lib/fleet/journal/tx1/snapshot").unlink()
    helper = host.helper()
    assert "not on the host any more" in helper.call("plan", state=STATE, back="tx1")["inexact"]
    assert "no committed transaction" in helper.call("plan", state=STATE, back="tx9")["inexact"]
    helper.close()
