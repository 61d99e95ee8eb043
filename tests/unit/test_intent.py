"""Intent: netplan's words into specs, and all that is refused before a host is contacted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from projects import make, one_host, specs

from fleet.errors import IntentError, InventoryError, UsageError
from fleet.host.registry import load
from fleet.host.spec import dashed, field_names
from fleet.intent import (
    intent_of,
    load_project,
    manager_file,
    render_state,
    settings_of,
    validate,
)
from fleet.intent.keys import document
from fleet.intent.netplan import APPLIED, NETWORK, SECTIONS, device_table

ROOT = Path(__file__).parents[2]


def error_of(tmp_path: Path, data: str) -> IntentError:
    with pytest.raises(IntentError) as caught:
        render_state(one_host(tmp_path, data), "h1")
    return caught.value


def test_a_pasted_netplan_file_is_intent(tmp_path: Path) -> None:
    """netplan's own forms give specs: short and long addresses, booleans, rules, MACs."""
    state = render_state(
        one_host(
            tmp_path,
            """
            network:
              version: 2
              renderer: networkd
              ethernets:
                renderer: networkd
                eno1: {mtu: "9000", macaddress: 52:54:00:12:34:56, dhcp4: no, optional: true}
                eno2:
                  addresses:
                    - 10.0.0.1/24
                    - "2001:db8::1/64"
                    - 10.0.0.2/24: {label: eno2:b, lifetime: 0}
                  nameservers: {search: [lab], addresses: [10.0.0.9]}
                  routes:
                    - {to: default, via: 10.0.0.254, on-link: yes}
                    - {to: 10.9.0.0/16, type: blackhole}
                  routing-policy: [{from: 10.0.0.0/24, table: 100}]
              bridges:
                br0:
                  interfaces: [eno1]
                  parameters: {stp: off, forward-delay: 4, aging-time: 60, path-cost: {eno1: 7}}
            """,
        ),
        "h1",
    )
    found = specs(state)
    assert found["ethernet/eno1"] == {"mtu": 9000, "macaddress": "52:54:00:12:34:56"}
    assert found["ethernet/eno2"]["addresses"] == [
        {"address": "10.0.0.1/24"},
        {"address": "2001:db8::1/64"},
        {"address": "10.0.0.2/24", "label": "eno2:b", "lifetime": "0"},
    ]
    assert found["ethernet/eno2"]["routes"] == [
        {"to": "default", "via": "10.0.0.254", "on_link": True},
        {"to": "10.9.0.0/16", "type": "blackhole"},
    ]
    assert found["bridge/br0"]["parameters"] == {
        "stp": False,
        "forward_delay": 4.0,
        "ageing_time": 60.0,
        "path_cost": {"eno1": 7},
    }
    assert found["rule/from 10.0.0.0/24 table 100"] == {"from_": "10.0.0.0/24", "table": 100}
    assert state.manager == {
        "ethernets": {
            "eno1": {"dhcp4": "no", "optional": "true"},
            "eno2": {"nameservers": {"search": ["lab"], "addresses": ["10.0.0.9"]}},
        }
    }


def test_netplans_port_flags_are_the_bridges(tmp_path: Path) -> None:
    """hairpin and port-mac-learning on a device are flags of the bridge's port it is."""
    data = """
        network:
          ethernets: {eno1: {hairpin: yes, port-mac-learning: no}}
          bridges: {br0: {interfaces: [eno1], ports: {eno1: {isolated: true}}}}
    """
    found = specs(render_state(one_host(tmp_path, data), "h1"))
    assert found["bridge/br0"]["ports"] == {
        "eno1": {"hairpin": True, "learning": False, "isolated": True}
    }
    alone = "network: {ethernets: {eno1: {hairpin: yes}}}"
    assert "no bridge lists eno1" in str(error_of(tmp_path, alone))


