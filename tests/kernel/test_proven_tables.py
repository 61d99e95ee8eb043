"""Tables that nobody changed since they were proven: no program runs; every change is found."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import Space, connect, space, until

from fleet.host.kernel.observation import Observation
from fleet.host.kernel.system import Completed, System
from fleet.host.planning.plan import plan_from
from fleet.host.tables import proven

RULES = """
set hosts { type ipv4_addr; elements = { 198.18.9.1, 198.18.9.2 } }
set nets { type ipv4_addr; flags interval; counter; elements = { 198.18.8.0/24 } }
set seen { type ipv4_addr; size 100; flags dynamic; }
set soon { type ipv4_addr; flags timeout; }
map ports { type inet_service : verdict; elements = { 23 : drop, 24 : jump other } }
counter hits { }
quota bulk { over 10 mbytes }
limit slow { rate 10/second }
chain other { }
chain input {
    type filter hook input priority 5; policy accept;
    counter name hits quota name bulk drop
    update @seen { ip saddr counter }
    ip saddr @hosts counter accept
    tcp dport { 80, 443 } limit name slow accept
    quota over 64 bytes comment "small"
    tcp dport vmap @ports
    tcp dport 25 drop
}
"""
TABLE = "nftables/inet/fleet"
INTENT = {TABLE: {"rules": RULES}}


class Audited:
    """A namespace whose table was rolled out, and what an audit of it runs."""

    def __init__(self, host: Space, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.intent: dict[str, Any] = INTENT
        self.programs: list[str] = []
        monkeypatch.setattr(proven, "_path", lambda _: f"{root}/{proven.NAME}")
        run = System.run

        def recording(system: System, argv: list[str], *rest: object, **more: object) -> Completed:
            self.programs.append(" ".join(argv))
            return run(system, argv, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(System, "run", recording)

    def audit(self) -> list[str]:
        """Return the audit's changes; ``programs`` then has what it ran."""
        self.programs.clear()
        observation = Observation(self.host.system)
        plan = plan_from(self.host.state(self.intent), self.host.ledger, observation)
        assert not plan.problems, plan.problems
        proven.store("", observation.proven)
        return [f"{change.action} {change.key}" for change in plan.changes]

    def nft(self, script: str) -> None:
        argv = ["ip", "netns", "exec", self.host.name, "nft", "-f", "-"]
        subprocess.run(argv, input=script, text=True, check=True)


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    with space() as host:
        made = Audited(host, tmp_path, monkeypatch)
        host.roll(INTENT)
        assert made.audit() == []
        assert made.programs != []
        yield made


def test_an_unchanged_table_needs_no_program(audited: Audited) -> None:
    """Once nft has proven a table, an audit runs nothing; not so for another text."""
    assert audited.audit() == []
    assert audited.programs == []
    audited.intent = {TABLE: {"rules": RULES.replace("dport 25", "dport 26")}}
    assert audited.audit() == [f"update {TABLE}"]


def test_what_packets_change_is_no_change(audited: Audited) -> None:
    """Counters, quotas, dynamic and timed sets move, and the audit still runs nothing."""
    with space() as other:
        connect(audited.host, "e0", other, "e1")
        audited.host.ip("addr add 198.18.9.9/24 dev e0")
        other.ip("addr add 198.18.9.1/24 dev e1")
        until(lambda: other.pings("198.18.9.9"))
        audited.nft("add element inet fleet soon { 198.18.7.1 timeout 1h }")
        listed = audited.host.run("nft", "list", "table", "inet", "fleet")
        assert "198.18.9.1 counter packets" in listed
        assert "packets 0 bytes 0 accept" not in listed.replace("vmap", "")
        assert "used" in listed
    assert audited.audit() == []
    assert audited.programs == []


def test_other_tables_are_nothing_to_it(audited: Audited) -> None:
    """Tables of others, of the same name in another family too, come and go without a program."""
    audited.nft("table ip fleet { chain c { type filter hook input priority 0;\ndrop\n}\n}")
    audited.nft("add table inet other\nadd set inet other s { type ipv4_addr; }")
    assert audited.audit() == []
    assert audited.programs == []


