"""networkd's files: one text for each device, in the words of systemd.network(5) and its kin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from projects import one_host

from fleet.host.transactions.lasting import check_path, mac_of, with_macs
from fleet.intent import render_state

FOLDER = "/etc/systemd/network/05-fleet-"
SETTING = "fleet: {manager: networkd}\n"


def files(tmp_path: Path, intent: str, host: str = "198.18.0.5") -> dict[str, str]:
    """Return the files of an intent by their name, without the header."""
    found = render_state(one_host(tmp_path, SETTING + intent, host), "h1").files
    for path, text in found.items():
        assert check_path(path) == path
        assert text.startswith("# Written by fleet")
    return {path.removeprefix(FOLDER): text.partition("\n")[2] for path, text in found.items()}


def sections(text: str) -> list[tuple[str, list[str]]]:
    """Return the sections of a file and their lines."""
    parts = [part.strip().splitlines() for part in re.split(r"(?m)^(?=\[)", text) if part.strip()]
    return [(lines[0].strip("[]"), lines[1:]) for lines in parts]


def lines(text: str, name: str) -> list[str]:
    """Return the lines of all sections of a name."""
    return [line for section, found in sections(text) if section == name for line in found]


def test_a_bridge_and_its_ports(tmp_path: Path) -> None:
    """The bridge's parameters are in its .netdev, a port's flags and its bridge in the port's
    .network; what networkd lacks or says the wrong way round is left to fleet's unit."""
    found = files(
        tmp_path,
        """
network:
  ethernets: {eno2: {}}
  bridges:
    br0:
      interfaces: [eno2]
      mtu: 9000
      parameters: {stp: true, forward-delay: 4, ageing-time: 120, priority: 4096,
                   path-cost: {eno2: 7}, port-priority: {eno2: 9}}
      ports: {eno2: {isolated: true, guard: true, locked: true, learning: false}}
""",
    )
    assert lines(found["br0.netdev"], "NetDev") == ["Name=br0", "Kind=bridge"]
    assert set(lines(found["br0.netdev"], "Bridge")) == {
        "STP=yes", "Priority=4096", "ForwardDelaySec=4", "AgeingTimeSec=120",
    }  # fmt: skip
    assert "MTUBytes=9000" in lines(found["br0.network"], "Link")
    assert "Bridge=br0" in lines(found["eno2.network"], "Network")
    assert "KeepMaster=yes" not in lines(found["eno2.network"], "Network")
    assert "KeepMaster=yes" in lines(found["br0.network"], "Network")
    assert set(lines(found["eno2.network"], "Bridge")) == {
        "Isolated=yes", "Learning=no", "Cost=7", "Priority=9",
    }  # fmt: skip


def test_vlans_of_a_bridge_and_its_ports(tmp_path: Path) -> None:
    """Each VLAN or range of a list is a section of its own, of the port or of the bridge."""
    found = files(
        tmp_path,
        """
network:
  ethernets: {eno2: {}, eno3: {}}
  bridges:
    br0:
      interfaces: [eno2, eno3]
      parameters: {vlan-filtering: true, vlan-default-pvid: 0, vlan-protocol: 802.1ad}
      vlans: [10]
      ports: {eno2: {vlans: [20, 100-199], pvid: 10}}
""",
    )
    assert set(lines(found["br0.netdev"], "Bridge")) == {
        "VLANFiltering=yes", "DefaultPVID=none", "VLANProtocol=802.1ad",
    }  # fmt: skip
    assert lines(found["br0.network"], "BridgeVLAN") == ["VLAN=10"]
    own = [found for section, found in sections(found["eno2.network"]) if section == "BridgeVLAN"]
    assert own == [["VLAN=10"], ["VLAN=20"], ["VLAN=100-199"], ["PVID=10"], ["EgressUntagged=10"]]
    assert "BridgeVLAN" not in found["eno3.network"]


