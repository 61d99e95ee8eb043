"""Network namespaces for tests, and the oracles that judge what is in them: never fleet's own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fleet.host import registry
from fleet.host.change import Change, Plan
from fleet.host.kernel.observation import Observation
from fleet.host.kernel.system import System
from fleet.host.planning.ledger import Entry
from fleet.host.planning.plan import committed_entries, make_plan, plan_from
from fleet.host.state import decode_state


def sh(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr}")
    return done.stdout


class Space:
    """One namespace: a shell to it, and fleet in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.system = System(namespace=name)
        self.ledger: dict[str, Entry] = {}

    def ip(self, *words: str, check: bool = True) -> str:
        return sh("ip", "-n", self.name, *" ".join(words).split(), check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        return sh("ip", "netns", "exec", self.name, *argv, check=check)

    def json(self, *words: str) -> Any:
        return json.loads(sh("ip", "-n", self.name, "-j", "-d", *" ".join(words).split()) or "[]")

    def link(self, device: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json("link show dev", device)[0]
        return found

    def has(self, device: str) -> bool:
        return device in {link["ifname"] for link in self.json("link show")}

    def port(self, device: str) -> dict[str, Any]:
        out = sh("bridge", "-n", self.name, "-j", "-d", "link", "show", "dev", device)
        found: dict[str, Any] = json.loads(out)[0]
        return found

    def addresses(self, device: str) -> list[str]:
        """Addresses in the kernel's order, without link-local ones."""
        return [
            f"{item['local']}/{item['prefixlen']}"
            for item in self.json("addr show dev", device)[0]["addr_info"]
            if item["scope"] != "link"
        ]

    def routes(self, *words: str) -> list[str]:
        """Routes as ``to [via] [dev]``, sorted, without the kernel's own."""
        found = []
        for family in ("-4", "-6"):
            # A table that has no route of this family does not exist.
            argv = ("ip", family, "-n", self.name, "-j", "-d", "route", "show", *words)
            out = sh(*argv, check=False)
            for route in json.loads(out if out.strip().endswith("]") else "[]"):
                if route.get("protocol") not in ("kernel", "ra"):
                    via = f" via {route['gateway']}" if "gateway" in route else ""
                    found.append(f"{route['dst']}{via} dev {route.get('dev')}")
        return sorted(found)

    def sysctl(self, name: str) -> str:
        return self.run("sysctl", "-n", name).strip()

    def pings(self, address: str, seconds: float = 1.0) -> bool:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "ping", "-nc", "1", "-W", str(seconds), address],
            capture_output=True, timeout=10,
        )  # fmt: skip
        return done.returncode == 0

    def state(self, resources: dict[str, Any], **more: Any) -> Any:
        return decode_state({"host": self.name, "resources": resources_of(resources), **more})

    def plan(self, resources: dict[str, Any], **more: Any) -> Plan:
        return make_plan(self.state(resources, **more), self.ledger, self.system)

    def roll(self, resources: dict[str, Any], **more: Any) -> Plan:
        """Plan, apply each change, commit, and demand that the next plan is empty."""
        state = self.state(resources, **more)
        observation = Observation(self.system)
        plan = plan_from(state, self.ledger, observation)
        assert not plan.problems, plan.problems
        for change in plan.changes:
            apply(self.system, change)
        self.ledger = committed_entries(state, self.ledger, plan, observation)
        after = make_plan(state, self.ledger, self.system)
        assert not after.problems, after.problems
        assert [words(change) for change in after.changes] == []
        return plan

    def settled(self) -> bool:
        """Say whether the kernel has worked out the state of every bridge and pair that is up."""
        links = {link["ifname"]: link for link in self.json("link show up") if link}
        kinds = {name: link.get("linkinfo", {}).get("info_kind") for name, link in links.items()}
        for name, link in links.items():
            if kinds[name] not in ("bridge", "bond", "veth", "vlan"):
                continue
            below = links.get(link.get("link", ""))
            ready = below and (kinds[name] == "veth" or below["operstate"] == "UP")
            if link["operstate"] == "UNKNOWN" or (ready and link["operstate"] != "UP"):
                return False
        return True

    def goes_back(self, resources: dict[str, Any], *namespaces: str, **more: Any) -> Plan:
        """Plan, take a snapshot, apply, restore, and demand that everything is as it was."""
        from fleet.host.reverting.restore import restore
        from fleet.host.reverting.snapshot import capture
        from fleet.host.transactions.prepare import scope_of

        plan = self.plan(resources, **more)
        assert not plan.problems, plan.problems
        assert plan.changes
        until(self.settled)
        before = [picture(name) for name in (self.name, *namespaces)]
        taken = capture(self.system, scope_of(plan))
        for change in plan.changes:
            apply(self.system, change)
        assert [picture(name) for name in (self.name, *namespaces)] != before
        assert restore(self.system, taken) == []
        from pictures import await_equal

        await_equal(lambda: [picture(name) for name in (self.name, *namespaces)], before, 15)
        return plan


def picture(name: str) -> Any:
    """Return all that ip, bridge and nft show of a namespace, None where there is none."""
    from pictures import Namespace

    if not os.path.exists(f"/run/netns/{name}"):
        return None
    return [Namespace(name).picture(), meaning(name)]


def meaning(name: str) -> Any:
    """Return what ``nft -j`` lists, without handles and counts."""
    listed = json.loads(sh("ip", "netns", "exec", name, "nft", "-j", "list", "ruleset"))

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            counted = ("handle", "packets", "bytes", "index")
            return {k: plain(v) for k, v in value.items() if k not in counted}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return [plain(item) for item in listed["nftables"] if "metainfo" not in item]


def apply(system: System, change: Change) -> None:
    registry.load(change.kind).apply(system.at(change.namespace or system.namespace), change)


def words(change: Change) -> str:
    return f"{change.action} {change.key} {change.what}: {change.before} -> {change.after}"


def resources_of(resources: dict[str, Any]) -> list[dict[str, Any]]:
    items = []
    for key, spec in resources.items():
        kind, _, name = key.partition("/")
        namespace, _, kind = kind.rpartition(":")
        items.append({"namespace": namespace, "kind": kind, "name": name, "spec": spec})
    return items


@contextmanager
def space() -> Iterator[Space]:
    """Make a namespace with loopback up and no duplicate detection; delete it afterwards."""
    name = f"ft{os.getpid()}x{uuid.uuid4().hex[:6]}"
    sh("ip", "netns", "add", name)
    made = Space(name)
    try:
        made.ip("link set lo up")
        for scope in ("all", "default"):
            made.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.accept_dad=0")
        yield made
    finally:
        made.system.close()
        sh("ip", "netns", "del", name)


def connect(one: Space, device: str, other: Space, peer: str) -> None:
    """Join two namespaces by a cable."""
    one.ip(f"link add {device} type veth peer name {peer} netns {other.name}")
    one.ip(f"link set {device} up")
    other.ip(f"link set {peer} up")


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds; the test fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