DRIFT = {
    "a rule more": "add rule inet fleet input udp dport 9 drop",
    "a rule first": "insert rule inet fleet input accept",
    "a rule in another chain": "add rule inet fleet other accept",
    "policy": "chain inet fleet input { policy drop; }",
    "a chain more": "add chain inet fleet more",
    "a base chain more": "add chain inet fleet out { type filter hook output priority 0; }",
    "an element more": "add element inet fleet hosts { 198.18.9.3 }",
    "an element less": "delete element inet fleet hosts { 198.18.9.2 }",
    "an interval more": "add element inet fleet nets { 198.18.7.0/24 }",
    "an interval less": "delete element inet fleet nets { 198.18.8.0/24 }",
    "a verdict": "delete element inet fleet ports { 23 }\n"
    "add element inet fleet ports { 23 : accept }",
    "a set more": "add set inet fleet more { type ipv4_addr; }",
    "a set less": "delete set inet fleet soon",
    "a limit": "delete rule inet fleet input handle LIMITED",
    "a counter more": "add counter inet fleet more",
    "a map more": "add map inet fleet m { type ipv4_addr : verdict; }",
    "no rules": "flush chain inet fleet input",
    "dormant": "table inet fleet { flags dormant; }",
    "another rule": "replace rule inet fleet input handle LAST tcp dport 26 drop",
    "the order": "delete rule inet fleet input handle LAST\n"
    "insert rule inet fleet input tcp dport 25 drop",
    "no table": "delete table inet fleet",
    "a priority": "delete chain inet fleet input\n"
    "table inet fleet {\nchain input { type filter hook input priority 6; }\n}",
}


@pytest.mark.parametrize("what", DRIFT)
def test_every_drift_is_found(audited: Audited, what: str) -> None:
    """Whatever somebody does to a table, the next audit says so."""
    handles: dict[str, str] = {}
    listed = audited.host.run("nft", "-a", "list", "table", "inet", "fleet")
    for line in listed.splitlines():
        handle = line.rpartition("# handle ")[2]
        for word, text in (("LAST", "tcp dport 25"), ("LIMITED", "limit name")):
            if text in line:
                handles[word] = handle
    script = DRIFT[what]
    for word, handle in handles.items():
        script = script.replace(word, handle)
    audited.nft(script)
    assert audited.audit() == [f"{'create' if what == 'no table' else 'update'} {TABLE}"]


def test_a_table_put_back_by_hand_is_as_intended(audited: Audited) -> None:
    """The same rules loaded again mean the same, proven by nft or by their form."""
    listed = audited.host.run("nft", "list", "table", "inet", "fleet")
    audited.nft("delete table inet fleet\n" + listed)
    assert audited.audit() == []
    assert audited.audit() == []
    assert audited.programs == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"fleet-sealed-1 0\n{}"])
def test_a_damaged_record_counts_for_nothing(
    audited: Audited, tmp_path: Path, damage: bytes
) -> None:
    """What is not as fleet wrote it costs time, and never hides a change."""
    (tmp_path / proven.NAME).write_bytes(damage)
    assert audited.audit() == []
    assert audited.programs != []
    (tmp_path / proven.NAME).write_bytes(damage)
    audited.nft("add rule inet fleet input accept")
    assert audited.audit() == [f"update {TABLE}"]


def test_a_policy_is_proven_too(audited: Audited) -> None:
    """A policy's table is one of fleet's own words, and no program runs for it either."""
    audited.intent = {
        **INTENT,
        "policy/p": {"isolate": True, "allow": [["198.18.9.1", "198.18.9.2"]]},
    }
    audited.host.roll(audited.intent)
    assert audited.audit() == []
    assert audited.audit() == []
    assert audited.programs == []
    audited.nft("add rule bridge fleet-p forward accept")
    assert audited.audit() == ["update policy/p"]