def test_addresses_routes_and_rules(tmp_path: Path) -> None:
    """Each has a section of its own; a default route names its family."""
    found = files(
        tmp_path,
        """
network:
  ethernets:
    eno1:
      addresses: [198.18.0.5/24, {198.18.0.6/24: {label: "eno1:b", lifetime: 0}}]
      routes:
        - {to: default, via: 198.18.0.1, on-link: true, metric: 50}
        - {to: "::/0", via: "fe80::1"}
        - {to: 10.9.0.0/16, type: blackhole}
      routing-policy: [{from: 10.7.0.0/24, table: 100, priority: 1000}, {mark: 7, table: 9}]
""",
    )["eno1.network"]
    said = sections(found)
    assert ("Address", ["Address=198.18.0.6/24", "Label=eno1:b", "PreferredLifetime=0"]) in said
    assert (
        "Route", ["Destination=0.0.0.0/0", "Gateway=198.18.0.1", "Metric=50", "GatewayOnLink=yes"]
    ) in said  # fmt: skip
    assert ("Route", ["Destination=::/0", "Gateway=fe80::1"]) in said
    assert ("Route", ["Destination=10.9.0.0/16", "Type=blackhole"]) in said
    assert ("RoutingPolicyRule", ["From=10.7.0.0/24", "Table=100", "Priority=1000"]) in said
    assert ("RoutingPolicyRule", ["Table=9", "FirewallMark=7", "Family=ipv4"]) in said


