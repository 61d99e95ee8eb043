"""Namespaces and nftables tables through whole transactions, by the real helper and watchdog."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypervisor import STATE, HelperFailed, Hypervisor, applied, confirm, hypervisor, until

RULES = "chain input { type filter hook input priority 0; tcp dport 2222 counter drop; }"


def state(*resources: tuple[str, str, str, dict[str, Any]]) -> dict[str, Any]:
    keys = ("namespace", "kind", "name", "spec")
    more = [dict(zip(keys, each, strict=True)) for each in resources]
    return {**STATE, "resources": [*STATE["resources"], *more]}


GUEST_RESOURCES = (
    ("", "namespace", "vm", {}),
    ("", "veth", "v1", {"peer": "e0", "peer_namespace": "vm",
                        "addresses": [{"address": "198.18.2.1/24"}]}),
    ("vm", "veth", "e0", {"peer": "v1", "peer_namespace": "host",
                          "addresses": [{"address": "198.18.2.2/24"}]}),
    ("vm", "sysctl", "net.ipv4.ip_forward", {"value": "1"}),
    ("vm", "nftables", "inet/own", {"rules": RULES}),
    ("", "nftables", "inet/fleet", {"rules": RULES}),
)  # fmt: skip
GUEST = state(*GUEST_RESOURCES)


def seen(host: Hypervisor) -> dict[str, str]:
    """What ip(8) and nft(8) show of the namespace and the tables."""
    names = host.sh("ip", "netns", "list").split()
    found = {"names": " ".join(n for n in names if n == "vm"), "host": rules(host)}
    if "vm" in names:
        inside = ("ip", "netns", "exec", "vm")
        found["address"] = host.sh(*inside, "ip", "-br", "-4", "addr", "show", "dev", "e0")
        found["forward"] = host.sh(*inside, "sysctl", "-n", "net.ipv4.ip_forward")
        found["table"] = host.sh(*inside, "nft", "list", "ruleset")
    return found


def rules(host: Hypervisor) -> str:
    return host.sh("nft", "list", "ruleset")


def test_made_and_taken_back() -> None:
    """A transaction that nobody confirms takes its namespace and its tables back."""
    with hypervisor() as host:
        host.sh("nft", "add table ip foreign")
        before, kernel = seen(host), host.kernel()
        applied(host, deadline=3, state=GUEST)
        made = seen(host)
        assert made["names"] == "vm"
        assert "198.18.2.2/24" in made["address"]
        assert "2222" in made["table"]
        assert "2222" in made["host"]
        assert host.sh("ping", "-nc1", "-W1", "198.18.2.2")
        assert host.wait_for_outcome(seconds=20)["state"] == "REVERTED"
        until(lambda: host.kernel() == kernel)
        assert seen(host) == before


def test_deleted_and_brought_back() -> None:
    """A deletion that nobody confirms gives back the namespace, what was in it, and the table."""
    with hypervisor() as host:
        _, digest = applied(host, deadline=20, state=GUEST)
        assert confirm(host.confirming(), digest)["state"] == "COMMITTED"
        before = seen(host)
        applied(host, deadline=4, name="tx2", state=STATE)
        assert seen(host)["names"] == ""
        assert "2222" not in rules(host)
        assert host.wait_for_outcome("tx2", seconds=20)["state"] == "REVERTED"
        assert seen(host) == before
        assert host.sh("ping", "-nc1", "-W1", "198.18.2.2")


#: A program may load it as JSON; nft lists it as text that it does not read: log prefix "a" b"
QUOTED = {
    "nftables": [
        {"add": {"table": {"family": "inet", "name": "fleet"}}},
        {"add": {"chain": {"family": "inet", "table": "fleet", "name": "c"}}},
        {
            "add": {
                "rule": {
                    "family": "inet",
                    "table": "fleet",
                    "chain": "c",
                    "expr": [{"log": {"prefix": 'a" b'}}],
                }
            }
        },
    ]
}


@pytest.mark.parametrize("inside", [False, True])
def test_a_table_that_could_not_be_given_back_is_not_touched(inside: bool) -> None:
    """A table that nft lists but does not read back is refused before anything changes, also one
    in a namespace."""
    space = "vm" if inside else ""
    enter = ("ip", "netns", "exec", "vm") if inside else ()
    with hypervisor() as host:
        _, digest = applied(host, deadline=20, state=GUEST)
        assert confirm(host.confirming(), digest)["state"] == "COMMITTED"
        host.sh(*enter, "sh", "-c", f"echo '{json.dumps(QUOTED)}' | nft -j -f -")
        before = host.sh(*enter, "nft", "list", "ruleset")
        wanted = state(*GUEST_RESOURCES[:-1], (space, "nftables", "inet/fleet", {"rules": RULES}))
        with pytest.raises(HelperFailed) as failed:
            applied(host, name="tx2", state=wanted)
        assert failed.value.code == "refused", failed.value
        [problem] = failed.value.problems
        assert problem["resource"] == "nftables/inet/fleet"
        assert "syntax error" in problem["actual"]
        assert host.sh(*enter, "nft", "list", "ruleset") == before
        assert host.status("tx2") == {}