def test_routes_of_a_vrf_are_in_its_table(tmp_path: Path) -> None:
    """Routes of the VRF and of its members, and its rules, are in its table where they name none;
    networks of different VRFs may overlap."""
    data = """
        network:
          ethernets:
            a: {addresses: [198.18.1.1/24], routes: [{to: 198.18.9.0/24, via: 198.18.1.2}]}
            b: {addresses: [198.18.1.3/24], routes: [{to: default, via: 198.18.1.2, table: 7}]}
          vrfs:
            red:
              table: 10
              interfaces: [a]
              routes: [{to: default, via: 198.18.1.2}]
              routing-policy: [{from: 198.18.2.0/24}]
            blue: {table: 20, interfaces: [b]}
    """
    found: Any = specs(render_state(one_host(tmp_path, data), "h1"))
    tables = {name: [r["table"] for r in each.get("routes", ())] for name, each in found.items()}
    assert tables["ethernet/a"] == tables["vrf/red"] == [10]
    assert tables["ethernet/b"] == [7]
    assert found["rule/from 198.18.2.0/24 table 10"]["table"] == 10


def test_sysctls_are_texts_as_the_kernel_takes_them(tmp_path: Path) -> None:
    """Numbers, several numbers, lists, and names with slashes for devices that have dots."""
    data = """
        sysctl:
          net.ipv4.ip_forward: 1
          net.ipv4.tcp_rmem: "4096   131072\\t6291456"
          net.ipv4.tcp_wmem: [4096, 65536, 4194304]
          net/ipv4/conf/eth0.100/rp_filter: 0
    """
    assert specs(render_state(one_host(tmp_path, data), "h1")) == {
        "sysctl/net.ipv4.ip_forward": {"value": "1"},
        "sysctl/net.ipv4.tcp_rmem": {"value": "4096 131072 6291456"},
        "sysctl/net.ipv4.tcp_wmem": {"value": "4096 65536 4194304"},
        "sysctl/net.ipv4.conf.eth0/100.rp_filter": {"value": "0"},
    }


