"""libvirt networks in plain words, rolled out on a libvirtd and judged by virsh and ip."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypervisor import applied, confirm
from virtual import MISSING, LibvirtHost, libvirt_host

from fleet.intent.assemble import Assembler
from fleet.intent.tree import Mapping
from fleet.intent.yaml import compose
from fleet.render import Renderer

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}")

TEMPLATES = Path(__file__).parents[2] / "templates"
ASSEMBLER = Assembler(Renderer((TEMPLATES,)))
NAT = """
forward: nat
bridge: virbr7
stp: yes
delay: 0
mtu: 1400
macaddress: 52:54:00:aa:bb:01
nat: {addresses: 198.18.50.1-198.18.50.9, ports: 1024-65535}
domain: {name: web.test, local-only: yes}
addresses: [198.18.40.1/24, "2001:db8::1/64"]
dhcp:
  lease: 3600
  ranges: [198.18.40.100-198.18.40.200, "2001:db8::100-2001:db8::1ff"]
  hosts:
  - {mac: "52:54:00:00:00:01", name: one, ip: 198.18.40.11}
  - {name: two, ip: "2001:db8::11"}
dns:
  forward-plain-names: no
  forwarders: [{domain: corp.test, addr: 198.18.0.53}]
  txt: {mail: v=spf1 -all}
  srv: [{service: ldap, protocol: tcp, domain: web.test, target: one.web.test, port: 389}]
  hosts: {198.18.40.9: [h, i]}
routes: [{to: 198.18.60.0/24, via: 198.18.40.11, metric: 2}]
"""
FORMS = {
    "nat": NAT,
    "route": "{forward: route, dev: eth1, addresses: [198.18.40.1/24]}",
    "open": "{forward: open, addresses: [198.18.40.1/24], dns: {enable: no}}",
    "isolated": "{forward: isolated, isolated: yes, mtu: 9000}",
    "bridge": "{forward: bridge, bridge: br9, isolated: yes}",
    "macvtap": "{forward: bridge, interfaces: [eth1]}",
    "private": "{forward: private, interfaces: [eth1]}",
    "vepa": "{forward: vepa, interfaces: [eth1], trust-guest-rx-filters: yes}",
    "passthrough": "{forward: passthrough, interfaces: [eth1]}",
    "switch": "{forward: bridge, bridge: br9, virtualport: {type: openvswitch}, portgroups:"
    " {a: {default: yes, vlan: {tags: [5, 6], native: 5}, bandwidth: {inbound: {average: 1000}}},"
    " b: {vlan: {tags: [7]}}}}",
}


@pytest.fixture
def host() -> Iterator[LibvirtHost]:
    with libvirt_host() as made:
        made.ip("link add br9 type bridge")
        made.ip("link add eth1 type veth peer name cable1")
        yield made


def state(words: str | None) -> dict[str, Any]:
    text = "fleet: {management: {address: 198.18.0.5, interface: eth0}, probes: {gateway: no}}\n"
    if words is not None:
        text += f"libvirt:\n  networks:\n    web:\n{textwrap.indent(words, '      ')}\n"
    node = compose(text, "hosts.yaml")
    assert isinstance(node, Mapping)
    made = ASSEMBLER.state("kvm1", "198.18.0.5", node)
    resources = [{"kind": r.kind, "name": r.name, "spec": r.spec} for r in made.resources]
    return {
        "host": "kvm1",
        "management": {"addresses": ["198.18.0.5"], "device": "eth0"},
        "probes": {"gateway": False},
        "resources": resources,
    }


def changes(host: LibvirtHost, words: str) -> list[dict[str, Any]]:
    helper = host.helper()
    found: dict[str, Any] = helper.call("plan", state=state(words))["plan"]
    helper.close()
    assert found["problems"] == []
    planned: list[dict[str, Any]] = found["changes"]
    return planned


def roll_out(host: LibvirtHost, words: str | None, name: str) -> None:
    helper, digest = applied(host, 20.0, name=name, state=state(words))
    confirm(host.confirming(), digest, name)
    helper.close()


@pytest.mark.parametrize("form", FORMS)
def test_words_become_a_network_that_shows_no_drift(host: LibvirtHost, form: str) -> None:
    """libvirt takes what the words are, a second plan has nothing, and it goes again."""
    roll_out(host, FORMS[form], "tx1")
    shown = host.virsh("net-info", "web")
    assert shown.count("yes") == 3
    assert changes(host, FORMS[form]) == []
    roll_out(host, None, "tx2")
    assert host.networks() == []


def test_what_was_written_is_what_runs(host: LibvirtHost) -> None:
    """Addresses, MTU, MAC and route are the kernel's, and the rest is in libvirt's definition."""
    roll_out(host, NAT, "tx1")
    (link,) = json.loads(host.ip("-j -d addr show dev virbr7"))
    assert (link["mtu"], link["address"]) == (1400, "52:54:00:aa:bb:01")
    found = {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]}
    assert {"198.18.40.1/24", "2001:db8::1/64"} <= found
    assert "via 198.18.40.11" in host.ip("route show 198.18.60.0/24")
    root = ElementTree.fromstring(host.virsh("net-dumpxml", "web"))
    leases = [each.attrib["expiry"] for each in root.iter("lease")]
    assert leases == ["3600"] * 4
    assert [each.attrib["ip"] for each in root.findall("ip/dhcp/host")] == [
        "198.18.40.11",
        "2001:db8::11",
    ]
    txt = root.find("dns/txt")
    assert txt is not None
    assert txt.attrib == {"name": "mail", "value": "v=spf1 -all"}


def test_a_word_that_changes_is_drift_by_its_path(host: LibvirtHost) -> None:
    """A host that is added to the words is a net-update: nothing stops."""
    roll_out(host, NAT, "tx1")
    index = json.loads(host.ip("-j link show dev virbr7"))[0]["ifindex"]
    more = NAT.replace("  hosts:\n", '  hosts:\n  - {mac: "52:54:00:00:00:02", ip: 198.18.40.12}\n')
    (change,) = changes(host, more)
    assert change["impact"] == "none"
    assert "running: ip[0]/dhcp/host[0]" in change["before"]
    roll_out(host, more, "tx2")
    assert "52:54:00:00:00:02" in host.virsh("net-dumpxml", "web")
    assert json.loads(host.ip("-j link show dev virbr7"))[0]["ifindex"] == index
    assert changes(host, more) == []


@pytest.mark.parametrize("pool", ["pf: eth1", "pci: ['0000:03:10.0', '0000:03:10.1']"])
def test_a_pool_of_vfs_is_one_that_libvirt_knows(host: LibvirtHost, pool: str) -> None:
    """What the words of a pool of VFs become is sound by libvirt's own schema and parser."""
    words = f"{{forward: hostdev, managed: yes, {pool}, vlan: {{tags: [42]}}, active: no}}"
    (change,) = changes(host, words)
    assert change["action"] == "create"
