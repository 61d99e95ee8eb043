"""What a plan says beyond its changes: digest, guests, permission, ledger, imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from observed import Observed

from fleet.host.change import Plan
from fleet.host.planning.conflict import claims
from fleet.host.planning.ledger import Entry
from fleet.host.planning.plan import allowed, committed_entries, plan_from
from fleet.host.spec import decode, encode
from fleet.host.state import State, decode_state

ROOT = Path(__file__).parent.parent.parent
BRIDGE = {"bridge/br0": {"interfaces": ["eth1"], "parameters": {"ageing_time": 60.0}}}


def state(resources: dict[str, Any], **more: Any) -> State:
    items = [
        {"kind": key.split("/", 1)[0], "name": key.split("/", 1)[1], "spec": spec}
        for key, spec in resources.items()
    ]
    return decode_state({"host": "h", "resources": items, **more})


def host(**more: Any) -> dict[str, Any]:
    return {
        "links": {
            "eth0": {}, "eth1": {}, "br0": {"kind": "bridge"},
            "vnet0": {"kind": "tun", "master": "br0"},
        },
        "addresses": {"eth0": ["198.18.1.5/24"]},
        "routes": [{"to": "default", "via": "198.18.1.1", "dev": "eth0"}],
        **more,
    }  # fmt: skip


def plan(resources: dict[str, Any], words: dict[str, Any], **ledger: Entry) -> Plan:
    observed: Any = Observed(words)
    wanted = state(resources, management={"addresses": ["198.18.1.5"], "device": "eth0"})
    return plan_from(wanted, ledger, observed)


def holder(pid: int, guest: str) -> dict[str, Any]:
    return {"pid": pid, "command": "qemu-system-x86", "guest": guest}


def test_the_digest_moves_with_what_the_plan_stands_on() -> None:
    """It moves with a touched attribute and the management path, and with nothing else."""
    first = plan(BRIDGE, host()).digest
    assert plan(BRIDGE, host()).digest == first

    def changed(edit: Any) -> bool:
        words = host()
        edit(words)
        return plan(BRIDGE, words).digest != first

    assert changed(lambda w: w["links"]["br0"].update(data={"ageing_time": 30.0}))
    assert changed(
        lambda w: (
            w["links"]["eth1"].update(master="br9") or w["links"].update(br9={"kind": "bridge"})
        )
    )
    assert changed(lambda w: w["routes"][0].update(via="198.18.1.2"))
    assert changed(lambda w: w["links"]["eth0"].update(up=False))
    assert changed(lambda w: w["addresses"].update(eth0=[]))
    assert not changed(lambda w: w["links"].update(other={"kind": "bridge"}))
    assert not changed(lambda w: w["links"]["br0"].update(index=77))
    assert not changed(lambda w: w["links"]["br0"].update(data={"priority": 5}))
    assert not changed(lambda w: w["addresses"].update(eth1=["198.18.9.1/24"]))


def test_a_new_guest_makes_stale_only_what_it_would_notice() -> None:
    """A guest that appears moves the digest of a plan that interrupts, and no other."""
    guest = {"vnet0": [holder(7, "vm0")]}
    assert plan(BRIDGE, host()).digest != plan(BRIDGE, host(holders=guest)).digest
    calm = {"bridge/br0": {"parameters": {"ageing_time": 60.0}}}
    assert plan(calm, host()).digest == plan(calm, host(holders=guest)).digest


def test_an_empty_plan_has_a_digest() -> None:
    """It stands for the management path alone."""
    empty = plan({"bridge/br0": {}}, host())
    assert empty.changes == ()
    assert len(empty.digest) == 64
    assert empty.settle == 0


def test_processes_are_read_only_for_what_interrupts() -> None:
    """A plan that interrupts nobody does not look for guests."""
    observed: Any = Observed(host())
    plan_from(state({"bridge/br0": {"parameters": {"ageing_time": 60.0}}}), {}, observed)
    assert observed.holders_read == 0
    plan_from(state({"bridge/br0": {}}), {}, observed)
    assert observed.holders_read == 0


def test_drain_needs_permission() -> None:
    """Deleting a bridge with guests is refused unless its impact or its key is allowed."""
    entry = Entry("", "bridge", "br0", {}, True, None)
    words = host(holders={"vnet0": [holder(7, "vm0")]})
    found = plan({}, words, **{"bridge/br0": entry})
    assert [c.impact for c in found.changes] == ["drain"]
    assert found.changes[0].guests == ("vm0",)
    assert "vm0" in allowed(found, ())[0].actual
    assert allowed(found, ("reboot",))
    assert allowed(found, ("drain",)) == ()
    assert allowed(found, ("bridge/br0",)) == ()


def test_a_plan_survives_the_wire() -> None:
    """A plan encodes to plain data and decodes to itself."""
    made = plan({"bridge/new": {"macaddress": "02:00:00:00:00:01"}}, host())
    data = encode(made)
    assert encode(decode(Plan, data)) == data


def test_the_ledger_after_a_commit() -> None:
    """What was made is created, what was there adopted with its form; the rest is forgotten."""
    wanted = state({"bridge/br0": {"parameters": {"priority": 7}}, "bridge/new": {},
                    "sysctl/net.ipv4.ip_forward": {"value": "1"},
                    "rule/a": {"from_": "198.18.3.0/24", "table": 5}})  # fmt: skip
    observed: Any = Observed(host(sysctls={"net.ipv4.ip_forward": "0"}))
    old = {"bridge/gone": Entry("", "bridge", "gone", {}, False, {})}
    made = plan_from(wanted, old, observed)
    ledger = committed_entries(wanted, old, made, observed)
    assert sorted(ledger) == ["bridge/br0", "bridge/new", "rule/a", "sysctl/net.ipv4.ip_forward"]
    assert [ledger[key].created for key in sorted(ledger)] == [False, True, True, False]
    before = ledger["bridge/br0"].before
    assert before is not None
    assert before["parameters"]["priority"] == 32768
    assert ledger["sysctl/net.ipv4.ip_forward"].before == {"value": "0"}
    # A later commit keeps what the first one learnt.
    again = committed_entries(wanted, ledger, Plan(), Observed({}))  # type: ignore[arg-type]
    assert again == ledger


def test_an_unknown_kind_is_a_problem() -> None:
    """A state of a later version says so instead of being half carried out."""
    found = plan({"teleport/t0": {}}, host())
    assert found.problems[0].actual == "teleport"


FORBIDDEN = (
    "typing", "dataclasses", "json", "re", "socket", "subprocess", "collections", "enum",
    "functools", "logging", "asyncio", "ctypes", "hashlib", "tempfile", "pathlib", "pyroute2",
)  # fmt: skip
AUDIT = """
import sys
sys.path.insert(0, {root!r})
from fleet.host.state import decode_state
from fleet.host.planning.plan import make_plan
from fleet.host.kernel.system import System
from fleet.host import wire
from fleet.host.spec import encode
state = decode_state(wire.loads({state!r}))
wire.dumps(encode(make_plan(state, {{}}, System())))
print(*sorted(sys.modules))
"""


def audit(resources: str) -> set[str]:
    program = AUDIT.format(root=str(ROOT), state=resources)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_an_audit_imports_next_to_nothing() -> None:
    """A plan without changes loads no heavy module and only the kinds that the state has."""
    modules = audit(
        '{"host":"h","resources":[{"kind":"bridge","name":"lo","spec":{}}],'
        '"management":{"addresses":["127.0.0.1"]}}'
    )
    assert sorted(modules & set(FORBIDDEN)) == []
    kinds = {name for name in modules if name.startswith("fleet.host.kinds.")}
    assert kinds == {"fleet.host.kinds.bridge"}


def test_a_plan_with_changes_imports_no_more() -> None:
    """Planning a change is as light as planning none; only applying loads pyroute2."""
    modules = audit(
        '{"host":"h","resources":[{"kind":"bridge","name":"flbr9","spec":{"interfaces":["lo"]}},'
        '{"kind":"veth","name":"fla","spec":{"peer":"flb"}},'
        '{"kind":"sysctl","name":"net.ipv4.ip_forward","spec":{"value":"7"}},'
        '{"kind":"rule","name":"r","spec":{"mark":77,"table":7}},'
        '{"kind":"ethernet","name":"lo","spec":{"mtu":1400,"routes":[]}}]}'
    )
    assert sorted(modules & set(FORBIDDEN)) == []


def test_claims_are_seen_without_a_host() -> None:
    """What two resources claim is found from the state alone, once each."""
    found = claims(
        state(
            {
                "ethernet/eth0": {"addresses": [{"address": "198.18.4.1/22"}]},
                "bridge/br0": {"interfaces": ["eth1"], "addresses": [{"address": "198.18.5.1/24"}]},
                "bridge/br1": {"interfaces": ["eth1"], "addresses": [{"address": "198.18.5.9/32"}]},
                "veth/br1": {"peer": "x", "addresses": [{"address": "198.18.8.1/24"}]},
            }
        ).resources
    )
    assert [(problem.resource, problem.what) for problem in found] == [
        ("veth/br1", ""),
        ("bridge/br1", "interfaces"),
        ("bridge/br0", "addresses"),
    ]


def test_a_route_that_goes_with_the_last_address_is_told() -> None:
    """The kernel drops a device's routes with its last address: the plan says which, before."""
    found = plan_from(state({"ethernet/eth0": {"addresses": []}}), {}, Observed(host()))
    assert [change.reason for change in found.changes] == ["takes the route to default along"]
    assert [change.takes for change in found.changes] == [("the route to default",)]
