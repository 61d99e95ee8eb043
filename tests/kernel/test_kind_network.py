"""libvirt's networks, judged by virsh and ip."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import HelperFailed, applied, armed, confirm
from virtual import MISSING, LibvirtHost, libvirt_host

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}")

NAT = """
<network>
  <name>web</name>
  <forward mode='nat'/>
  <bridge name='virbr7'/>
  <ip address='198.18.40.1' netmask='255.255.255.0'>
    <dhcp>
      <host mac='52:54:00:00:00:01' name='one' ip='198.18.40.11'/>
      <range start='198.18.40.100' end='198.18.40.200'/>
    </dhcp>
  </ip>
</network>
"""
MORE = NAT.replace("<range", "<host mac='52:54:00:00:00:02' ip='198.18.40.12'/><range")
MOVED = NAT.replace("198.18.40.", "198.18.41.")
#: Forms of networks that start on any host.
FORMS = {
    "nat": NAT,
    "routed": NAT.replace("'nat'", "'route'"),
    "isolated": NAT.replace("<forward mode='nat'/>", ""),
    "open": NAT.replace("'nat'", "'open'"),
    "bridge": "<network><name>web</name><forward mode='bridge'/><bridge name='br9'/></network>",
    "macvtap": "<network><name>web</name><forward mode='bridge'><interface dev='eth1'/></forward>"
    "</network>",
    "portgroups": "<network><name>web</name><forward mode='bridge'/><bridge name='br9'/>"
    "<virtualport type='openvswitch'/><portgroup name='a' default='yes'><vlan trunk='yes'>"
    "<tag id='5'/><tag id='6'/></vlan></portgroup><portgroup name='b'><vlan><tag id='7'/></vlan>"
    "</portgroup></network>",
    "v6": "<network><name>web</name><mtu size='1400'/><bridge stp='off' delay='2'/><domain name='x'"
    " localOnly='yes'/><dns><txt name='a' value='b'/><host ip='198.18.40.9'><hostname>h</hostname>"
    "</host></dns><ip address='198.18.40.1' prefix='24'/>"
    "<ip family='ipv6' address='2001:db8::1' prefix='64'/></network>",
}


@pytest.fixture
def host() -> Iterator[LibvirtHost]:
    with libvirt_host() as made:
        made.ip("link add br9 type bridge")
        made.ip("link add eth1 type veth peer name cable1")
        yield made


def state(xml: str | None, **words: Any) -> dict[str, Any]:
    wanted = [] if xml is None else [{"kind": "network", "name": "web", "spec": {"xml": xml}}]
    for each in wanted:
        each["spec"] = {**each["spec"], **words}  # type: ignore[dict-item]
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": wanted,
    }


def plan(host: LibvirtHost, wanted: dict[str, Any]) -> dict[str, Any]:
    helper = host.helper()
    found: dict[str, Any] = helper.call("plan", state=wanted)["plan"]
    helper.close()
    return found


def roll_out(host: LibvirtHost, wanted: dict[str, Any], name: str, **more: Any) -> None:
    helper, digest = applied(host, 20.0, name=name, state=wanted, **more)
    confirm(host.confirming(), digest, name)
    helper.close()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_goes_in_and_shows_no_drift(host: LibvirtHost, form: str) -> None:
    """A network of each form is defined, runs and starts by itself; a second plan has nothing."""
    roll_out(host, state(FORMS[form]), "tx1")
    shown = host.virsh("net-info", "web")
    assert all(f"{word}:" in shown for word in ("Active", "Persistent", "Autostart"))
    assert shown.count("yes") == 3
    again = plan(host, state(FORMS[form]))
    assert (again["changes"], again["problems"]) == ([], [])
    roll_out(host, state(None), "tx2")
    assert host.networks() == []


def test_a_lease_is_added_to_a_network_that_runs(host: LibvirtHost) -> None:
    """What net-update can change is changed in what runs and in what is defined; nothing stops."""
    roll_out(host, state(NAT), "tx1")
    index = host.ip("-o link show virbr7").partition(":")[0]
    (change,) = plan(host, state(MORE))["changes"]
    assert change["impact"] == "none"
    assert "running: ip[0]/dhcp/host[0]" in change["before"]
    assert "defined: ip[0]/dhcp/host[0]" in change["before"]
    roll_out(host, state(MORE), "tx2")
    for text in (host.dump("web"), host.virsh("net-dumpxml", "web")):
        assert "52:54:00:00:00:02" in text
    assert host.ip("-o link show virbr7").partition(":")[0] == index
    assert plan(host, state(MORE))["changes"] == []


def test_what_others_change_is_drift_by_its_path(host: LibvirtHost) -> None:
    """A change of the running form alone is drift of the running form alone."""
    roll_out(host, state(NAT), "tx1")
    entry = "<host mac='52:54:00:00:00:09' ip='198.18.40.19'/>"
    host.virsh("net-update", "web", "add-last", "ip-dhcp-host", entry, "--live")
    (change,) = plan(host, state(NAT))["changes"]
    assert list(change["before"]) == ["running: ip[0]/dhcp/host[0]"]
    host.virsh("net-autostart", "web", "--disable")
    assert [each["what"] for each in plan(host, state(NAT))["changes"]] == ["xml", "autostart"]


def test_a_new_start_with_guests_is_a_drain_and_puts_their_taps_back(host: LibvirtHost) -> None:
    """A network on which taps are starts again only where that is allowed; the taps come back."""
    roll_out(host, state(NAT), "tx1")
    host.ip("tuntap add vnet9 mode tap")
    host.ip("link set vnet9 master virbr7")
    host.sh("bridge", "link", "set", "dev", "vnet9", "isolated", "on")
    with pytest.raises(HelperFailed, match="not allowed by name"):
        armed(host, name="tx2", state=state(MOVED))
    (change,) = plan(host, state(MOVED))["changes"]
    assert change["impact"] == "drain"
    roll_out(host, state(MOVED), "tx3", allow=["drain"])
    assert "198.18.41.1/24" in host.ip("-br address show virbr7")
    assert "master virbr7" in host.ip("link show vnet9")
    assert "isolated on" in host.sh("bridge", "-d", "link", "show", "dev", "vnet9")


@pytest.mark.parametrize("form", [None, MORE, MOVED])
def test_what_nobody_confirms_goes_back(host: LibvirtHost, form: str | None) -> None:
    """Without a confirm libvirt's books, what runs and the taps on it are what they were."""
    roll_out(host, state(NAT), "tx1")
    host.ip("tuntap add vnet9 mode tap")
    host.ip("link set vnet9 master virbr7")
    before, forwarding = host.books(), host.sh("sysctl", "net.ipv4.ip_forward")
    helper, _ = applied(host, 8.0, name="tx2", state=state(form), allow=["drain"])
    helper.close()
    assert host.wait_for_outcome("tx2")["state"] == "REVERTED"
    assert host.books() == before
    assert "master virbr7" in host.ip("link show vnet9")
    assert host.sh("sysctl", "net.ipv4.ip_forward") == forwarding


