"""The interfaces of libvirt's guests, judged by virsh, ip and bridge; QEMU runs emulated."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypervisor import HelperFailed, applied, confirm, until
from virtual import MISSING, LibvirtHost, libvirt_host

QEMU = "qemu-system-x86_64"
GONE = [*MISSING, *([] if shutil.which(QEMU) else [QEMU])]
pytestmark = [
    pytest.mark.skipif(bool(GONE), reason=f"not on this machine: {', '.join(GONE)}"),
    pytest.mark.timeout(300),
]

ONE, TWO, NEW = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
#: Two interfaces with all that fleet has to leave alone, on ports that let go without a system.
GUEST = f"""
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name>
  <description>keep   these   spaces</description>
  <memory unit='MiB'>32</memory>
  <vcpu>2</vcpu>
  <iothreads>1</iothreads>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/{QEMU}</emulator>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <interface type='bridge'>
      <mac address='{ONE}'/>
      <source bridge='br8'/>
      <model type='virtio'/>
      <boot order='1'/>
      <rom bar='off'/>
    </interface>
    <interface type='network'>
      <mac address='{TWO}'/>
      <source network='web'/>
      <model type='virtio'/>
      <alias name='ua-inside'/>
    </interface>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd='kept'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/>
    <qemu:arg value='ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'/>
  </qemu:commandline>