MADE: list[tuple[str, str, list[tuple[str, list[str]]]]] = [
    (
        "virtual-ethernets: {va: {peer: vb}, vb: {peer: va, macaddress: '52:54:00:00:00:02'}}",
        "va",
        [("Peer", ["Name=vb", "MACAddress=52:54:00:00:00:02"])],
    ),
    (
        "taps: {tap7: {owner: nobody, multi-queue: true, vnet-hdr: false}}",
        "tap7",
        [("Tap", ["MultiQueue=yes", "VNetHeader=no", "User=nobody"])],
    ),
    (
        "macvtaps: {mt0: {link: eno1, mode: passthru}}",
        "mt0",
        [("MACVTAP", ["Mode=passthru"])],
    ),
    (
        "tunnels: {vx0: {mode: vxlan, id: 5, local: 198.18.0.5, remote: 239.1.1.1, link: eno1}}",
        "vx0",
        [("VXLAN", ["VNI=5", "Local=198.18.0.5", "DestinationPort=4789", "Group=239.1.1.1"])],
    ),
    (
        "tunnels: {vx0: {mode: vxlan, id: 5, remote: 198.18.0.9, mac-learning: false}}",
        "vx0",
        [
            (
                "VXLAN",
                ["VNI=5", "DestinationPort=4789", "MacLearning=no", "Remote=198.18.0.9",
                 "Independent=yes"],
            )
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("intent", "name", "expected"), MADE, ids=[each[1] for each in MADE])
def test_what_networkd_makes(
    tmp_path: Path, intent: str, name: str, expected: list[tuple[str, list[str]]]
) -> None:
    """Each kind of device has a .netdev with its own section."""
    found = files(tmp_path, f"network:\n  ethernets: {{eno1: {{}}}}\n  {intent}\n")
    assert sections(found[f"{name}.netdev"])[1:] == expected
    assert f"Name={name}" in lines(found[f"{name}.netdev"], "NetDev")


def test_a_pair_is_made_once_and_hung_devices_are_named_below(tmp_path: Path) -> None:
    """One .netdev makes both ends of a veth; a macvlan stands in its NIC's .network."""
    found = files(
        tmp_path,
        """
network:
  ethernets: {eno1: {}}
  virtual-ethernets: {va: {peer: vb}, vb: {peer: va}}
  macvlans: {mv1: {link: eno1}}
""",
    )
    assert "vb.netdev" not in found
    assert "vb.network" in found
    assert "MACVLAN=mv1" in lines(found["eno1.network"], "Network")


def test_what_reaches_into_a_namespace_is_left_out(tmp_path: Path) -> None:
    """networkd knows its own namespace only; fleet's unit makes the rest at boot."""
    found = files(
        tmp_path,
        """
network:
  ethernets: {eno1: {mtu: 1400}}
  virtual-ethernets: {va: {peer: vb, peer-namespace: blue}}
  namespaces:
    blue: {virtual-ethernets: {vb: {peer: va, peer-namespace: host}}}
""",
    )
    assert sorted(found) == ["eno1.network"]


def test_a_nic_is_found_as_it_is_said(tmp_path: Path) -> None:
    """match and set-name become a .link that udev reads, and the same match for networkd."""
    found = files(
        tmp_path,
        """
network:
  ethernets:
    up: {match: {macaddress: "52:54:00:12:34:56"}, set-name: up0, mtu: 1400}
    odd: {match: {pci-address: "0000:01:00.0"}, mtu: 1400}
""",
    )
    assert sections(found["up.link"]) == [
        ("Match", ["PermanentMACAddress=52:54:00:12:34:56"]),
        ("Link", ["Name=up0"]),
    ]
    assert lines(found["up.network"], "Match") == ["PermanentMACAddress=52:54:00:12:34:56"]
    assert lines(found["odd.network"], "Match") == ["Path=pci-0000:01:00.0"]
    assert "odd.link" not in found


def test_what_is_left_to_the_manager(tmp_path: Path) -> None:
    """netplan's words for DHCP, names and router advertisements are said in networkd's."""
    found = files(
        tmp_path,
        """
network:
  ethernets:
    eno1:
      dhcp4: yes
      dhcp4-overrides: {route-metric: 200, use-dns: false}
      dhcp-identifier: mac
      accept-ra: no
      link-local: [ipv6]
      nameservers: {addresses: [198.18.0.9], search: [lab, example]}
      optional: true
      wakeonlan: true
""",
    )
    text = found["eno1.network"]
    assert lines(text, "Network") == [
        "DHCP=ipv4", "LinkLocalAddressing=ipv6", "IPv6AcceptRA=no", "DNS=198.18.0.9",
        "Domains=lab example", "KeepMaster=yes",
    ]  # fmt: skip
    assert lines(text, "DHCPv4") == ["ClientIdentifier=mac", "RouteMetric=200", "UseDNS=no"]
    assert lines(text, "Link") == ["RequiredForOnline=no"]
    assert lines(found["eno1.link"], "Link") == ["WakeOnLan=magic"]


def test_what_intent_does_not_name_is_kept(tmp_path: Path) -> None:
    """networkd drops addresses that its file lacks, unless it is told to keep them; a NIC that
    intent only names has no file that would hide the site's own."""
    found = files(
        tmp_path,
        "network: {ethernets: {eno1: {mtu: 1400}, eno2: {addresses: [], routes: []}, eno3: {}}}",
    )
    assert "eno3.network" not in found
    assert "KeepConfiguration=static" in lines(found["eno1.network"], "Network")
    assert "KeepConfiguration=static" not in lines(found["eno2.network"], "Network")


@pytest.mark.parametrize("manager", ["networkd", "netplan"])
def test_the_bridge_of_management_has_its_nics_mac(tmp_path: Path, manager: str) -> None:
    """A manager would give the bridge a MAC of its own making; the host fills in its NIC's."""
    intent = f"""
fleet: {{manager: {manager}}}
network:
  ethernets: {{eno1: {{addresses: []}}, eno2: {{}}}}
  bridges:
    br0: {{interfaces: [eno1], addresses: [198.18.0.5/24]}}
    br1: {{interfaces: [eno2], addresses: [10.7.0.1/24]}}
"""
    texts = render_state(one_host(tmp_path, intent, "198.18.0.5"), "h1").files.values()
    (text,) = [each for each in texts if mac_of("eno1") in each]
    assert not any(mac_of("eno2") in each for each in texts)
    nic = tmp_path / "sys/class/net/eno1"
    nic.mkdir(parents=True)
    (nic / "address").write_text("52:54:00:00:00:07\n")
    filled: Any = with_macs(text, str(tmp_path))
    assert "52:54:00:00:00:07" in filled
    assert "<mac" not in filled