def test_a_new_network_that_nobody_confirms_is_gone(host: LibvirtHost) -> None:
    """A network that did not exist leaves no definition, no bridge and no forwarding behind."""
    host.sh("sysctl", "-w", "net.ipv4.ip_forward=0")
    helper, _ = applied(host, 8.0, state=state(NAT))
    helper.process.kill()
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert host.networks() == []
    assert "virbr7" not in host.ip("-br link")
    assert host.sh("sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
    assert not list(host.place("/etc/libvirt/qemu/networks").glob("**/*.xml"))


def test_what_libvirt_refuses_is_refused_with_its_reason(host: LibvirtHost) -> None:
    """XML that libvirt does not take is a problem of the plan, and nothing was changed."""
    wrong = NAT.replace("198.18.40.1'", "198.18.40.300'")
    (problem,) = plan(host, state(wrong))["problems"]
    assert "failed to validate" in problem["actual"] or "198.18.40.300" in problem["actual"]
    assert "not found" not in problem["actual"]
    assert host.networks() == []


def test_a_libvirtd_that_hangs_is_one_problem(host: LibvirtHost) -> None:
    """A libvirtd that does not answer ends the plan within its deadline; then it goes on."""
    host.signal(signal.SIGSTOP)
    try:
        (problem,) = plan(host, state(NAT))["problems"]
    finally:
        host.signal(signal.SIGCONT)
    assert problem["expected"] == "libvirt to answer"
    roll_out(host, state(NAT), "tx1")


def test_a_libvirtd_killed_after_the_change_comes_back_to_what_was(host: LibvirtHost) -> None:
    """Killed between apply and revert, libvirtd is started again and the books are as before."""
    roll_out(host, state(NAT), "tx1")
    before = host.books()
    helper, _ = applied(host, 8.0, name="tx2", state=state(MORE))
    host.signal(signal.SIGKILL)
    helper.close()
    host.run_daemon()
    assert host.wait_for_outcome("tx2")["state"] == "REVERTED"
    assert host.books() == before
