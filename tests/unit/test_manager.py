"""The manager's file: what netplan can say of a state, in a form that netplan itself reads."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import one_host

from fleet.errors import IntentError
from fleet.host.transactions.lasting import GENERATORS
from fleet.intent import manager_file, render_state

ROOT = Path(__file__).parents[2]
CORPORA = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora") / "netplan"
EXAMPLES = sorted(CORPORA.glob("*.yaml")) if CORPORA.is_dir() else []
GENERATE = next((path for path in GENERATORS if os.path.exists(path)), "")
needs_netplan = pytest.mark.skipif(not GENERATE, reason="needs netplan: apt-get install netplan.io")
SETTING = "fleet: {manager: netplan}\n"

INTENT = """
network:
  version: 2
  ethernets:
    eno1:
      match: {macaddress: "52:54:00:12:34:56"}
      set-name: eno1
      addresses: [198.18.0.5/24, {"198.18.0.6/24": {label: "eno1:b", lifetime: 0}}]
      routes:
        - {to: default, via: 198.18.0.1, on-link: true}
        - {to: 10.9.0.0/16, type: blackhole}
        - {to: 10.8.0.0/16}
      nameservers: {addresses: [198.18.0.9], search: [lab]}
      optional: true
    eno2: {dhcp4: yes, dhcp4-overrides: {route-metric: 200, use-dns: false}, hairpin: true}
    odd: {match: {pci-address: "0000:01:00.0"}}
  virtual-ethernets:
    va: {peer: vb}
    vb: {peer: va, mtu: 1400}
  tunnels:
    vx0: {mode: vxlan, id: 5, local: 198.18.0.5, remote: 198.18.0.7, port: 4789, link: eno1}
    vx1: {mode: vxlan, id: 6, local: 198.18.0.5, remote: 198.18.0.7, link: va}
  bridges:
    br0:
      interfaces: [eno2, va]
      macaddress: "52:54:00:00:00:01"
      parameters: {stp: true, forward-delay: 4, path-cost: {va: 3, eno2: 7}, group-fwd-mask: 8}
      ports: {va: {isolated: true}}
      routing-policy: [{from: 10.7.0.0/24, table: 100, priority: 1000}, {mark: 7, table: 9}]
      addresses: ["10.7.0.1/24", "2001:db8::1/64"]
