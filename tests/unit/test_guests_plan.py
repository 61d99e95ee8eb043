"""Guests of libvirt's in intent, and what is laid over what of an interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import one_host

from fleet.errors import IntentError
from fleet.host.kernel import cpus
from fleet.host.kernel.system import System
from fleet.host.spec import decode
from fleet.host.virtual import guests, interface_words, overlay, pins, tree
from fleet.host.virtual.interface_words import Interface
from fleet.intent import render_state

MAC = "52:54:00:00:00:01"
HAVE = """<interface type='bridge'><mac address='52:54:00:00:00:01'/>
<source network='web' portid='0' bridge='virbr0'/><target dev='vnet0'/><model type='virtio'/>
<driver name='vhost' queues='2'><host gso='off'/></driver>
<filterref filter='web'><parameter name='A' value='1'/><parameter name='B' value='2'/></filterref>
<vlan trunk='yes'><tag id='5'/><tag id='6'/></vlan><boot order='1'/><alias name='net0'/></interface>
"""
DOCUMENT = """<domain type='kvm'>
  <name>a</name>
  <description>a &lt; b   ü</description>
  <vcpu placement='static'>2</vcpu>
  <!-- <interface> in a comment -->
  <devices>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:02'/></interface>
    <video/>
  </devices>
</domain>"""


def paths(words: dict[str, Any], have: str = HAVE) -> list[str]:
    """Return where an interface differs from what is wanted of it."""
    now = tree.parse(have)
    wanted = interface_words.as_tree(decode(Interface, words))
    return [path for path, _, _ in tree.differences(now, overlay.overlaid(now, wanted))]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"source": {"network": "web"}}, []),
        ({"source": {"bridge": "virbr0"}}, ["source@network", "source@portid"]),
        ({"source": {"network": "wide"}}, ["@type", "source@bridge", "source@network"]),
        ({"link": "up", "isolated": False}, []),
        ({"link": "down"}, ["link"]),
        ({"driver": {"queues": 2}}, []),
        ({"driver": {"queues": 4}}, ["driver@queues"]),
        ({"filterref": {"filter": "web", "parameters": {"B": "2", "A": "1"}}}, []),
        ({"filterref": {"filter": "web", "parameters": {"A": "1"}}}, ["filterref/parameter[1]"]),
        ({"filterref": {}}, ["filterref"]),
        ({"vlan": {"tags": [5, 6]}}, []),
        ({"vlan": {"tags": [5]}}, ["vlan@trunk", "vlan/tag[1]"]),
        ({"bandwidth": {}}, []),
        ({"xml": "<interface><driver queues='3'><host gso='on'/></driver></interface>"},
         ["driver@queues", "driver/host@gso"]),
        ({"xml": "<interface><mac address='52:54:00:00:00:09'/><alias name='x'/></interface>"}, []),
    ],
)  # fmt: skip
def test_only_what_is_named_is_compared(words: dict[str, Any], found: list[str]) -> None:
    """What intent does not name stays, and what libvirt writes of itself is no difference."""
    here = [path for path in paths(words) if path != "source@portid" or path in found]
    assert here == found


def test_other_parts_leave_every_other_byte() -> None:
    """Interfaces and pins are written into a document; what is around them is as it was."""
    had = guests.parts(DOCUMENT)
    assert had is not None
    assert guests.with_parts(DOCUMENT, had).split() == DOCUMENT.split()
    wanted = {**had, "interfaces": had["interfaces"][:1]}
    wanted = pins.written(wanted, {**pins.of(wanted), "emulator": "0-1", "memory": ("strict", "0")})
    made = guests.with_parts(DOCUMENT, wanted)
    for words in (
        "a &lt; b   ü",
        "<!-- <interface> in a comment -->",
        "</vcpu><cputune><emulatorpin cpuset='0-1'></emulatorpin></cputune>",
        "<memory mode='strict' nodeset='0'>",
    ):
        assert words in made
    assert list(guests.interfaces(made)) == [MAC]
    assert guests.parts(made)["interfaces"] == had["interfaces"][:1]  # type: ignore[index]
    none = guests.with_parts(made, {**wanted, "interfaces": []})
    again = guests.with_parts(none, {**wanted, "interfaces": had["interfaces"]})
    assert list(guests.interfaces(again)) == list(guests.interfaces(DOCUMENT))
    assert tree.parse(again)["children"][-1]["tag"] == "devices"


def test_pins_next_to_a_nic_are_read_from_its_bus(tmp_path: Path) -> None:
    """The CPUs and the memory node of a NIC are those that the kernel says are near it."""
    place = tmp_path / "sys/class/net/eth0/device"
    place.mkdir(parents=True)
    (place / "local_cpulist").write_text("0-3,8\n")
    (place / "numa_node").write_text("1\n")
    system = System(root=str(tmp_path))
    assert pins.near(system, "eth0") == ("0-3,8", "1")
    (place / "numa_node").write_text("-1\n")
    assert pins.near(system, "eth0") == ("0-3,8", "")
    assert pins.near(system, "eth1") == ("", "")


@pytest.mark.parametrize(
    ("text", "normal"), [("0-3,^2", "0-1,3"), ("3,1,2", "1-3"), ("0", "0"), ("8,0-1", "0-1,8")]
)
def test_sets_are_written_as_libvirt_does(text: str, normal: str) -> None:
    """A set of numbers has one form."""
    assert cpus.words(cpus.members(text)) == normal


GOOD = f"""
libvirt:
  guests:
    web1:
      interfaces:
        {MAC}:
          source: {{network: web, portgroup: a}}
          filterref: {{filter: clean-traffic, parameters: {{IP: 198.18.0.9}}}}
        ua-inside: {{link: down, bandwidth: {{inbound: {{average: 1000}}}}}}
      pins: {{vcpus: {{0: "2-3"}}, near: eth0}}
"""


def test_guests_are_read_from_intent(tmp_path: Path) -> None:
    """Interfaces are named by MAC address or alias, in libvirt's own words."""
    (found,) = render_state(one_host(tmp_path, GOOD), "h1").resources
    assert found.key == "guest/web1"
    assert list(found.spec["interfaces"]) == [MAC, "ua-inside"]
    assert found.spec["pins"] == {"vcpus": {"0": "2-3"}, "near": "eth0"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ua-inside", "net0", "no alias such as ua-uplink"),
        ("{network: web, portgroup: a}", "{network: web, bridge: br0}", "name one of network"),
        ("{network: web, portgroup: a}", "{bridge: br0, portgroup: a}", "a portgroup is a"),
        ("{link: down,", "{xml: <interface/>, ", "name the interface one way"),
        ("{link: down,", "{link: off,", "link"),
        ('"2-3"', '"2-"', "no set of numbers"),
        ("filter: clean-traffic, ", "", "name the filter"),
    ],
)
def test_what_no_guest_takes_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """What is wrong whatever the host has is refused before anything is contacted."""
    with pytest.raises(IntentError, match=message) as caught:
        render_state(one_host(tmp_path, GOOD.replace(old, new)), "h1")
    assert caught.value.line > 1