</domain>
"""
NETWORK = "<network><name>{}</name><forward mode='bridge'/><bridge name='{}'/></network>"
FILTER = """<filter name='b-guest' chain='root'>
  <rule action='accept' direction='inout' priority='500'><all/></rule></filter>"""


class GuestHost(LibvirtHost):
    """A host with a guest, and what the tests ask of it."""

    def guest(self, paused: bool = True) -> None:
        self.define("define", GUEST)
        self.virsh("start", "web1", *(["--paused"] if paused else []))

    def define(self, command: str, text: str) -> None:
        self.place("/run/given.xml").write_text(text)
        self.virsh(command, "/run/given.xml")

    def live(self) -> str:
        return self.virsh("dumpxml", "web1")

    def later(self) -> str:
        return self.virsh("dumpxml", "web1", "--inactive", "--security-info")

    def books(self) -> list[str]:
        return [self.later(), self.live(), self.virsh("domiflist", "web1")]

    def master(self, device: str) -> str:
        return self.ip(f"-o link show {device}").partition(" master ")[2].split()[0]

    def qemu(self) -> str:
        return self.place("/run/libvirt/qemu/web1.pid").read_text()


#: What libvirt learnt of QEMU, which takes it 20 s, goes from one host of these tests to the next.
LEARNT = "/var/cache/libvirt/qemu"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("learnt")
    with libvirt_host() as plain:
        asked = ["virsh", "-c", "qemu:///system", "domcapabilities"]
        subprocess.run([*plain.inside, *asked], capture_output=True, timeout=200, check=True)
        shutil.copytree(plain.place(LEARNT), found, dirs_exist_ok=True)
    return found


@pytest.fixture
def host(learnt: Path) -> Iterator[GuestHost]:
    with libvirt_host() as plain:
        plain.__class__ = GuestHost
        assert isinstance(plain, GuestHost)
        shutil.copytree(learnt, plain.place(LEARNT), dirs_exist_ok=True)
        for name in ("br8", "br9"):
            plain.ip(f"link add {name} type bridge")
            plain.ip(f"link set {name} up")
        for name, bridge in (("web", "br8"), ("wide", "br9")):
            plain.define("net-define", NETWORK.format(name, bridge))
            plain.virsh("net-start", name)
        plain.define("nwfilter-define", FILTER)
        plain.guest()
        yield plain
        plain.virsh("destroy", "web1", check=False)


def state(interfaces: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {**more, **({"interfaces": interfaces} if interfaces else {})}
    guest = {"kind": "guest", "name": "web1", "spec": wanted}
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": [guest] if wanted else [],
    }


def plan(host: LibvirtHost, wanted: dict[str, Any]) -> dict[str, Any]:
    helper = host.helper()
    found: dict[str, Any] = helper.call("plan", state=wanted)["plan"]
    helper.close()
    return found


def roll_out(host: LibvirtHost, wanted: dict[str, Any], name: str = "tx1", **more: Any) -> None:
    helper, digest = applied(host, 20.0, name=name, state=wanted, **more)
    confirm(host.confirming(), digest, name)
    helper.close()
    again = plan(host, wanted)
    assert (again["changes"], again["problems"]) == ([], [])


def test_link_filter_and_isolation_change_while_the_guest_runs(host: GuestHost) -> None:
    """What libvirt changes in place is so live and in the definition; the rest of both stays."""
    pid, later = host.qemu(), host.later()
    wanted = state({ONE: {"link": "down", "filterref": {"filter": "b-guest"}, "isolated": True}})
    (change,) = plan(host, wanted)["changes"]
    assert (change["what"], change["impact"], change["guests"]) == (
        f"interfaces.{ONE}",
        "blip",
        ["web1"],
    )
    assert {"live: link", "at next start: filterref"} <= set(change["before"])
    roll_out(host, wanted)
    assert "down" in host.virsh("domif-getlink", "web1", ONE)
    assert "down" in host.virsh("domif-getlink", "web1", ONE, "--config")
    assert "isolated on" in host.sh("bridge", "-d", "link", "show", "dev", "vnet0")
    assert host.virsh("nwfilter-binding-list").split() == ["vnet0", "b-guest"]
    assert (host.master("vnet0"), host.qemu()) == ("br8", pid)
    made = [line for line in host.later().splitlines() if line not in later.splitlines()]
    assert [line.split()[0] for line in made if "state=" in line or "filter=" in line]
    for kept in ("<boot order='1'/>", "<rom bar='off'/>", "keep   these   spaces", "passwd='kept'"):
        assert kept in host.later()


def test_an_interface_moves_to_another_bridge_and_network(host: GuestHost) -> None:
    """The tap of a running guest moves, by MAC address and by alias, and the guest keeps it."""
    wanted = state(
        {ONE: {"source": {"bridge": "br9"}}, "ua-inside": {"source": {"network": "wide"}}}
    )
    changes = plan(host, wanted)["changes"]
    assert [each["impact"] for each in changes] == ["blip", "blip"]
    assert changes[0]["before"]["live: source@bridge"] == "br8"
    pid = host.qemu()
    roll_out(host, wanted)
    assert [host.master(name) for name in ("vnet0", "vnet1")] == ["br9", "br9"]
    assert host.qemu() == pid
    sources = [line.split()[2] for line in host.virsh("domiflist", "web1").splitlines() if line]
    assert sources == ["br9", "wide"]
    for text in (host.live(), host.later()):
        assert "<source network='wide'" in text
        assert "<source bridge='br9'/>" in text


FORMS: dict[str, dict[str, Any]] = {
    "link": {ONE: {"link": "down"}},
    "moved": {ONE: {"source": {"bridge": "br9"}}, TWO: {"source": {"network": "wide"}}},
    "filter": {ONE: {"filterref": {"filter": "b-guest"}}, TWO: {"isolated": True}},
    "later": {ONE: {"model": "e1000e", "mtu": 1400}, TWO: {"driver": {"name": "qemu"}}},
    "plugged": {NEW: {"source": {"bridge": "br9"}, "link": "down"}},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_nobody_confirms_goes_back(host: GuestHost, form: str) -> None:
    """Without a confirm the guest runs, and is defined, as it was; its taps are where they were."""
    before, pid = host.books(), host.qemu()
    helper, _ = applied(host, 10.0, state=state(FORMS[form]))
    assert host.books() != before
    helper.process.kill()
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert (_plain(host.books()), host.qemu()) == (_plain(before), pid)
    assert [host.master(name) for name in ("vnet0", "vnet1")] == ["br8", "br8"]


def _plain(books: list[str]) -> list[str]:
    """libvirt gives a turn in a network a new number each time."""
    return [" ".join(w for w in text.split() if not w.startswith("portid=")) for text in books]


def test_what_cannot_change_now_holds_from_the_next_start(host: GuestHost) -> None:
    """Model, queues and rings of a running guest are its definition's alone; the plan says so."""
    wanted = state(
        {
            ONE: {
                "driver": {"name": "qemu", "queues": 2, "rx_queue_size": 512},
                "tune": {"sndbuf": 1600},
                "mtu": 1400,
            },
            TWO: {"model": "e1000e"},
        }
    )
    live = host.live()
    one, two = plan(host, wanted)["changes"]
    assert one["impact"] == two["impact"] == "none"
    assert one["reason"].endswith("at the guest's next start")
    assert all(path.startswith("at next start: ") for path in (*one["before"], *two["before"]))
    roll_out(host, wanted)
    assert host.live() == live
    for words in ("queues='2'", "rx_queue_size='512'", "<sndbuf>1600</sndbuf>", "e1000e"):
        assert words in host.later()
    host.virsh("destroy", "web1")
    host.virsh("start", "web1", "--paused")
    assert "queues='2'" in host.live()
    assert "mtu 1400" in host.ip("link show master br8")
    assert plan(host, wanted)["changes"] == []


