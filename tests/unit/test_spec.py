"""Records are alike on the controller and in the helper; addresses and patterns like Python's."""

from __future__ import annotations

import fnmatch
import ipaddress
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.host import pattern
from fleet.host.kernel import ip
from fleet.host.planning.ledger import Entry, load, store
from fleet.host.spec import decode, encode

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from fleet.host import wire
from fleet.host.change import Change, amended
from fleet.host.kinds.bridge import Bridge, BridgePort
from fleet.host.spec import ON_HOST, decode, encode, field_names
from fleet.host.state import decode_state
answers = []
data = {{"interfaces": ["a"], "ports": {{"a": {{"isolated": True}}}}, "parameters": {{"stp": True}},
        "addresses": [{{"address": "198.18.0.1/24"}}]}}
bridge = decode(Bridge, data)
answers.append(encode(bridge))
answers.append(repr(bridge))
answers.append([bridge == decode(Bridge, data), bridge != decode(Bridge, {{}})])
answers.append(type(bridge.ports["a"]).__name__ + type(bridge.addresses).__name__)
answers.append(list(field_names(Bridge)))
answers.append(hash(BridgePort(isolated=True)) == hash(BridgePort(isolated=True)))
answers.append(encode(amended(Change(name="x"), what="mtu")))
state = decode_state({{"host": "h", "resources": [{{"kind": "bridge", "name": "b", "spec": data}}],
                      "management": {{"addresses": ["198.18.0.1"], "device": None}},
                      "ignore": ["d*"]}})
answers.append(encode(state))
answers.append(state.resources[0].key)
for bad in (lambda: decode(Bridge, {{"nope": 1}}), lambda: Bridge(nope=1)):
    try:
        bad()
        answers.append("accepted")
    except TypeError:
        answers.append("refused")
try:
    bridge.mtu = 3
    answers.append("changed")
except AttributeError:
    answers.append("frozen")
print(wire.dumps([ON_HOST, answers]))
"""


def test_both_implementations_agree() -> None:
    """A record decodes, encodes, compares and refuses the same on both sides."""
    program = PROGRAM.format(root=str(ROOT))
    outputs = []
    for flags in (["-I", "-S"], ["-I"]):
        done = subprocess.run(
            [sys.executable, *flags, "-c", program], capture_output=True, text=True, check=True
        )
        outputs.append(json.loads(done.stdout))
    (on_host, light), (on_controller, heavy) = outputs
    assert (on_host, on_controller) == (True, False)
    assert light == heavy


def test_ledger_round_trip(tmp_path: Path) -> None:
    """What is stored is loaded; a ledger that was touched is refused."""
    entry = Entry("", "bridge", "br0", {"mtu": 1500}, True, None)
    assert load(str(tmp_path)) == {}
    store(str(tmp_path), {entry.key: entry})
    store(str(tmp_path), {entry.key: entry})
    assert load(str(tmp_path)) == {"bridge/br0": entry}
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]
    assert (tmp_path / "ledger.json").stat().st_mode & 0o777 == 0o600
    assert decode(Entry, encode(entry)) == entry
    path = tmp_path / "ledger.json"
    whole = path.read_text()
    for text in ("", whole[:-20], whole.replace("1500", "1501"), "[]", '{"version":1}'):
        path.write_text(text)
        with pytest.raises(Exception, match="damaged"):
            load(str(tmp_path))


@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_addresses_are_as_ipaddress_has_them(address: object, length: int, other: object) -> None:
    """Subnets and spellings are those of the standard library."""
    length = min(length, ip.bits(str(address)))
    interface = ipaddress.ip_interface(f"{address}/{length}")
    assert ip.number(str(address)) == int(interface.ip)
    assert ip.length(f"{address}/{length}") == length
    assert ip.subnet(f"{address}/{length}") == (
        interface.version,
        int(interface.network.network_address) >> (interface.max_prefixlen - length),
        length,
    )
    inside = ipaddress.ip_address(str(other)) in interface.network
    assert ip.inside(str(other), f"{address}/{length}") == inside
    assert ipaddress.ip_address(ip.normal(str(address))) == interface.ip


@given(st.text("ab-]!", max_size=6), st.text("ab*?[]!-^", max_size=6))
def test_patterns_are_as_fnmatch_has_them(name: str, glob: str) -> None:
    """A pattern matches what fnmatch matches; ^ negates as in the shell."""
    if "^" in glob or "--" in glob or "b-a" in glob or "-]" in glob or "[-" in glob or "!-" in glob:
        return  # fnmatch(3) leaves these open, and Python's differs from the shell's
    assert pattern.matches(name, glob) == fnmatch.fnmatchcase(name, glob)
