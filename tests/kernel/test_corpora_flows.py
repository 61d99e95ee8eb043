"""Open vSwitch flow files of other projects become a bridge's flows; ovs-ofctl is the judge.

``ovs-ofctl parse-flows`` says which lines are flows. Each file prints one line of counts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypervisor import PACKAGES, REPOSITORY, HelperFailed, applied
from switch import SwitchHost, switch_host

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora") / "ovs-flows"
FILES = sorted(FOLDER.glob("*.txt")) if FOLDER.is_dir() else []
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not FILES, reason=f"no {FOLDER}"),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="no Open vSwitch on this machine"),
]

FOREIGN = "cookie=0x99,table=99,priority=7,tcp,actions=drop"
#: For every line by itself: what fleet would change, then it changed, then what it would change.
EACH = """
import json, sys
sys.path[:0] = [{repository!r}]
sys.path.append({packages!r})
from fleet.host.change import HostError, Resource
from fleet.host.kernel.observation import Observation
from fleet.host.kernel.system import System
from fleet.host.kinds import flows
system = System()
def said(line):
    resource = Resource("", "flows", "ovs0", {{"flows": line}})
    try:
        changes = flows.diff(resource, None, Observation(system))
        for change in changes:
            flows.apply(system, change)
        after = flows.diff(resource, None, Observation(system))
        return {{"changed": len(changes), "left": [str(c.after) for c in after]}}
    except Exception as error:
        return {{"refused": str(error)}}
print(json.dumps([said(line) for line in json.load(sys.stdin)]))
"""


def lines_of(path: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and line != "dnl"]  # m4's comment


def reason_against(line: str) -> str:
    """Why ovs-ofctl takes a line for no flow, nothing where it is one."""
    done = subprocess.run(
        ["ovs-ofctl", "parse-flows", "/dev/stdin"], input=f"{line}\n", capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    return done.stderr.partition("/dev/stdin:1: ")[2].strip() if done.returncode else ""


@pytest.fixture
def host() -> Iterator[SwitchHost]:
    with switch_host() as made:
        made.vsctl("add-br ovs0 -- set bridge ovs0 datapath_type=netdev")
        yield made


def state(text: str) -> dict[str, Any]:
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": [{"kind": "flows", "name": "ovs0", "spec": {"flows": text}}],
    }


def by_hand(host: SwitchHost, lines: list[str]) -> list[str]:
    """What a bridge has whose flows an operator adds with ovs-ofctl."""
    host.vsctl("add-br hand -- set bridge hand datapath_type=netdev")
    host.sh("ovs-ofctl", "del-flows", "hand")
    (host.root / "run/flows").write_text("".join(f"{line}\n" for line in lines))
    host.sh("ovs-ofctl", "-O", "OpenFlow14", "add-flows", "hand", "/run/flows")
    return host.flows("hand")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_that_is_a_flow_goes_in_and_shows_no_drift(
    host: SwitchHost, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flow is there after it was put there; what is none is refused for the switch's reason."""
    lines = lines_of(path)
    program = EACH.format(repository=REPOSITORY, packages=PACKAGES)
    done = subprocess.run(
        [*host.inside, sys.executable, "-I", "-S", "-c", program], input=json.dumps(lines),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    counts = {"in, and no drift": 0, "refused by its parser": 0, "refused by the switch": 0}
    for line, found in zip(lines, json.loads(done.stdout), strict=True):
        reason = reason_against(line)
        if reason:
            assert reason[:60] in found["refused"], line
            counts["refused by its parser"] += 1
        elif "refused" in found:
            assert "Error NXFMFC_INVALID_TLV_FIELD" in found["refused"], found
            counts["refused by the switch"] += 1
        else:
            assert found["left"] == [], line
            counts["in, and no drift"] += 1
    with capsys.disabled():
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        print(f"\n{path.name}: {len(lines)} lines: {said}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_goes_in_as_a_whole_and_comes_out_again(host: SwitchHost, path: Path) -> None:
    """What of a file is flows is rolled out, is no drift, and a revert has the flows of before."""
    lines = [line for line in lines_of(path) if not reason_against(line)]
    host.sh("ovs-ofctl", "del-flows", "ovs0")
    host.sh("ovs-ofctl", "add-flow", "ovs0", FOREIGN)
    before = host.flows("ovs0")
    text = "".join(f"{line}\n" for line in lines)
    if "tun_metadata" in text:  # the bridge has no map of such options
        with pytest.raises(HelperFailed, match="NXFMFC_INVALID_TLV_FIELD"):
            applied(host, name=path.stem, state=state(text))
        assert host.flows("ovs0") == before
        return
    helper, _ = applied(host, name=path.stem, state=state(text))
    now = sorted(line.replace("cookie=0xf1ee7, ", "") for line in host.flows("ovs0"))
    assert now == by_hand(host, [*lines, FOREIGN])
    assert helper.call("plan", state=state(text))["plan"]["changes"] == []
    helper.call("revert", transaction=path.stem)
    host.wait_for_outcome(path.stem)
    assert host.flows("ovs0") == before