def test_an_interface_is_plugged_in_and_out_and_others_stay(host: GuestHost) -> None:
    """One that the guest lacks is plugged in live; not named any more, it goes, and it alone."""
    wanted = state({NEW: {"source": {"bridge": "br9"}, "link": "down"}})
    roll_out(host, wanted)
    assert host.virsh("domiflist", "web1").split().count("br9") == 1
    assert "down" in host.virsh("domif-getlink", "web1", NEW)
    assert NEW in host.later()
    (change,) = plan(host, state())["changes"]
    assert (change["impact"], change["guests"]) == ("drain", ["web1"])
    roll_out(host, state(), "tx2", allow=["drain"])
    assert NEW not in host.later()
    until(lambda: NEW not in host.virsh("domiflist", "web1"))
    assert [ONE in host.live(), TWO in host.live()] == [True, True]


def test_a_guest_that_is_shut_off_is_changed_where_it_is_defined(host: GuestHost) -> None:
    """Rates, VLANs and all else go into the definition, and nothing waits."""
    host.virsh("destroy", "web1")
    wanted = state(
        {
            ONE: {
                "bandwidth": {"inbound": {"average": 1000, "peak": 2000}},
                "source": {"bridge": "ovs0"},
                "virtualport": {"type": "openvswitch"},
                "vlan": {"tags": [5, 6], "native": 5},
            },
            TWO: {"source": {"dev": "eth0", "mode": "bridge"}},
        }
    )
    host.ip("link add ovs0 type bridge")
    roll_out(host, wanted)
    for words in ("<inbound average='1000' peak='2000'/>", "<vlan trunk='yes'>", "type='direct'"):
        assert words in host.later()
    wanted["resources"][0]["spec"]["interfaces"][ONE].update(bandwidth={}, vlan={})
    roll_out(host, wanted, "tx2")
    assert "<bandwidth>" not in host.later()
    assert "<vlan" not in host.later()


def test_what_others_change_is_drift_that_says_where(host: GuestHost) -> None:
    """A link that someone took down in what runs is drift there alone."""
    wanted = state({ONE: {"link": "up"}})
    roll_out(host, wanted)
    host.virsh("domif-setlink", "web1", ONE, "down")
    (change,) = plan(host, wanted)["changes"]
    assert change["before"] == {"live: link@state": "down"}
    roll_out(host, wanted, "tx2")
    assert "up" in host.virsh("domif-getlink", "web1", ONE)


def test_a_guest_that_is_not_there_is_a_problem(host: GuestHost) -> None:
    """fleet makes no guest: a name that libvirt lacks is said, and nothing is changed."""
    wanted = state({ONE: {"link": "up"}})
    wanted["resources"][0]["name"] = "web2"
    (problem,) = plan(host, wanted)["problems"]
    assert problem["expected"] == "a guest web2 that libvirt has"


def test_what_libvirt_refuses_while_it_is_applied_goes_back(host: GuestHost) -> None:
    """What a filter is not told is refused by libvirt with its reason; the guest is as before."""
    needy = FILTER.replace("<all/>", "<ip srcipaddr='$LACKS'/>").replace("b-guest", "b-needy")
    host.define("nwfilter-define", needy)
    before = host.books()
    with pytest.raises(HelperFailed, match="libvirt to take it"):
        applied(host, 8.0, state=state({ONE: {"filterref": {"filter": "b-needy"}}}))
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert _plain(host.books()) == _plain(before)


def test_a_filter_or_network_that_nobody_has_is_a_problem_of_the_plan(host: GuestHost) -> None:
    """The plan names the guest and what it lacks, also where another filter includes that; with
    the filter in the same intent it is carried out."""
    (problem,) = plan(host, state({ONE: {"filterref": {"filter": "b-none"}}}))["problems"]
    assert (problem["resource"], problem["what"]) == ("guest/web1", f"interfaces.{ONE}.filterref")
    assert problem["actual"] == "neither libvirt nor the intent has nwfilter b-none"
    host.define("nwfilter-define", "<filter name='b-outer'><filterref filter='b-none'/></filter>")
    wanted = state({ONE: {"filterref": {"filter": "b-outer"}}})
    (problem,) = plan(host, wanted)["problems"]
    assert problem["actual"].endswith("nwfilter b-none, which b-outer includes")
    missing = state({TWO: {"source": {"network": "nowhere"}}})
    (problem,) = plan(host, missing)["problems"]
    assert problem["actual"] == "neither libvirt nor the intent has network nowhere"
    spec = {"xml": FILTER.replace("b-guest", "b-none")}
    wanted["resources"].append({"kind": "nwfilter", "name": "b-none", "spec": spec})
    roll_out(host, wanted, "tx1")
    assert "b-outer" in host.virsh("nwfilter-binding-list")
    assert plan(host, wanted)["changes"] == []


