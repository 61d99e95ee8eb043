"""netplan files, others' and our own, become a running network; ``ip -j`` is the judge.

Each file prints one line: applied, applied with keys left to the host's manager, refused with the
reason, or out of scope: of a kind that this fleet does not have yet.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from capabilities import has
from namespaces import Space, apply, sh, space, words
from netplans import APPLIED, REFUSED

from fleet.errors import IntentError
from fleet.host.kernel.observation import Observation
from fleet.host.planning.plan import committed_entries, make_plan, plan_from
from fleet.host.state import decode_state
from fleet.intent.assemble import Assembler
from fleet.intent.yaml import compose
from fleet.render import Renderer
from fleet.state import State

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora") / "netplan"
#: What a kernel may lack, by the kind that needs it.
KERNEL = {"vlan": "802.1q", "bond": "bonding", "dummy": "dummy", "vrf": "vrf"}
FILES = sorted(FOLDER.glob("*.yaml")) if FOLDER.is_dir() else []


def state_of(text: str) -> State:
    tree: Any = compose(textwrap.dedent(text), "netplan")
    return Assembler(Renderer([])).state("h1", "host.example", tree)


def left_of(state: State) -> list[str]:
    """Return the keys that are left to the host's manager."""
    return [
        f"{name}.{key}"
        for devices in state.manager.values()
        for name, keys in devices.items()
        for key in keys
    ]


@contextmanager
def host(state: State) -> Iterator[Space]:
    """Make a host that has, for each NIC of a state, one that its name or match finds."""
    with space() as made:
        switch = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE
        )
        assert switch.stdout is not None
        try:
            switch.stdout.readline()
            for number, resource in enumerate(state.resources):
                if resource.kind != "ethernet" or resource.name == "lo":
                    continue
                match = resource.spec.get("match") or {}
                name = match.get("name", "").replace("*", "s0") or resource.name
                if match.get("macaddress"):
                    name = f"old{number}"
                mac = match.get("macaddress") or f"02:00:5e:00:00:{number:02x}"
                pid = str(switch.pid)
                made.ip(f"link add {name} address {mac} type veth peer name c{number} netns {pid}")
                sh("nsenter", "-t", pid, "-n", "ip", "link", "set", f"c{number}", "up")
            yield made
        finally:
            made.system.close()
            switch.kill()
            switch.wait()
            switch.stdout.close()


def plan_of(made: Space, state: State) -> Any:
    """Return the plan of a host that has nothing yet."""
    wire = {key: value for key, value in state.wire().items() if key not in ("manager", "files")}
    return plan_from(decode_state(wire), {}, Observation(made.system))


def roll(made: Space, state: State) -> dict[str, str]:
    """Roll out, demand an empty second plan, and return the kernel's names of the devices."""
    wire = {key: value for key, value in state.wire().items() if key not in ("manager", "files")}
    decoded = decode_state(wire)
    observation = Observation(made.system)
    plan = plan_from(decoded, {}, observation)
    assert plan.problems == ()
    for change in plan.changes:
        apply(made.system, change)
    ledger = committed_entries(decoded, {}, plan, observation)
    after = make_plan(decoded, ledger, made.system)
    assert after.problems == ()
    assert [words(change) for change in after.changes] == []
    return dict(observation.aliases)


def judge(made: Space, state: State, aliases: dict[str, str]) -> None:
    """Compare every resource of a state with what ip(8) and bridge(8) show."""
    for resource in state.resources:
        spec, name = resource.spec, resource.name
        if resource.kind == "rule":
            judge_rule(made, spec)
            continue
        device = spec.get("set_name") or aliases.get(name, name)
        shown = made.json("addr show dev", device)[0]
        assert ("UP" in shown["flags"]) == (spec.get("activation_mode") is None)
        if spec.get("mtu"):
            assert shown["mtu"] == spec["mtu"]
        if spec.get("macaddress"):
            assert shown["address"] == spec["macaddress"]
        for item in spec.get("addresses") or ():
            judge_address(shown, item)
        for route in spec.get("routes") or ():
            judge_route(made, device, route)
        if resource.kind == "bridge":
            judge_bridge(made, device, spec, aliases)


def judge_address(shown: dict[str, Any], item: dict[str, Any]) -> None:
    wanted = ipaddress.ip_interface(item["address"])
    found = [
        each
        for each in shown["addr_info"]
        if ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}") == wanted
    ]
    assert len(found) == 1
    if item.get("label"):
        assert found[0]["label"] == item["label"]
    assert found[0].get("deprecated", False) is (item.get("lifetime") == "0")