REFUSED = [
    ("fleet: {record: a.sqlite}", "all hosts have one record; name it in inventory/defaults.yaml"),
    ("fleet: {record: 'mysql://x'}", "mysql:// keeps no record"),
    ("network: {ethernets: {a: {dhcp4: maybe}}}", "true or false is expected"),
    ("network: {ethernets: {a: {ipv6-mtu: 576}}}", "at least 1280"),
    ("network: {ethernets: {a: {ipv6-address-token: 2001:db8::1}}}", "interface identifier"),
    ("network: {ethernets: {a: {nameservers: {search: [a..b]}}}}", "is not a name such as"),
    ("network: {ethernets: {e: {mtu: 10}}}", "ethernets.e.mtu: '10' is too small: at least 68"),
    ("network: {ethernets: {e: {mtu: true}}}", "a whole number is expected, not 'true'"),
    ("network: {ethernets: {e: {mut: 1500}}}", "e.mut: unknown key; did you mean 'mtu'?"),
    ("network: {bridges: {b: {forwrd-delay: 1}}}", "did you mean 'parameters.forward-delay'?"),
    ("network: {bridges: {b: {qqq: 1}}}", "b.qqq: unknown key; the keys here are "),
    ("network: {bridges: {default: {}}}", "'default' is not an interface name"),
    ("fleet: {gates: [audti]}", "fleet.gates: there is no task 'audti' in tasks/; did you mean"),
    ("fleet: {drain: nosuch}", "there is no task 'nosuch'"),
    ("fleet: {rollout: {fleet-gates: [nosuch]}}", "there is no task 'nosuch'"),
    ("fleet: {rollout: {allow: [all]}}", "'all' is not drain, reboot, foreign, or a resource"),
    ("network: {ethernts: {}}", "network.ethernts: unknown key; did you mean 'ethernets'?"),
    ("netwrok: {ethernets: {}}", "netwrok: unknown section; did you mean 'network'?"),
    ("sysctls: {net.ipv4.ip_forward: 1}", "did you mean 'sysctl'?"),
    ("network: {bridges: {b: {parameters: {forward-dely: 1}}}}", "did you mean 'forward-delay'?"),
    ("network: {bridges: {b: {parameters: {forward-delay: 31}}}}", "too large: at most 30"),
    ("network: {bridges: {b: {ports: {e: {isolatd: 1}}}}}", "did you mean 'isolated'?"),
    ("network: {bridges: {sixteen-bytes-nm: {}}}", "'sixteen-bytes-nm' is 16 bytes"),
    ("network: {bridges: {'a/b': {}}}", "is not an interface name"),
    ("network: {bridges: {b: 1}}", "bridges.b: a mapping is expected"),
    ("network: {bridges: []}", "network.bridges: a mapping of devices is expected"),
    ("network: []", "network: a mapping is expected"),
    ("network: {version: 3}", "netplan's version is 2"),
    ("network: {renderer: NetworkManager}", "systemd-networkd"),
    ("network: {ethernets: {e: {gateway4: 10.0.0.1}}}", "routes: [{to: default, via: ADDRESS}]"),
    ("network: {vrfs: {b: {}}}", "table is missing"),
    ("network: {vrfs: {b: {table: 0}}}", "too small: at least 1"),
    (
        "network: {vrfs: {b: {table: 9, routes: [{to: default, via: 198.18.0.1, table: 8}]}}}",
        "8 is not the table of b, which is 9",
    ),
    (
        "network: {vrfs: {a: {table: 8}, b: {table: 9, interfaces: [a]}}}",
        "a is a VRF, and none can be in another",
    ),
    ("network: {wifis: {w: {}}}", "no wireless"),
    ("libvirt: {guest: {}}", "unknown key"),
    ("host: 1", "`host` is fleet's own"),
    ("network: {ethernets: {a: {}}, bridges: {a: {}}}", "a is already under ethernets"),
    ("network: {ethernets: {a: {set-name: b}, b: {}}}", "b is the name of another device"),
    ("network: {ethernets: {a: {addresses: [10.0.0.1]}}}", "needs a prefix length"),
    ("network: {ethernets: {a: {addresses: [10.0.0.1/24, 10.0.0.1/16]}}}", "10.0.0.1 is also on a"),
    (
        "network: {ethernets: {a: {addresses: [10.0.0.1/24]}, b: {addresses: [10.0.0.2/16]}}}",
        "10.0.0.0/16 overlaps 10.0.0.0/24 on a, at inventory/hosts.yaml:4",
    ),
    ("network: {ethernets: {a: {routes: [{via: 10.0.0.1}]}}}", "routes[0]: to is missing"),
    ("network: {ethernets: {a: {routes: [{to: 10.0.0.1/24}]}}}", "host bits set"),
    (
        "network: {ethernets: {a: {addresses: [10.0.0.1/24], routes: [{to: "
        "default, via: 10.1.1.1}]}}}",
        "10.1.1.1 is on no network of a",
    ),
    (
        "network: {ethernets: {a: {routes: [{to: default, via: 10.0.0.1}, {to: "
        "default, via: 10.0.0.2}]}}}",
        "a second route to default",
    ),
    ("network: {bridges: {b: {mtu: 9000, interfaces: [a]}}, ethernets: {a: {mtu: 1500}}}",
     "1500 is less than the 9000 of its bridge b"),
    ("network: {bridges: {b: {interfaces: [a]}, c: {interfaces: [a]}}, ethernets: {a: {}}}",
     "a is already a port of b"),
    ("network: {bridges: {b: {interfaces: [eno1]}}, ethernets: {eno2: {}}}",
     "there is no device eno1; did you mean 'eno2'?"),
    ("network: {bridges: {b: {interfaces: [c]}, c: {}}}", "c is a bridge"),
    ("network: {bridges: {b: {interfaces: [], ports: {x: {}}}}}", "x is no port of b"),
    ("network: {virtual-ethernets: {v: {}}}", "v: peer is missing"),
    ("network: {virtual-ethernets: {v: {peer: v}}}", "its own peer"),
    ("network: {virtual-ethernets: {v: {peer: w}}}", "there is no virtual-ethernet w"),
    ("network: {virtual-ethernets: {v: {peer: w}, w: {peer: x}, x: {peer: "
     "w}}}", "the peer of w is x"),
    ("network: {ethernets: {a: {macaddress: 01:00:5e:00:00:01}}}", "group address"),
    ("network: {ethernets: {a: {macaddress: 52:54:00:00:00:01}, b: "
     "{macaddress: 52:54:00:00:00:01}}}",
     "also the address of a"),
    ("network: {ethernets: {a: {addresses: [198.18.0.2/24]}}}", "management address 198.18.0.1"),
    ("fleet: {management: {interface: a}}\nnetwork: {ethernets: {a: {addresses: []}}}",
     "management address 198.18.0.1"),
    ("network: {ethernets: {a: {routing-policy: [{table: 5}]}}}", "a rule needs from"),
    ("sysctl: {ip_forward: 1}", "is not a sysctl"),
    ("sysctl: {net.ipv4.ip_forward: {}}", "a text or a list"),
    ("sysctl: {net.ipv4.ip_forward: 1, net/ipv4/ip_forward: 1}", "here twice"),
    ("fleet: {confirm-timout: 9}", "did you mean 'confirm-timeout'?"),
    ("fleet: {gates: [a b]}", "is not a task's name"),
    ("fleet: {probes: {targets: [192.0.2.1]}}", "is not ADDRESS:PORT"),
    ("fleet: {on-failure: panic}", "is not one of 'stop' or 'revert'"),
    ("network: {ethernets: {a: {mtu: '{{ undefined_thing }}'}}}", "'undefined_thing' is undefined"),
    ("guest_mtu: 9\nnetwork: {ethernets: {a: {mtu: '{{ guests_mtu "
     "}}'}}}", "did you mean 'guest_mtu'?"),
    ("network: {ethernets: {a: {mtu: '{{ 1 +'}}}", "not a template"),
    ("network: {ethernets: {a: {mtu: '{{ host.nothing }}'}}}", "no attribute 'nothing'"),
    ("network: {ethernets: {a: {mtu: '{% for i in range(10**9) %}1{% endfor "
     "%}'}}}", "range counts"),
    ("network: {ethernets: {'{{ x }}': {}}}", "is not an interface name"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_is_wrong_is_refused_with_file_line_and_path(
    tmp_path: Path, data: str, message: str
) -> None:
    """Bad intent is an error of exit code 2 that says where it is and what was meant."""
    error = error_of(tmp_path, data)
    assert message in str(error)
    assert error.exit_code == 2
    assert error.file == "inventory/hosts.yaml"
    assert error.line >= 4
    assert error.host == "h1"


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    """Independent mistakes are one exception with a line for each."""
    error = error_of(
        tmp_path, "network:\n  ethernets: {a: {mtu: 1, mut: 2}, b: {mtu: 3}}\nsysctl: {x: 1}"
    )
    assert [each.line for each in (error, *error.others)] == [5, 5, 6]


def test_an_error_of_a_group_is_told_once(tmp_path: Path) -> None:
    """validate names the group's line once, however many hosts are in the group."""
    project = make(
        tmp_path,
        "a: {groups: [g]}\nb: {groups: [g]}\n",
        "g: {data: {network: {ethernets: {e: {mtu: 1}}}}}\n",
    )
    assert [str(each) for each in validate(project)] == [
        "inventory/groups.yaml:1:43: network.ethernets.e.mtu: '1' is too small: at least 68"
    ]


NASTY = [
    "$(touch /tmp/x)",
    "`id`",
    "a; reboot",
    "a|b",
    "a&b",
    "a b",
    "../../etc",
    "-rf",
    "a\\b",
    "*",
]
PLACES = [
    "network: {ethernets: {?: {}}}",
    "network: {bridges: {b: {interfaces: [?]}}}",
    "network: {bridges: {b: {parameters: {path-cost: {?: 1}}}}}",
    "network: {virtual-ethernets: {v: {peer: ?}}}",
    "network: {ethernets: {a: {addresses: [?]}}}",
    "network: {ethernets: {a: {addresses: [{10.0.0.1/24: {label: ?}}]}}}",
    "network: {ethernets: {a: {macaddress: ?}}}",
    "network: {ethernets: {a: {set-name: ?}}}",
    "network: {ethernets: {a: {routes: [{to: ?}]}}}",
    "network: {ethernets: {a: {routes: [{to: default, via: ?}]}}}",
    "network: {ethernets: {a: {routing-policy: [{from: ?}]}}}",
    "network: {ethernets: {a: {activation-mode: ?}}}",
    "network: {ethernets: {a: {match: {macaddress: ?}}}}",
    "network: {ethernets: {a: {match: {pci-address: ?}}}}",
    "network: {ethernets: {a: {nameservers: {addresses: [?]}}}}",
    "network: {ethernets: {a: {nameservers: {search: [?]}}}}",
    "network: {ethernets: {a: {dhcp4: ?}}}",
    "network: {ethernets: {a: {dhcp-identifier: ?}}}",
    "network: {ethernets: {a: {dhcp4-overrides: {hostname: ?}}}}",
    "network: {ethernets: {a: {dhcp6-overrides: {use-domains: ?}}}}",
    "network: {ethernets: {a: {ra-overrides: {table: ?}}}}",
    "network: {ethernets: {a: {ipv6-address-token: ?}}}",
    "network: {ethernets: {a: {ipv6-address-generation: ?}}}",
    "network: {ethernets: {a: {link-local: [?]}}}",
    "network: {ethernets: {a: {optional-addresses: [?]}}}",
    "network: {bridges: {?: {}}}",
    "network: {bridges: {b: {ports: {?: {isolated: true}}}}}",
    "network: {bridges: {b: {openvswitch: {ports: {?: {}}}}}}",
    "network: {bridges: {b: {openvswitch: {mirrors: {m: {output-port: ?}}}}}}",
    "network: {flows: {?: drop}}",
    "network: {namespaces: {?: {}}}",
    "network: {namespaces: {n: {bridges: {b: {interfaces: [?]}}}}}",
    "network: {taps: {?: {}}}",
    "network: {tuns: {?: {}}}",
    "network: {macvlans: {m: {link: ?, mode: bridge}}}",
    "network: {macvtaps: {m: {link: eth0, mode: ?}}}",
    "network: {tunnels: {t: {mode: vxlan, id: 1, local: ?}}}",
    "network: {tunnels: {t: {mode: ?, id: 1}}}",
    "network: {fdb: {?: []}}",
    "network: {mdb: {?: []}}",
    "network: {neighbours: {?: []}}",
    "network: {shaping: {?: {egress: {rate: 1mbit}}}}",
    "network: {shaping: {a: {egress: {rate: ?}}}}",
    "network: {nftables: {?: {rules: ''}}}",
    "network: {policies: {?: {}}}",
    "sysctl: {?: 1}",
    "fleet: {management: {interface: ?}}",
    "fleet: {drain: ?}",
    "fleet: {probes: {targets: [?]}}",
]


@pytest.mark.parametrize("place", PLACES)
def test_shell_metacharacters_are_refused_where_a_name_or_address_is_meant(
    tmp_path: Path, place: str
) -> None:
    """No field but free text takes what a shell would act on."""
    for nasty in NASTY:
        quoted = "'" + nasty + "'"
        error = error_of(tmp_path, place.replace("?", quoted))
        assert error.line == 4, (place, nasty)
        assert repr(nasty) in str(error), (place, nasty)


def test_what_is_wrong_with_a_template_file_is_said_with_its_line(tmp_path: Path) -> None:
    """The inventory names the file, and the message the line in it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.nft.j2").write_text("chain c {\n  {{ nothing }}\n}\n")
    error = error_of(tmp_path, "network: {nftables: {inet/a: {template: a.nft.j2}}}")
    assert (error.file, error.line) == ("inventory/hosts.yaml", 4)
    assert "templates/a.nft.j2:2: 'nothing' is undefined" in str(error)


def test_free_text_is_data(tmp_path: Path) -> None:
    """A sysctl's value may hold anything printable, and arrives as it was written."""
    text = "a; $(id) `b` {'x'} | & > <"
    state = render_state(one_host(tmp_path, f'sysctl: {{kernel.core_pattern: "{text}"}}'), "h1")
    assert specs(state)["sysctl/kernel.core_pattern"] == {"value": text}


def test_management_is_the_hostname_unless_declared(tmp_path: Path) -> None:
    """The address comes from hostname or fleet.management, the device from who carries it."""
    data = "network: {ethernets: {a: {addresses: [198.18.0.1/24]}}}"
    management = render_state(one_host(tmp_path, data), "h1").management
    assert (management.addresses, management.device) == (("198.18.0.1",), "a")
    data = (
        "fleet: {management: {address: 198.18.0.9}}\n"
        "network: {ethernets: {a: {addresses: [198.18.0.9/24]}}}"
    )
    management = render_state(one_host(tmp_path, data), "h1").management
    assert (management.addresses, management.device) == (("198.18.0.9",), "a")
    named = one_host(tmp_path, "fleet: {management: {interface: a}}", "host.example")
    assert render_state(named, "h1").management.addresses == ()


def test_states_are_equal_where_intents_are(tmp_path: Path) -> None:
    """The digest is of the wire's form: it changes with the intent and with nothing else."""
    data = "network: {ethernets: {a: {mtu: 1500}}}"
    one = render_state(one_host(tmp_path, data), "h1")
    other = render_state(one_host(tmp_path, f"# a comment\n{data}"), "h1")
    changed = render_state(one_host(tmp_path, data.replace("1500", "1400")), "h1")
    assert one.digest == other.digest != changed.digest


def test_what_is_left_to_netplan_becomes_its_file(tmp_path: Path) -> None:
    """With manager: netplan the manager's keys are rendered to a file netplan can read."""
    data = "network: {ethernets: {a: {dhcp4: yes, nameservers: {addresses: ['2001:db8::1']}}}}"
    assert manager_file(one_host(tmp_path, data), "h1") == ""
    text = manager_file(one_host(tmp_path, f"fleet: {{manager: netplan}}\n{data}"), "h1")
    assert (
        "a:\n      dhcp4: 'yes'\n      nameservers:\n        addresses: ['2001:db8::1']\n" in text
    )


def test_the_example_fleet_is_sound() -> None:
    """Six hosts, none with an error; rack3's management address is on the bridge."""
    project = load_project(ROOT)
    assert validate(project) == []
    assert len(project.source.hosts) == 6
    state = render_state(project, "hv-r3-1")
    assert state.management.device == "br-mgmt"
    assert specs(state)["ethernet/eno1"] == {"addresses": [], "routes": []}
    assert settings_of(project, "hv-r3-1").confirm_timeout == 120
    edge = specs(render_state(project, "hv-r3-2"))["bridge/br-guests"]
    assert edge["parameters"]["priority"] == 4096  # type: ignore[index]


def test_nornir_sees_the_merged_data(tmp_path: Path) -> None:
    """host.data is the merge; what null removed does not come back through Nornir's own lookup."""
    project = make(
        tmp_path,
        "h1:\n  groups: [b, a]\n  data: {gone: null}\n",
        "a: {username: from-a, port: 2222, data: {x: {p: 1}, gone: 1}}\n"
        "b: {username: from-b, data: {x: {q: 2}}}\n",
        "data: {y: 3}\n",
    )
    host = project.inventory.hosts["h1"]
    assert dict(host.data) == {"y": 3, "x": {"p": 1, "q": 2}}
    assert host.get("gone") is None
    assert (host.username, host.port) == ("from-b", 2222)
    assert [group.name for group in host.extended_groups()] == ["b", "a"]
    assert len(project.inventory.filter(y=3)) == 1


def test_the_plugin_loads_without_the_rest(tmp_path: Path) -> None:
    """A Nornir script takes the inventory by the plugin's name and three files."""
    from nornir.core.plugins.inventory import InventoryPluginRegister

    make(tmp_path, "h1: {hostname: 192.0.2.1}\n")
    InventoryPluginRegister.auto_register()
    plugin = InventoryPluginRegister.get_plugin("fleet")
    files = {
        f"{name}_file": str(tmp_path / "inventory" / file)
        for name, file in (
            ("host", "hosts.yaml"),
            ("group", "groups.yaml"),
            ("defaults", "defaults.yaml"),
        )
    }
    assert plugin(**files).load().hosts["h1"].hostname == "192.0.2.1"


def test_an_inventory_without_hosts_is_a_located_error(tmp_path: Path) -> None:
    """A hosts.yaml without a host is wrong at its first line; groups may be null."""
    with pytest.raises(InventoryError, match=r"inventory/hosts.yaml:1:1: no host is here"):
        make(tmp_path, "# none yet\n")
    assert list(make(tmp_path, "h: {groups: null}\n").inventory.hosts) == ["h"]


def test_unknown_hosts_and_folders_are_usage_errors(tmp_path: Path) -> None:
    """A host that is not there names the nearest; a folder without inventory/ says so."""
    project = make(tmp_path, "hv-1: {}\n")
    with pytest.raises(UsageError, match="did you mean 'hv-1'"):
        intent_of(project, "hv-2")
    with pytest.raises(UsageError, match="no inventory/"):
        load_project(tmp_path / "inventory")


def test_the_revision_is_gits(tmp_path: Path) -> None:
    """Outside git it says so; inside it is the commit, marked where files differ from it."""
    make(tmp_path, "h: {}\n")
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}

    def git(*words: str) -> None:
        subprocess.run(
            [
                "git",
                "-C",
                str(tmp_path),
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                *words,
            ],
            check=True,
            capture_output=True,
            env=environment,
        )

    git("init", "-q")
    assert str(load_project(tmp_path).revision) == "not in git"
    git("add", "inventory")
    git("commit", "-qm", "inventory")
    clean = load_project(tmp_path).revision
    assert len(clean.commit) == 40
    assert not clean.dirty
    make(tmp_path, "h: {data: {a: 1}}\n")
    assert str(load_project(tmp_path).revision) == f"{clean.commit}-dirty"


def test_importing_the_intent_is_cheap() -> None:
    """Neither pydantic, jinja2, PyYAML nor Nornir is loaded until something needs it."""
    heavy = ("pydantic", "jinja2", "yaml", "nornir")
    code = f"import sys, fleet.intent; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_hosts_of_a_group_share_the_work(tmp_path: Path) -> None:
    """A thousand hosts are a few milliseconds each, and what they share is one object."""
    groups = (ROOT / "inventory" / "groups.yaml").read_text()
    defaults = (ROOT / "inventory" / "defaults.yaml").read_text()
    hosts = "".join(
        f"hv-{n}: {{hostname: 198.18.{n % 3 + 1}.{n % 200 + 1}, groups: [rack{n % 3 + 1}, compute],"
        f" data: {{unit: {n % 200 + 1}}}}}\n"
        for n in range(300)
    )
    project = make(tmp_path, hosts, groups, defaults)
    render_state(project, "hv-0")
    start = time.process_time()
    states = [render_state(project, name) for name in project.source.hosts]
    assert (time.process_time() - start) / len(states) < 0.01
    veths = {id(r.spec) for state in states for r in state.resources if r.name == "dmz-guests"}
    assert len(veths) < len(states) / 10 or "{{" in groups


def test_the_table_of_keys_and_the_specs_agree() -> None:
    """Every field of a spec is an applied key of netplan's table, and the docs' page is current."""
    for section, kind in SECTIONS.items():
        assert NETWORK[section].verdict == APPLIED
        for name in field_names(load(kind).SPEC):
            assert device_table(section)[dashed(name)].verdict == APPLIED, (section, name)
    assert (ROOT / "docs" / "netplan-keys.md").read_text() == document()
