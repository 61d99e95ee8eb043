"""Stand-ins for hosts: a helper's answers without SSH and without a kernel.

They speak the helper's protocol at the engine's only door (``Dial``), keep a transaction per host
as the real one does, and misbehave as they are told. What they cannot show, the lab's tests do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nornir.core.inventory import Defaults, Group, Groups, Host, Hosts, Inventory, ParentGroups

from fleet.errors import HelperError, HostUnreachable
from fleet.host.planning.digest import sha256
from fleet.nornir import load_tasks
from fleet.rollout.engine import Engine


class StandIn:
    """One host: ``mtu`` of its bridge is all it has, ``ways`` what it does wrong."""

    def __init__(self, name: str, ways: tuple[str, ...] = (), mtu: int = 1500) -> None:
        self.name, self.ways, self.mtu, self.before = name, set(ways), mtu, mtu
        self.wanted = mtu
        self.transactions: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.dials = 0
        self.events: dict[str, asyncio.Event] = {}
        self.deadline = 0.0

    def plan(self, state: Mapping[str, Any]) -> dict[str, Any]:
        wanted = state["resources"][0]["spec"]["mtu"]
        impact = "drain" if "guests" in self.ways else "none"
        changes = [
            {
                "kind": "bridge",
                "name": "br0",
                "action": "update",
                "what": "mtu",
                "before": self.mtu,
                "after": wanted,
                "impact": impact,
            }
        ]
        self.wanted = wanted
        same = wanted == self.mtu
        digest = sha256(f"{self.name} {self.mtu} {wanted} {sorted(self.ways)}")
        return {"changes": [] if same else changes, "digest": digest}

    def open_one(self) -> dict[str, Any] | None:
        self.expire()
        for entry in self.transactions.values():
            if entry["state"] not in ("COMMITTED", "REVERTED", "ABANDONED", "REVERT_FAILED"):
                return {**entry, "seconds_left": max(0.0, self.deadline - time.monotonic())}
        return None

    def expire(self) -> None:
        for entry in self.transactions.values():
            waiting = entry["state"] in ("ARMED", "APPLYING", "APPLIED")
            if waiting and time.monotonic() > self.deadline:
                self.go_back(entry, "the deadline passed without a confirmation")

    def go_back(self, entry: dict[str, Any], reason: str) -> None:
        entry["state"] = "REVERT_FAILED" if "stuck" in self.ways else "REVERTED"
        entry["outcome"] = {"state": entry["state"], "reason": reason}
        self.mtu = self.before


class Session:
    """A channel to a stand-in."""

    def __init__(self, host: StandIn) -> None:
        self.host = host

    async def close(self) -> None:
        """Close the channel."""

    async def call(
        self,
        op: str,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        host = self.host
        host.calls.append(op)
        if f"hang:{op}" in host.ways:
            await asyncio.Event().wait()
        if op in host.events:
            await host.events[op].wait()
        await asyncio.sleep(0)
        answer: dict[str, Any] = getattr(self, op)(**fields)
        return answer

    def plan(self, state: Mapping[str, Any], **back: Any) -> dict[str, Any]:
        return {"plan": self.host.plan(state), "transaction": self.host.open_one()}

    def audit(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {"plan": self.host.plan(state), "pending": self.host.open_one()}

    def status(self) -> dict[str, Any]:
        self.host.expire()
        return {"transactions": [dict(entry) for entry in self.host.transactions.values()]}

    def arm(
        self, transaction: str, plan_digest: str, deadline: float, **more: Any
    ) -> dict[str, Any]:
        host = self.host
        if host.plan(more["state"])["digest"] != plan_digest:
            raise HelperError("stale", "the host is not as it was when the plan was made")
        if "refuse" in host.ways:
            raise HelperError("refused", "not allowed by name")
        host.before, host.deadline = host.mtu, time.monotonic() + deadline
        host.transactions[transaction] = {
            "transaction": transaction,
            "state": "ARMED",
            "plan_digest": plan_digest,
            "nonce_hash": more["nonce_hash"],
            "owner": more["owner"],
            "age": 1.0,
            "waiting": list(more["addresses"]),
            "confirmed": [],
            "seconds_left": deadline,
        }
        return {"armed": True, "seconds": deadline}

    def apply(self, transaction: str) -> dict[str, Any]:
        host, entry = self.host, self.host.transactions[transaction]
        if "break" in host.ways:
            host.go_back(entry, "a change failed")
            code = "revert-failed" if "stuck" in host.ways else "reverted"
            raise HelperError(code, "a change failed; the host is as before")
        host.mtu, entry["state"] = host.wanted, "APPLIED"
        if "die" in host.ways:
            host.ways |= {"gone"}
        if "lose:apply" in host.ways or "die" in host.ways:
            raise HostUnreachable("the connection was lost")
        return {"applied": True}

    def confirm(
        self, transaction: str, plan_digest: str, nonce: str, address: str
    ) -> dict[str, Any]:
        host, entry = self.host, self.host.transactions[transaction]
        if sha256(nonce) != entry["nonce_hash"] or plan_digest != entry["plan_digest"]:
            raise HelperError("refused", "the nonce is not the one this transaction was armed with")
        if "unwell" in host.ways:
            raise HelperError("refused", "what worked before no longer does: gateway")
        if entry["state"] != "APPLIED":
            raise HelperError("refused", f"transaction {transaction} is {entry['state']}")
        entry["confirmed"].append(address)
        entry["waiting"] = [each for each in entry["waiting"] if each not in entry["confirmed"]]
        entry["state"] = "APPLIED" if entry["waiting"] else "COMMITTED"
        if "lose:confirm" in host.ways:
            raise HostUnreachable("the connection was lost")
        return {"state": entry["state"], "waiting": entry["waiting"]}

    def revert(self, transaction: str) -> dict[str, Any]:
        entry = self.host.transactions.get(transaction)
        if entry is None or entry["state"] == "COMMITTED":
            raise HelperError("refused", "nothing to revert")
        self.host.go_back(entry, "asked for by the operator")
        if entry["state"] == "REVERT_FAILED":
            raise HelperError("revert-failed", "the host is not as before")
        return {"state": entry["state"]}


class Fleet:
    """Stand-in hosts, and the project and dial that lead to them."""

    def __init__(self, path: Path, hosts: Mapping[str, tuple[str, ...]], mtu: int = 9000) -> None:
        self.path, self.mtu = path, mtu
        self.hosts = {name: StandIn(name, ways) for name, ways in hosts.items()}
        self.settings: dict[str, Any] = {"confirm-timeout": 20}
        self.events: list[Any] = []
        (path / "inventory").mkdir(parents=True, exist_ok=True)
        (path / "tasks").mkdir(exist_ok=True)

    def inventory(self) -> Inventory:
        group = Group("all", data={})
        hosts = {
            name: Host(
                name,
                hostname=name,
                groups=ParentGroups([group]),
                defaults=Defaults(),
                data={"fleet": self.settings},
            )
            for name in self.hosts
        }
        return Inventory(Hosts(hosts), Groups({"all": group}), Defaults(data={"fleet": {}}))

    def state(self, name: str) -> dict[str, Any]:
        spec = {"mtu": self.mtu}
        resource = {"namespace": "", "kind": "bridge", "name": "br0", "spec": spec}
        return {"host": name, "resources": [resource], "management": {"addresses": []}}

    def engine(self, concurrency: int = 2000) -> Engine:
        project: Any = SimpleNamespace(path=self.path, inventory=self.inventory(), config={})
        return Engine(
            project,
            load_tasks(self.path),
            on_event=self.events.append,
            concurrency=concurrency,
            dial=self,
            render=self.state,
        )

    def happened(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def main(self, host: Host) -> Session:
        stand_in = self.hosts[host.name]
        stand_in.dials += 1
        if "hang" in stand_in.ways:
            await asyncio.Event().wait()
        if "gone" in stand_in.ways or "unreachable" in stand_in.ways:
            raise HostUnreachable("no route to host")
        return Session(stand_in)

    async def anew(self, host: Host, address: str = "") -> Session:
        return await self.main(host)

    async def answers(self, host: Host, address: str) -> bool:
        return "gone" not in self.hosts[host.name].ways
