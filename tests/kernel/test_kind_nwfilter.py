"""libvirt's network filters, judged by virsh."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import PACKAGES, REPOSITORY, HelperFailed, applied, confirm
from virtual import MISSING, LibvirtHost, libvirt_host

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}")

INNER = "<filter name='b-web' chain='ipv4'><rule direction='in' action='drop'/></filter>"
OUTER = """
<filter name='a-guest'>
  <!-- written as a person would: defaults left out, the late rule first -->
  <rule action='drop' direction='inout' priority='1000'><all/></rule>
  <rule action='accept' direction='out'>
    <tcp srcmacaddr='1:2:3:4:5:6' srcipaddr='198.18.0.9' srcipmask='255.255.255.0'
         dstportstart='0x50' state='RELATED,ESTABLISHED'/>
  </rule>
  <filterref filter='no-mac-spoofing'/>
  <filterref filter='b-web'/>
</filter>
"""
CHANGED = OUTER.replace("198.18.0.9", "198.18.0.10")
BINDING = """
<filterbinding>
  <owner><name>guest</name><uuid>d54df46f-1ab5-4a22-8618-4560ef5fac2c</uuid></owner>
  <portdev name='vnet9'/><mac address='52:54:00:00:00:01'/><filterref filter='b-web'/>
</filterbinding>
"""


@pytest.fixture
def host() -> Iterator[LibvirtHost]:
    with libvirt_host() as made:
        define(made, "<filter name='no-mac-spoofing'/>")
        yield made


def define(host: LibvirtHost, xml: str) -> None:
    (host.root / "run/one.xml").write_text(xml)
    host.virsh("nwfilter-define", "/run/one.xml")


def books(host: LibvirtHost) -> dict[str, str]:
    """All filters as libvirt writes them."""
    found = [line.split()[1] for line in host.virsh("nwfilter-list").splitlines() if line.strip()]
    return {name: host.virsh("nwfilter-dumpxml", name) for name in found}


#: What the boot's unit does with a snapshot before libvirtd starts.
BOOT = """
import json, sys
sys.path[:0] = [{repository!r}]
sys.path.append({packages!r})
from fleet.host.kernel.system import System
from fleet.host.transactions import points
snapshot = json.load(open("/run/snapshot.json"))
assert points.needed(snapshot) == ["files", "libvirt"]
print(points.put_back("libvirt", System(), snapshot))
"""


def state(**filters: str) -> dict[str, Any]:
    named = [(name.replace("_", "-"), xml) for name, xml in filters.items()]
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": [{"kind": "nwfilter", "name": name, "spec": {"xml": x}} for name, x in named],
    }


BOTH = state(a_guest=OUTER, b_web=INNER)


def plan(host: LibvirtHost, wanted: dict[str, Any]) -> dict[str, Any]:
    helper = host.helper()
    found: dict[str, Any] = helper.call("plan", state=wanted)["plan"]
    helper.close()
    return found


def roll_out(host: LibvirtHost, wanted: dict[str, Any], name: str) -> None:
    helper, digest = applied(host, 20.0, name=name, state=wanted)
    confirm(host.confirming(), digest, name)
    helper.close()


def test_filters_are_made_changed_and_deleted(host: LibvirtHost) -> None:
    """What is included comes first, a second plan has nothing, and others' filters stay."""
    others = books(host)
    assert [each["name"] for each in plan(host, BOTH)["changes"]] == ["b-web", "a-guest"]
    roll_out(host, BOTH, "tx1")
    made = books(host)
    assert "dstportstart='80'" in made["a-guest"] or "dstportstart='0x50'" in made["a-guest"]
    again = plan(host, BOTH)
    assert (again["changes"], again["problems"]) == ([], [])

    changed = state(a_guest=CHANGED, b_web=INNER)
    (change,) = plan(host, changed)["changes"]
    assert list(change["before"]) == ["rule[0]/tcp@srcipaddr"]
    roll_out(host, changed, "tx2")
    now = books(host)
    assert now["a-guest"] == made["a-guest"].replace("198.18.0.9", "198.18.0.10")
    assert plan(host, changed)["changes"] == []

    roll_out(host, state(), "tx3")
    assert books(host) == others


@pytest.mark.parametrize("wanted", [state(), state(a_guest=CHANGED, b_web=INNER)])
def test_what_nobody_confirms_goes_back(host: LibvirtHost, wanted: dict[str, Any]) -> None:
    """Without a confirm every filter is what it was, with its UUID."""
    roll_out(host, BOTH, "tx1")
    before = books(host)
    helper, _ = applied(host, 8.0, name="tx2", state=wanted)
    assert books(host) != before
    helper.close()
    assert host.wait_for_outcome("tx2")["state"] == "REVERTED"
    assert books(host) == before


def test_new_filters_that_nobody_confirms_are_gone(host: LibvirtHost) -> None:
    """Filters that did not exist leave nothing behind, whoever died."""
    before = books(host)
    helper, _ = applied(host, 8.0, state=BOTH)
    helper.process.kill()
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert books(host) == before


def test_a_boot_puts_back_the_files_before_libvirtd_starts(host: LibvirtHost) -> None:
    """A host that went down before the confirm has, at its boot, the filters it had before."""
    define(host, OUTER.replace("a-guest", "old"))
    before = books(host)
    then = {"xml": before["old"]}
    define(host, f"<filter name='old'>{uuid_of(before['old'])}</filter>")
    define(host, INNER)
    host.signal(signal.SIGKILL)
    snapshot = {"scope": {"nwfilters": ["b-web", "old"]}, "networks": {}}
    snapshot["nwfilters"] = {"b-web": None, "old": then}
    (host.root / "run/snapshot.json").write_text(json.dumps(snapshot))
    script = BOOT.format(repository=REPOSITORY, packages=PACKAGES)
    assert host.sh(sys.executable, "-c", script).strip() == "[]"
    host.run_daemon()
    assert books(host) == before


def uuid_of(xml: str) -> str:
    return next(line for line in xml.splitlines() if "<uuid>" in line)


def test_a_filter_that_a_guest_uses_is_not_deleted(host: LibvirtHost) -> None:
    """The plan refuses to delete a filter of a running guest's interface, and names that."""
    roll_out(host, BOTH, "tx1")
    host.ip("tuntap add vnet9 mode tap")
    (host.root / "run/binding.xml").write_text(BINDING)
    host.virsh("nwfilter-binding-create", "/run/binding.xml")
    (problem,) = plan(host, state(a_guest=OUTER))["problems"]
    assert "vnet9" in problem["actual"]
    host.virsh("nwfilter-binding-delete", "vnet9")
    assert plan(host, state(a_guest=OUTER))["problems"] == []


def test_what_libvirt_refuses_goes_back_with_its_reason(host: LibvirtHost) -> None:
    """A filter that libvirt does not take ends the transaction, and no filter was changed."""
    before = books(host)
    wrong = OUTER.replace("198.18.0.9", "198.18.0.900")
    with pytest.raises((HelperFailed, AssertionError), match=r"validate|illegal"):
        applied(host, 8.0, state=state(a_guest=wrong, b_web=INNER))
    assert books(host) == before


def test_a_filter_that_libvirt_ships_is_its_own(host: LibvirtHost) -> None:
    """An intent that names one of libvirt's own filters is refused."""
    (problem,) = plan(host, state(no_mac_spoofing="<filter name='no-mac-spoofing'/>"))["problems"]
    assert "libvirt ships" in problem["actual"]
