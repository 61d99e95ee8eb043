"""nftables tables in a real kernel, judged by nft(8) and by traffic."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from namespaces import Space, connect, meaning, space

from fleet.host.tables.ruleset import escapes as ruleset_of


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


RULES = """
set pairs { type ipv4_addr . ipv4_addr; elements = { 10.0.0.2 . 10.0.0.1, 10.0.0.1 . 10.0.0.3 } }
chain input {
    type filter hook input priority 0; policy accept; tcp dport { 80, 22 } counter accept
}
"""
OTHER = "chain input { type filter hook input priority 5; ip saddr 198.18.5.5 drop; }"
FOREIGN = "table ip other {\n\tchain c {\n\t\tcounter packets 7 bytes 9 accept\n\t}\n}\n"


def ruleset(host: Space, *table: str) -> str:
    words = ("table", *table) if table else ("ruleset",)
    return host.run("nft", "list", *words, check=False)


def load(host: Space, text: str) -> None:
    command = ["ip", "netns", "exec", host.name, "nft", "-f", "-"]
    subprocess.run(command, input=text, text=True, check=True)


@pytest.mark.parametrize("family", ["inet", "ip", "ip6", "bridge", "netdev", "arp"])
def test_every_family(host: Space, family: str) -> None:
    """A table of each family is made, changed and deleted; foreign tables stay byte for byte."""
    load(host, FOREIGN)
    kept = ruleset(host, "ip", "other")
    hook = "hook ingress device e0" if family == "netdev" else "hook input"
    rules = f"chain c {{ type filter {hook} priority 0; policy accept; %s }}"
    nic = {"veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"}}
    name = f"nftables/{family}/fleet"
    for rule in ("meta length 100 counter accept;", "meta length 200 drop;"):
        host.roll({**nic, name: {"rules": rules % rule}})
        found = meaning(host.name)
        made = [each["rule"] for each in found if each.get("rule", {}).get("table") == "fleet"]
        assert [each["family"] for each in made] == [family]
        assert str(rule.split()[2]) in str(made[0]["expr"])
    host.roll(nic)
    assert "fleet" not in ruleset(host)
    assert ruleset(host, "ip", "other") == kept


def test_counters_are_kept(host: Space) -> None:
    """A plan that changes nothing leaves the counters; rules that mean the same are no change."""
    host.roll({"nftables/inet/fleet": {"rules": RULES}})
    load(host, "reset counters\n")
    text = ruleset(host, "inet", "fleet").replace("packets 0 bytes 0", "packets 5 bytes 300")
    load(host, "delete table inet fleet\n" + text)
    same = RULES.replace("{ 80, 22 }", "{ 22,80 }").replace("policy accept; ", "")
    assert host.roll({"nftables/inet/fleet": {"rules": same}}).changes == ()
    assert "packets 5 bytes 300" in ruleset(host)


def test_reverts_in_one_piece(host: Space) -> None:
    """A revert gives back the table that was changed, with its counters, and deletes a new one."""
    load(host, FOREIGN)
    host.roll({"nftables/inet/fleet": {"rules": RULES}})
    text = ruleset(host, "inet", "fleet").replace("packets 0 bytes 0", "packets 5 bytes 300")
    load(host, "delete table inet fleet\n" + text)
    before = ruleset(host, "inet", "fleet")
    host.goes_back({"nftables/inet/fleet": {"rules": OTHER}, "nftables/ip/new": {"rules": OTHER}})
    assert ruleset(host, "inet", "fleet") == before
    host.goes_back({})
    assert ruleset(host, "inet", "fleet") == before


def test_adopt_and_release(host: Space) -> None:
    """A table that was there is adopted, and stays when intent lets go."""
    load(host, "table inet fleet {\n" + RULES + "}\n")
    assert host.roll({"nftables/inet/fleet": {"rules": RULES}}).changes == ()
    assert host.roll({}).changes == ()
    assert "table inet fleet" in ruleset(host)


def test_what_the_kernel_refuses(host: Space) -> None:
    """Rules that nft refuses are a problem of the plan; those that leave their table no spec."""
    plan = host.plan({"nftables/inet/fleet": {"rules": "chain x { nonsense; }"}})
    assert "rror" in plan.problems[0].actual
    for rules, said in (
        ("}\ntable ip evil {", "brace"),
        ("}\nflush ruleset\ntable inet fleet {", "brace"),
        ('include "/etc/passwd"', "include"),
    ):
        with pytest.raises(ValueError, match=said):
            host.plan({"nftables/inet/fleet": {"rules": rules}})
        assert said in ruleset_of(rules)


DROP_NEW = """chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
}"""
ACCEPTS = DROP_NEW.replace("accept\n}", "accept\n    tcp dport 22 accept\n}")


@pytest.mark.parametrize("bridged", [False, True])
@pytest.mark.parametrize("caller", ["198.18.1.9", "203.0.113.7"])
def test_management_is_not_cut_off(
    host: Space, monkeypatch: pytest.MonkeyPatch, bridged: bool, caller: str
) -> None:
    """Rules that drop new sessions and keep old ones are refused, on-link or off, bridged too."""
    monkeypatch.setenv("SSH_CONNECTION", f"{caller} 40000 198.18.1.5 22")
    with space() as outside:
        connect(host, "eno1", outside, "e0")
        device = "br0" if bridged else "eno1"
        if bridged:
            host.ip("link add br0 up type bridge")
            host.ip("link set eno1 master br0")
        host.ip(f"addr add 198.18.1.5/24 dev {device}")
        host.ip("route add default via 198.18.1.1")
        more = {"management": {"addresses": ["198.18.1.5"]}}
        plan = host.plan({"nftables/inet/fleet": {"rules": DROP_NEW}}, **more)
        assert "management" in plan.problems[0].expected
        assert caller in plan.problems[0].actual
        plan = host.plan({"nftables/inet/fleet": {"rules": ACCEPTS}}, **more)
        assert plan.problems == ()