def test_threads_are_pinned_where_they_run_and_where_they_start(host: GuestHost) -> None:
    """vCPUs, emulator and I/O threads are pinned live; memory is from the next start."""
    wanted = state(
        pins={
            "vcpus": {"0": "0"},
            "emulator": "0",
            "iothreads": {"1": "0"},
            "memory": {"nodes": "0", "mode": "strict"},
        }
    )
    (change,) = plan(host, wanted)["changes"]
    assert (change["what"], change["impact"]) == ("pins", "none")
    assert change["reason"] == "memory: at the guest's next start"
    roll_out(host, wanted)
    for text in (host.live(), host.later()):
        for words in ("vcpupin vcpu='0' cpuset='0'", "emulatorpin cpuset='0'", "iothread='1'"):
            assert words in text
    assert "<memory mode='strict' nodeset='0'/>" in host.later()
    assert "passwd='kept'" in host.later()
    pinned = host.virsh("vcpupin", "web1", "0", "--live").split()
    assert pinned == ["0", "0"]


def test_pins_that_nobody_confirms_go_back(host: GuestHost) -> None:
    """Without a confirm every thread may run where it might before, and starts so."""
    before = [host.later(), *(host.virsh(word, "web1") for word in ("vcpupin", "emulatorpin"))]
    helper, _ = applied(host, 8.0, state=state(pins={"vcpus": {"1": "0"}, "emulator": "0"}))
    helper.process.kill()
    assert host.virsh("emulatorpin", "web1").split()[-1] == "0"
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert before == [
        host.later(),
        *(host.virsh(word, "web1") for word in ("vcpupin", "emulatorpin")),
    ]


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ({"vcpus": {"0": "999"}}, "CPU 999"),
        ({"vcpus": {"7": "0"}}, "a guest with vcpus 7"),
        ({"memory": {"nodes": "77", "mode": "strict"}}, "memory node 77"),
        ({"near": "eth0"}, "eth0 to be next to CPUs"),
    ],
)
def test_pins_to_what_is_not_there_are_a_problem(
    host: GuestHost, pins: dict[str, Any], expected: str
) -> None:
    """A CPU, a thread or a node that is not there is named, and nothing is changed."""
    (problem,) = plan(host, state(pins=pins))["problems"]
    assert problem["expected"] == expected
    assert "cputune" not in host.live()


#: What the boot's unit runs before libvirt starts.
BOOT = """
import json, sys
sys.path[:0] = [{repository!r}]
from fleet.host.kernel.system import System
from fleet.host.reverting import restore_networks
from fleet.host.reverting.snapshot import capture
from fleet.host.transactions.prepare import _scope
system = System()
if sys.argv[1] == "look":
    print(json.dumps(capture(system, {{**_scope(), "guests": ["web1"]}})))
else:
    print(restore_networks.put_back(system, json.load(open(sys.argv[1]))))
"""


def test_a_boot_puts_back_the_file_before_libvirtd_starts(host: GuestHost) -> None:
    """A host that went down before the confirm has, at its boot, the guest's old definition."""
    script = BOOT.format(repository=str(Path(__file__).parents[2]))
    snapshot = host.sh(sys.executable, "-c", script, "look")
    host.place("/run/snapshot.json").write_text(snapshot)
    before = host.later()
    changed = state(
        {ONE: {"model": "e1000e"}, NEW: {"source": {"bridge": "br9"}}}, pins={"emulator": "0"}
    )
    roll_out(host, changed)
    host.virsh("destroy", "web1")
    host.signal(signal.SIGKILL)
    assert host.sh(sys.executable, "-c", script, "/run/snapshot.json").strip() == "[]"
    host.run_daemon()
    assert host.later() == before


def test_a_libvirtd_killed_after_the_change_comes_back_to_what_was(host: GuestHost) -> None:
    """Killed between apply and revert, libvirtd is started again and the guest is as before."""
    before, pid = host.books(), host.qemu()
    helper, _ = applied(host, 8.0, state=state(FORMS["link"]))
    host.signal(signal.SIGKILL)
    helper.close()
    host.run_daemon()
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert (_plain(host.books()), host.qemu()) == (_plain(before), pid)
