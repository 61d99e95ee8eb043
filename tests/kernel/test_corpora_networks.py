"""Networks of libvirt's own test data become a host's; libvirt is the judge of which are valid.

Prints one line of counts. None is started: many need devices that this host has not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypervisor import PACKAGES, REPOSITORY
from virtual import MISSING, LibvirtHost, libvirt_host

from fleet.host.virtual import networks

ROOT = Path(__file__).parents[2]
CORPORA = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora")
FOLDER = CORPORA / "libvirt-network"
FILES = sorted(FOLDER.glob("*.xml")) if FOLDER.is_dir() else []
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not FILES, reason=f"no {FOLDER}"),
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}"),
]
#: One change carried out, without the transaction around it: hundreds of those take minutes.
APPLY = """
import json, sys
sys.path[:0] = [{repository!r}]
sys.path.append({packages!r})
from fleet.host.change import Change
from fleet.host.kernel.system import System
from fleet.host.kinds import network
from fleet.host.spec import decode
network.apply(System(), decode(Change, json.load(open("/run/change.json"))))
"""


def state(xml: str, name: str) -> dict[str, Any]:
    spec = {"xml": xml, "active": False, "autostart": False}
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": [{"kind": "network", "name": name, "spec": spec}],
    }


def valid(host: LibvirtHost, path: Path) -> bool:
    """Whether libvirt itself defines it; it is gone again then."""
    (host.root / "run/one.xml").write_text(path.read_text())
    host.virsh("net-define", "--validate", "/run/one.xml", check=False)
    found = host.networks()
    for name in found:
        host.virsh("net-undefine", name)
    return bool(found)


def test_each_valid_network_goes_in_and_shows_no_drift(capsys: pytest.CaptureFixture[str]) -> None:
    """Each that libvirt takes is defined by a plan and shows no drift; the others are refused."""
    taken = refused = 0
    wrong: list[str] = []
    with libvirt_host() as host:
        for device in ("eth1", "eth2", "eth3", "eth4"):
            host.ip(f"link add {device} type veth peer name far-{device}")
        for bridge in ("br0", "ovsbr0"):
            host.ip(f"link add {bridge} type bridge")
        for path in FILES:
            good = valid(host, path)
            try:
                name = networks.name_of(path.read_text()) or "none"
            except ValueError:
                assert not good, path.name
                refused += 1  # by the controller, which parses it
                continue
            helper = host.helper()
            try:
                plan = helper.call("plan", state=state(path.read_text(), name))["plan"]
                refusal = plan["problems"]
                if good and not refusal:
                    again = define(host, helper, plan, state(path.read_text(), name))
                    if again:
                        wrong.append(f"{path.name}: drift {again}")
                    taken += 1
                elif not good and not refusal:
                    # Only the daemon knows this machine's hardware: it refuses what it is told.
                    with pytest.raises(AssertionError, match="unsupported configuration"):
                        define(host, helper, plan, state(path.read_text(), name))
                    refused += 1
                elif good:
                    wrong.append(f"{path.name}: libvirt {good}, fleet {refusal}")
                else:
                    refused += 1
            finally:
                helper.close()
                for each in host.networks():
                    host.virsh("net-undefine", each)
    with capsys.disabled():
        print(f"\nnetworks: {taken} of {len(FILES)} in without drift, {refused} refused")
    assert not wrong, "\n".join(wrong)


def define(host: LibvirtHost, helper: Any, plan: Any, wanted: Any) -> Any:
    (change,) = plan["changes"]
    (host.root / "run/change.json").write_text(json.dumps(change))
    host.sh(sys.executable, "-c", APPLY.format(repository=REPOSITORY, packages=PACKAGES))
    return helper.call("plan", state=wanted)["plan"]["changes"]
