"""Sections of network: that hold no devices, and namespaces with sections of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.errors import IntentError
from fleet.intent.project import load_project, render_state


def state(folder: Path, data: str, template: str = "") -> dict[str, Any]:
    (folder / "inventory").mkdir(exist_ok=True)
    indented = "\n".join(f"    {line}" for line in data.strip("\n").split("\n"))
    text = f"h1:\n  hostname: 198.18.1.5\n  data:\n{indented}\n"
    (folder / "inventory" / "hosts.yaml").write_text(text)
    (folder / "templates" / "nft").mkdir(parents=True, exist_ok=True)
    (folder / "templates" / "nft" / "x.nft.j2").write_text(template)
    return {each.key: each.spec for each in render_state(load_project(folder), "h1").resources}


PAIR = """
port: 2222
network:
  virtual-ethernets:
    v1: {peer: eth0, peer-namespace: vm}
  namespaces:
    vm:
      virtual-ethernets:
        eth0: {peer: v1, peer-namespace: host, addresses: [198.18.2.2/24]}
      sysctl: {net.ipv4.ip_forward: 1}
      nftables: {inet/own: {template: nft/x.nft.j2}}
      policies: {all: {isolate: true}}
"""


def test_a_namespace_is_a_host_of_its_own(tmp_path: Path) -> None:
    """A namespace's sections become resources in it; templates know the host's variables."""
    found = state(tmp_path, PAIR, "chain c { tcp dport {{ port }} drop; }")
    assert found["namespace/vm"] == {}
    assert found["veth/v1"] == {"peer": "eth0", "peer_namespace": "vm"}
    assert found["vm:veth/eth0"]["addresses"] == [{"address": "198.18.2.2/24"}]
    assert found["vm:sysctl/net.ipv4.ip_forward"] == {"value": "1"}
    assert found["vm:nftables/inet/own"]["rules"].strip() == "chain c { tcp dport 2222 drop; }"
    assert found["vm:policy/all"]["isolate"] is True


def test_lists_and_tables_of_the_host(tmp_path: Path) -> None:
    """Entries are lists by device, and rules a text with variables of the host."""
    found = state(
        tmp_path,
        """
port: 2222
network:
  tunnels: {vx0: {mode: vxlan, id: 42, local: 198.18.1.5}}
  taps: {tap0: {owner: qemu, multi-queue: true}}
  macvtaps: {mt0: {link: vx0, mode: bridge}}
  fdb: {vx0: [{macaddress: "00:00:00:00:00:00", remote: 198.18.1.6}]}
  neighbours: {vx0: [{address: 198.18.1.9, macaddress: "52:54:00:00:00:01"}]}
  nftables:
    inet/fleet: |
      chain c { tcp dport {{ port }} drop; }
""",
    )
    assert found["tap/tap0"] == {"owner": "qemu", "multi_queue": True}
    assert found["fdb/vx0"]["entries"][0]["remote"] == "198.18.1.6"
    assert found["neighbour/vx0"]["entries"][0]["address"] == "198.18.1.9"
    assert "2222" in found["nftables/inet/fleet"]["rules"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("network: {nftables: {fleet: {rules: x}}}", "is not a table such as inet/fleet"),
        ("network: {nftables: {inet/a: {rules: '} table ip x {'}}}", "a brace closes"),
        ("network: {nftables: {inet/a: {rules: x, template: nft/x.nft.j2}}}", "name one of them"),
        ("network: {nftables: {inet/a: {template: nft/none.nft.j2}}}", "nft/none.nft.j2"),
        ("network: {nftables: {inet/a: {rulez: x}}}", "unknown key"),
        ("network: {policies: {'a;b': {}}}", "is not a name of a policy"),
        ("network: {policies: {a: {limits: [{packets: fast}]}}}", "is not a rate"),
        ("network: {fdb: {eth0: [{macaddress: nonsense}]}}", "is not a MAC address"),
        ("network: {namespaces: {'../x': {}}}", "is not a namespace name"),
        ("network: {namespaces: {host: {}}}", "host is the host's own"),
        ("network: {namespaces: {a: {namespaces: {b: {}}}}}", "do not nest"),
        ("network: {namespaces: {a: {bridgez: {}}}}", "unknown key"),
        ("network: {namespaces: {a: {bridges: {b: {dhcp4: true}}}}}", "does not reach"),
        ("network: {virtual-ethernets: {v: {peer: e, peer-namespace: vm}}}", "no namespace vm"),
        ("nftables: {inet/a: {rules: x}}", "belongs under network"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: str, message: str) -> None:
    """What cannot be is an error with its file and line."""
    with pytest.raises(IntentError) as caught:
        state(tmp_path, data)
    assert message in str(caught.value)
    assert caught.value.line > 1


def test_both_ends_name_each_other(tmp_path: Path) -> None:
    """A pair across namespaces is named at both ends, each with the other's namespace."""
    for wrong in (
        PAIR.replace("peer: v1, peer-namespace: host", "peer: v2, peer-namespace: host"),
        PAIR.replace("peer-namespace: host", "peer-namespace: vm"),
    ):
        with pytest.raises(IntentError, match=r"peer|end"):
            state(tmp_path, wrong, "chain c { }")
