"""One network namespace, and all that iproute2 says of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from fleet.host.kernel.system import System

#: What changes by itself, or tells when something was made: no part of a configuration.
PASSING = {
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "topology_change",
    "topology_change_detected", "valid_life_time", "preferred_life_time", "used", "updated",
    "refcnt", "timer", "message_age_timer", "forward_delay_timer", "hold_timer", "config_pending",
    "topology_change_ack", "ifindex", "link_index", "index", "designated_port",
    "linkmode", "expires", "probes", "bc_queue_len_used", "direct_packets_stat",
    # What a bond makes of its members from moment to moment.
    "mii_status", "link_failure_count", "active_slave", "ad_info", "ad_aggregator_id",
    "ad_actor_oper_port_state", "ad_actor_oper_port_state_str", "ad_partner_oper_port_state",
    "ad_partner_oper_port_state_str",
}  # fmt: skip


class Namespace:
    """One network namespace, spoken to through iproute2."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.system = System(name)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program inside."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv], capture_output=True, text=True, check=False
        )
        if "mdb" in argv and "Operation not supported" in done.stderr:
            return ""  # a kernel that has not loaded its bridges yet
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def do(self, script: str) -> None:
        """Run lines of ``ip``, ``bridge``, ``tc`` and ``sysctl`` commands inside."""
        for line in script.strip().splitlines():
            words = line.split()
            if words:
                self.run(*words)

    def read(self, *argv: str) -> Any:
        """Return the JSON that a program prints inside."""
        return json.loads(self.run(*argv) or "[]")

    def picture(self) -> dict[str, Any]:
        """Return all that iproute2 and sysctl show, without what changes by itself."""
        commands = {
            "links": "ip -j -d link",
            "addresses": "ip -j -d addr",
            "routes4": "ip -j -d -4 route show table all",
            "routes6": "ip -j -d -6 route show table all",
            "rules4": "ip -j -d -4 rule",
            "rules6": "ip -j -d -6 rule",
            "neighbours": "ip -j -d neigh show nud permanent",
            "proxies": "ip -j neigh show proxy",
            "nexthops": "ip -j nexthop",
            "ports": "bridge -j -d link",
            "fdb": "bridge -j -d fdb",
            "groups": "bridge -j -d mdb",
            "qdiscs": "tc -j qdisc",
        }
        found = {name: _still(self.read(*words.split())) for name, words in commands.items()}
        for name in ("routes4", "routes6", "neighbours", "proxies", "fdb", "nexthops", "qdiscs"):
            found[name].sort(key=json.dumps)
        for name in ("links", "addresses", "ports"):
            found[name].sort(key=lambda link: link["ifname"])
        found["fdb"] = [
            item for item in found["fdb"] if item.get("state") in ("permanent", "static")
        ]
        for item in found["groups"]:
            item["mdb"] = [entry for entry in item["mdb"] if entry["state"] == "permanent"]
            item.pop("router", None)
        keys = self.run("sysctl", "-a", "-e", "-r", r"^net\.ipv[46]\.(conf|neigh|ip_forward)")
        found["sysctls"] = [line for line in keys.splitlines() if "stable_secret" not in line]
        return found


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        if "no" in value:
            # A port's number in its bridge, where ports that stayed keep theirs.
            value = {key: item for key, item in value.items() if key not in ("no", "id")}
        return {key: _still(item) for key, item in value.items() if key not in PASSING}
    if isinstance(value, list):
        return [_still(item) for item in value]
    return value


def await_equal(read: Callable[[], Any], expected: Any, seconds: float = 6.0) -> None:
    """Wait until what ``read`` returns equals ``expected``; show the difference otherwise."""
    end = time.monotonic() + seconds
    while (found := read()) != expected and time.monotonic() < end:
        time.sleep(0.1)
    assert found == expected, "\n".join(differences(expected, found))


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each place where two pictures differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            yield from differences(expected.get(key), found.get(key), f"{path}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (before, after) in enumerate(zip(expected, found, strict=True)):
            yield from differences(before, after, f"{path}/{number}")
    elif isinstance(expected, list) and isinstance(found, list):
        yield from (f"{path}: gone: {item}" for item in expected if item not in found)
        yield from (f"{path}: new: {item}" for item in found if item not in expected)
    elif expected != found:
        yield f"{path}: {expected} became {found}"
