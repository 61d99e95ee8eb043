"""What a lab is to look like, from an inventory's files alone."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.lab import Lab, LabError
from fleet.lab.topology import RANGE, Nic, Topology, read_topology

ROOT = Path(__file__).resolve().parents[2]


def topology(folder: Path, **hosts: Any) -> Topology:
    """Return the topology of hosts given as "hostname" and "data"."""
    inventory = folder / "inventory"
    inventory.mkdir()
    (inventory / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    return read_topology(folder)


def host(address: str, network: dict[str, Any], **fleet: Any) -> dict[str, Any]:
    """Return a host of hosts.yaml."""
    return {"hostname": address, "data": {"network": network, "fleet": fleet}}


def nic(made: Topology, name: str, device: str) -> Nic:
    """Return a NIC of a host."""
    return next(each for each in made.hosts[name].nics if each.name == device)


def test_the_example_has_a_switch_for_each_network() -> None:
    """Hosts of one rack share their networks, and the router is in each of them."""
    made = read_topology(ROOT)
    assert len(made.hosts) == 6
    assert nic(made, "hv-r3-1", "eno1").network == nic(made, "hv-r3-2", "eno1").network
    assert nic(made, "hv-r1-1", "eno1").network != nic(made, "hv-r3-2", "eno1").network
    assert made.networks["198.18.3.0/24"].gateways == {"198.18.3.254/24"}
    assert made.networks["198.19.3.0/24"].gateways == {"198.19.3.254/24"}


def test_the_controller_is_in_no_host_s_network() -> None:
    """The controller has a link of its own to the router, inside the lab's range."""
    made = read_topology(ROOT)
    link = ipaddress.ip_interface(made.controller).network
    assert link.subnet_of(RANGE)
    assert ipaddress.ip_interface(made.router).network == link
    for network in made.networks.values():
        for gateway in network.gateways:
            assert not link.overlaps(ipaddress.ip_interface(gateway).network)


def test_a_management_bridge_starts_on_its_nic(tmp_path: Path) -> None:
    """Where a bridge is to carry management, its NIC has the address when the host is new."""
    network = {
        "ethernets": {"eno1": {}, "eno2": {}},
        "bonds": {"bond0": {"interfaces": ["eno2"]}},
        "bridges": {
            "br0": {
                "interfaces": ["bond0"],
                "addresses": ["198.18.5.9/26"],
                "routes": [{"to": "default", "via": "198.18.5.1"}],
            }
        },
    }
    made = topology(tmp_path, a=host("198.18.5.9", network, management={"interface": "br0"}))
    assert nic(made, "a", "eno2").addresses == ("198.18.5.9/26",)
    assert nic(made, "a", "eno2").gateway == "198.18.5.1"
    assert nic(made, "a", "eno1").addresses == ()


def test_hints_win(tmp_path: Path) -> None:
    """The inventory may say which NIC a lab's host starts with, its gateway, and further NICs."""
    network = {"ethernets": {"eno1": {}, "eno2": {}}}
    lab = {"interface": "eno2", "gateway": "198.18.5.77", "nics": ["spare0"]}
    made = topology(tmp_path, a=host("198.18.5.9", network, lab=lab))
    assert [each.name for each in made.hosts["a"].nics] == ["eno1", "eno2", "spare0"]
    assert nic(made, "a", "eno2").addresses == ("198.18.5.9/24",)
    assert nic(made, "a", "eno2").gateway == "198.18.5.77"


def test_what_a_machine_s_nics_are(tmp_path: Path) -> None:
    """A NIC of which VFs are wanted is one that has them; the inventory may name another model."""
    network = {"ethernets": {"eno1": {}, "eno2": {"virtual-function-count": 0}, "eno3": {}}}
    lab = {"nic-models": {"eno3": "e1000e"}}
    made = topology(tmp_path, a=host("198.18.5.9", network, lab=lab))
    models = {each.name: each.model for each in made.hosts["a"].nics}
    assert models == {"eno1": "virtio-net-pci", "eno2": "igb", "eno3": "e1000e"}


def test_a_gateway_is_never_the_host_itself(tmp_path: Path) -> None:
    """Where nothing names a gateway it is the network's last address, or the one before."""
    made = topology(tmp_path, a={"hostname": "198.18.5.254"}, b={"hostname": "198.18.5.1"})
    assert nic(made, "a", "eth0").gateway == "198.18.5.253"
    assert nic(made, "b", "eth0").gateway == "198.18.5.254"


def test_a_host_with_a_name_only_gets_an_address(tmp_path: Path) -> None:
    """A host whose hostname is no address gets one of the lab's, each another."""
    made = topology(tmp_path, a={"hostname": "a.example.net"}, b={})
    addresses = {ipaddress.ip_address(each.address) for each in made.hosts.values()}
    assert len(addresses) == 2
    assert all(address in RANGE for address in addresses)


def test_ipv6_is_an_address_like_any(tmp_path: Path) -> None:
    """A host may be managed over IPv6 alone."""
    network = {"ethernets": {"eno1": {"addresses": ["2001:2:0:5::9/64"]}}}
    made = topology(tmp_path, a=host("2001:2:0:5::9", network))
    assert nic(made, "a", "eno1").addresses == ("2001:2:0:5::9/64",)
    assert nic(made, "a", "eno1").gateway.startswith("2001:2:0:5:")


def test_a_mac_is_the_same_each_time(tmp_path: Path) -> None:
    """A NIC has the MAC that match names, else one of its own that never changes."""
    network = {"ethernets": {"eno1": {}, "up": {"match": {"macaddress": "02:00:00:00:00:07"}}}}
    made = topology(tmp_path, a=host("198.18.5.9", network))
    assert nic(made, "a", "up").mac == "02:00:00:00:00:07"
    assert nic(made, "a", "eno1").mac == nic(read_topology(tmp_path), "a", "eno1").mac


@pytest.mark.parametrize("broken", ["{{ nothing }}", "{{ 1 / 0 }}", 7, None, ["{{ x }}"]])
def test_what_cannot_be_rendered_is_left_out(tmp_path: Path, broken: Any) -> None:
    """An intent with a mistake still has a lab: validation is another command's work."""
    network = {"ethernets": {"eno1": {"addresses": broken, "routes": broken}}}
    made = topology(tmp_path, a=host("198.18.5.9", network))
    assert nic(made, "a", "eno1").addresses == ("198.18.5.9/24",)


@pytest.mark.parametrize("name", ["", "../x", "a b", "A", "-a", "x" * 33])
def test_a_lab_s_name_is_a_plain_word(name: str) -> None:
    """A name that could be a path or an option is refused."""
    with pytest.raises(LabError):
        Lab(name, ROOT)
