"""What no kernel takes or keeps is refused where it is written, before a host is contacted."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import one_host

from fleet.errors import IntentError
from fleet.intent import render_state

#: Flow YAML of ``network`` or another section, and a part of what is said.
REFUSED = {
    "network: {tuns: {tn0: {macaddress: 02:00:00:00:00:01}}}": "a tun has no MAC address",
    "network: {bridges: {br0: {parameters: {group-fwd-mask: 1}}}}": "lowest three bits",
    "network: {tunnels: {v: {mode: vxlan, id: 5, port: 0, remote: 198.18.1.1}}}": "port",
    "network: {tunnels: {v: {mode: vxlan, id: 5, local: 198.18.1.1, remote: '2001:2::1'}}}": (
        "two families"
    ),
    "network: {tunnels: {v: {mode: vxlan, id: 5, local: 239.1.1.1}}}": "multicast group",
    "network: {tunnels: {v: {mode: vxlan, id: 5, remote: 0.0.0.0}}}": "is nobody",
    "network: {tunnels: {v: {mode: vxlan, id: 5, remote: 239.1.1.1}}}": "name the link it is on",
    "network: {bridges: {b: {}}, mdb: {b: [{group: 224.0.0.5, port: e}]}}": "by every port",
    "network: {bridges: {b: {}}, fdb: {b: [{macaddress: '00:00:00:00:00:00'}]}}": "of a VXLAN",
    "network: {ethernets: {e: {}}, fdb: {e: [{macaddress: 02:00:00:00:00:01, remote: 198.18.1.1},"
    " {macaddress: 02:00:00:00:00:01, remote: 198.18.1.2}]}}": "keep one",
    "network: {ethernets: {e: {}}, neighbours: {e: ["
    "{address: 198.18.1.1, macaddress: 02:00:00:00:00:01},"
    " {address: 198.18.1.1, macaddress: 02:00:00:00:00:02}]}}": "198.18.1.1 is at",
    "network: {ethernets: {e: {routes: [{to: 198.18.1.0/24, via: 198.18.2.1, scope: link}]}}}": (
        "a route with a gateway has scope global"
    ),
    "network: {ethernets: {e: {routes: [{to: 198.18.1.1, type: local, scope: link}]}}}": (
        "a route of type local has scope host"
    ),
    "network: {ethernets: {e: {routing-policy: [{from: 198.18.1.0/24, table: 5,"
    " type-of-service: 33}]}}}": "an even number up to 30",
    "network: {policies: {p: {isolate: true, guests: []}}}": "guests names no port",
    "network: {policies: {p: {guests: ['tp*']}}}": "name isolate, allow, block",
    "network: {policies: {p: {guests: ['*'], isolate: true}}}": "the start of one and *",
    "network: {policies: {p: {isolate: true, allow: [[198.18.1.1, '2001:2::1']]}}}": "are no pair",
    "network: {policies: {p: {isolate: true, allow: [[198.18.1.1, 198.18.1.1]]}}}": "with itself",
    "network: {policies: {p: {block: [{protocol: tcp}]}}}": "a block names ports",
    "network: {policies: {p: {block: [{protocol: tcp, ports: [0]}]}}}": "ports",
    "network: {policies: {p: {limits: [{burst: 5}]}}}": "a limit names packets or bytes",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_kernel_takes_is_refused_where_it_is_written(tmp_path: Path, text: str) -> None:
    """The error says what is wrong, and in which line."""
    with pytest.raises(IntentError) as caught:
        render_state(one_host(tmp_path, text), "h1")
    assert REFUSED[text] in str(caught.value)
    assert caught.value.line == 4