def judge_route(made: Space, device: str, route: dict[str, Any]) -> None:
    family = "-6" if ":" in f"{route['to']}{route.get('via')}" else "-4"
    shown = made.json(family, "route show table", str(route.get("table", "main")))
    to = "default" if route["to"] in ("0.0.0.0/0", "::/0") else route["to"]
    kind = route.get("type") or "unicast"
    found = [
        each
        for each in shown
        if each["dst"] == to
        and each.get("type", "unicast") == kind
        and each.get("gateway") == route.get("via")
        and (route.get("metric") is None or each["metric"] == route["metric"])
        and (kind != "unicast" or each["dev"] == device)
    ]
    assert len(found) == 1, (route, shown)
    if route.get("on_link"):
        assert "onlink" in found[0]["flags"]
    if route.get("mtu"):
        assert found[0]["metrics"][0]["mtu"] == route["mtu"]


def judge_bridge(made: Space, name: str, spec: dict[str, Any], aliases: dict[str, str]) -> None:
    for port in spec.get("interfaces") or ():
        assert made.link(aliases.get(port, port))["master"] == name
    data = made.link(name)["linkinfo"]["info_data"]
    parameters = spec.get("parameters") or {}
    shown = {
        "stp": bool(data["stp_state"]), "priority": data["priority"],
        "forward_delay": data["forward_delay"] / 100, "hello_time": data["hello_time"] / 100,
        "max_age": data["max_age"] / 100, "ageing_time": data["ageing_time"] / 100,
    }  # fmt: skip
    wanted = {key: value for key, value in parameters.items() if key in shown}
    assert {key: shown[key] for key in wanted} == wanted
    for key, word in (("path_cost", "cost"), ("port_priority", "priority")):
        for port, value in (parameters.get(key) or {}).items():
            assert made.port(port)[word] == value


def judge_rule(made: Space, spec: dict[str, Any]) -> None:
    source, to = spec.get("from_"), spec.get("to")
    family = "-6" if ":" in f"{source}{to}" else "-4"
    found = [
        rule
        for rule in made.json(family, "rule show")
        if rule.get("table") == str(spec.get("table", "main"))
        and (not source or f"{rule['src']}/{rule.get('srclen')}" == source)
        and (not to or f"{rule.get('dst')}/{rule.get('dstlen')}" == to)
        and (not spec.get("priority") or rule["priority"] == spec["priority"])
    ]
    assert len(found) == 1, spec


def take(name: str, text: str) -> str:
    """Apply a file where it can be, print what became of it and return its class."""
    try:
        state = state_of(text)
    except IntentError as error:
        every = [error, *error.others]
        scope = [each for each in every if "cannot apply" not in each.message]
        why = "; ".join(dict.fromkeys(each.message for each in (scope or every)))
        print(f"{name}: {'refused' if scope else 'out of scope'}: {why}")
        return "refused" if scope else "out of scope"
    lacking = {KERNEL[r.kind] for r in state.resources if r.kind in KERNEL} - {
        capability for capability in KERNEL.values() if has(capability)
    }
    with host(state) as made:
        if lacking:
            said = {problem.actual for problem in plan_of(made, state).problems}
            assert all(any(f"has no {word}" in text for text in said) for word in lacking)
            print(f"{name}: needs a kernel with {', '.join(sorted(lacking))}; the plan says so")
            return "needs another kernel"
        judge(made, state, roll(made, state))
    left = left_of(state)
    what = ", ".join(resource.key for resource in state.resources) or "nothing"
    print(
        f"{name}: applied: {what}" + (f"; left to the manager: {', '.join(left)}" if left else "")
    )
    return "applied"


@pytest.mark.corpora
@pytest.mark.skipif(not FILES, reason="corpora/netplan is not here; set FLEET_CORPORA")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_netplan_s_own(path: Path) -> None:
    """What this fleet and this kernel have kinds for runs as the file says; the rest says why."""
    take(path.name, path.read_text(encoding="utf-8"))


@pytest.mark.corpora
@pytest.mark.parametrize("name", APPLIED)
def test_a_spelling_that_is_applied(name: str) -> None:
    """Every spelling of netplan's is understood, and the kernel has what it says."""
    assert take(name, APPLIED[name]) == "applied"


@pytest.mark.corpora
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What fleet does not take is refused with the reason, before any host is asked."""
    text, reason = REFUSED[name]
    assert take(name, text) == "refused"
    assert reason in capsys.readouterr().out