"""


def network(tmp_path: Path, intent: str, host: str = "198.18.0.5") -> Any:
    text = manager_file(one_host(tmp_path, SETTING + intent, host), "h1")
    assert text.startswith("# Written by fleet")
    return yaml.safe_load(text)["network"]


def read_by_netplan(tmp_path: Path, text: str) -> str:
    """Have netplan's own generator read a file; return what it complains of."""
    folder = tmp_path / "root" / "etc" / "netplan"
    folder.mkdir(parents=True)
    (folder / "90-fleet.yaml").write_text(text)
    (folder / "90-fleet.yaml").chmod(0o600)
    argv = [GENERATE, "--root-dir", str(tmp_path / "root")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_the_file_says_what_netplan_can(tmp_path: Path) -> None:
    """Applied words and those left to the manager, in netplan's forms; what netplan lacks, and
    ports that are not in the file, are left out."""
    found = network(tmp_path, INTENT)
    assert list(found) == ["version", "renderer", "ethernets", "bridges", "tunnels"]
    assert found["ethernets"] == {
        "eno1": {
            "match": {"macaddress": "52:54:00:12:34:56"},
            "set-name": "eno1",
            "addresses": ["198.18.0.5/24", {"198.18.0.6/24": {"label": "eno1:b", "lifetime": "0"}}],
            "routes": [
                {"to": "default", "via": "198.18.0.1", "on-link": True},
                {"to": "10.9.0.0/16", "type": "blackhole"},
                {"to": "10.8.0.0/16", "scope": "link"},
            ],
            "nameservers": {"addresses": ["198.18.0.9"], "search": ["lab"]},
            "optional": True,
        },
        "eno2": {"dhcp4": "yes", "dhcp4-overrides": {"route-metric": 200, "use-dns": False}},
    }
    assert list(found["tunnels"]) == ["vx0"]
    assert found["bridges"]["br0"] == {
        "interfaces": ["eno2"],
        "macaddress": "52:54:00:00:00:01",
        "parameters": {"stp": True, "forward-delay": 4, "path-cost": {"eno2": 7}},
        "routing-policy": [{"from": "10.7.0.0/24", "table": 100, "priority": 1000}],
        "addresses": ["10.7.0.1/24", "2001:db8::1/64"],
    }


def test_equal_intents_make_equal_files(tmp_path: Path) -> None:
    """The text follows from what is intended, not from the order it is written in."""
    data = yaml.load(INTENT, yaml.BaseLoader)
    data["network"] = {
        section: dict(reversed(value.items())) if isinstance(value, dict) else value
        for section, value in reversed(data["network"].items())
    }
    other = yaml.safe_dump(data, sort_keys=False)
    texts = []
    for name, intent in (("a", INTENT), ("b", other)):
        (tmp_path / name).mkdir()
        texts.append(manager_file(one_host(tmp_path / name, SETTING + intent, "198.18.0.5"), "h1"))
    assert texts[0] == texts[1]


def test_the_state_carries_the_file(tmp_path: Path) -> None:
    """The file travels with the state, and its text is in the digest."""
    state = render_state(one_host(tmp_path, SETTING + INTENT, "198.18.0.5"), "h1")
    (path,) = state.wire()["manager"]["files"]
    assert path == "/etc/netplan/90-fleet.yaml"
    other = INTENT.replace("search: [lab]", "search: [elsewhere]")
    assert render_state(one_host(tmp_path, SETTING + other, "198.18.0.5"), "h1").digest != (
        state.digest
    )


def test_texts_stay_texts(tmp_path: Path) -> None:
    """What YAML would take for something else keeps its letters."""
    names = "[on, 0x10, 010, 'null', '1_000', 1e3, 2026-11-26]"
    found = network(
        tmp_path, f"network: {{ethernets: {{a: {{nameservers: {{search: {names}}}}}}}}}"
    )
    said = found["ethernets"]["a"]["nameservers"]["search"]
    assert said == ["on", "0x10", "010", "null", "1_000", "1e3", "2026-11-26"]


def test_a_template_that_makes_something_else_is_an_error(tmp_path: Path) -> None:
    """A project's own template is held to netplan's words."""
    project = one_host(tmp_path, SETTING + "network: {ethernets: {a: {mtu: 1500}}}")
    folder = tmp_path / "templates" / "netplan"
    folder.mkdir(parents=True)
    for text, message in (
        ("network: {ethernets: {a: {mtuu: 1500}}}", "ethernets.a.mtuu"),
        ("network: {ethernet: {}}", "network.ethernet"),
        ("nothing: 1", "no `network:`"),
        ("{{ nothing }}", "undefined"),
    ):
        (folder / "90-fleet.yaml.j2").write_text(text)
        project.renderer.environment.cache.clear()
        with pytest.raises(IntentError, match=message):
            render_state(project, "h1")


@needs_netplan
def test_netplan_reads_it(tmp_path: Path) -> None:
    """netplan's own generator takes the file, as it is."""
    text = manager_file(one_host(tmp_path, SETTING + INTENT, "198.18.0.5"), "h1")
    assert read_by_netplan(tmp_path, text) == ""


@needs_netplan
@pytest.mark.corpora
@pytest.mark.skipif(not EXAMPLES, reason="corpora/netplan is not here; set FLEET_CORPORA")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_netplan_reads_its_own_examples_back(path: Path, tmp_path: Path) -> None:
    """Each of netplan's examples that fleet takes comes out as a file that netplan takes."""
    intent = SETTING + textwrap.dedent(path.read_text())
    try:
        text = manager_file(one_host(tmp_path, intent, hostname="host.example"), "h1")
    except IntentError as error:
        print(f"{path.name}: refused: {error.message}")
        return
    complaint = read_by_netplan(tmp_path, text)
    assert complaint == "", text
