"""What fleet reads and others may have written: one target each, from bytes to nothing.

A target takes any bytes. What fleet refuses in its own words is well; anything else that is raised
is a finding. No target changes the machine or speaks to a host.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fleet import plan_file
from fleet.errors import FleetError
from fleet.helper import lines, session
from fleet.host import helper, protocol, wire
from fleet.host.change import Plan
from fleet.host.kernel.system import System
from fleet.host.planning.digest import sha256
from fleet.host.refusal import Refused
from fleet.host.spec import encode
from fleet.host.transactions import journal
from fleet.host.transactions.files import Paths
from fleet.intent import load_project, render_state
from fleet.intent.yaml import compose

ROOT = Path(__file__).parents[2]
Target = Callable[[bytes, Path], None]

#: What tends to matter to a reader of YAML, JSON, templates, addresses and numbers.
WORDS = (
    b"null",
    b"~",
    b"yes",
    b"-1",
    b"0",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b"&a ",
    b"*a",
    b"!!python/object:os.system ",
    b"<<: ",
    b"? ",
    b"|\n",
    b"'",
    b'"',
    b"\t",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\r\n",
    b"{{ x }}",
    b"{% for i in",
    b"{{",
    b"::1/129",
    b"198.18.0.1/33",
    b"\\ud800",
    b"network:",
    b"[[[[[[[[",
)


def yaml_text(data: bytes, folder: Path) -> None:
    """One YAML file."""
    try:
        compose(data.decode("utf-8"), "hosts.yaml")
    except (FleetError, UnicodeDecodeError):
        return


def inventory(data: bytes, folder: Path) -> None:
    """A project whose hosts file is this; each of its first hosts is rendered to its state."""
    (folder / "inventory").mkdir(exist_ok=True)
    (folder / "inventory" / "hosts.yaml").write_bytes(data)
    try:
        project = load_project(folder)
        names = list(project.source.hosts)[:3]
    except FleetError:
        return
    for name in names:
        try:
            render_state(project, name)
        except FleetError as error:
            str(error)


def plan(data: bytes, folder: Path) -> None:
    """A file of plans, as it is, and with the checksum that would make it good."""
    file = folder / "plan.json"
    texts = [data]
    try:
        words = wire.loads(data.decode("utf-8"))
        body = {k: words[k] for k in ("revision", "made_at", "made_by", "hosts") if k in words}
        words["checksum"] = sha256(wire.dumps(body))
        texts.append(wire.dumps(words).encode())
    except (ValueError, TypeError, RecursionError):
        pass
    for text in texts:
        file.write_bytes(text)
        file.chmod(0o600)
        try:
            plan_file.read(file)
        except FleetError as error:
            str(error)


def request(data: bytes, folder: Path) -> None:
    """A line that the helper reads from the controller, as far as the state it carries."""
    try:
        words = helper.parse(data)
    except (ValueError, TypeError):
        return
    if isinstance(words, dict):
        try:
            protocol.Session(System(), Paths(str(folder))).state_of(words)
        except Refused:
            return


def answer(data: bytes, folder: Path) -> None:
    """A line that the controller reads from a helper, and the error it may carry."""
    try:
        words = lines.parse(data, "hv1")
    except FleetError as error:
        str(error)
        return
    error = session._helper_error(words.get("error"), "hv1")
    if not isinstance(error, FleetError):
        raise TypeError(f"{error!r} is no error that fleet shows")


def records(data: bytes, folder: Path) -> None:
    """A journal: what is read of it is what had been written, up to where it was changed."""
    found, end, _, _ = journal.decode(data)
    if found and data[:end] != b"".join(_parts(found)):
        raise ValueError("records were read that are not in the file")


def _parts(found: list[dict[str, Any]]) -> list[bytes]:
    parts, previous = [journal.MAGIC], ""
    for record in found:
        part = journal.encode(previous, record)
        previous = part[4:68].decode()
        parts.append(part)
    return parts


TARGETS: dict[str, Target] = {
    "yaml": yaml_text,
    "inventory": inventory,
    "plan": plan,
    "request": request,
    "answer": answer,
    "journal": records,
}


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Return good inputs of a target, for changing."""
    if name == "yaml":
        return tuple(file.read_bytes() for file in sorted((ROOT / "inventory").glob("*.yaml")))
    if name == "inventory":
        return _inventories()
    if name == "plan":
        return (_plan(),)
    if name == "request":
        state = {"resources": [["", "sysctl", "net.ipv4.ip_forward", {"value": "1"}]]}
        return (json.dumps({"id": 1, "op": "plan", "state": state}).encode(),)
    if name == "answer":
        error = {"code": "failed", "message": "br0 is busy", "problems": [{"message": "x"}]}
        return (
            json.dumps({"id": 1, "ok": False, "error": error}).encode(),
            json.dumps({"id": 1, "event": "step", "of": 3, "at": 1}).encode(),
        )
    states = ("PREPARED", "ARMED", "APPLYING", "APPLIED", "CONFIRMED")
    return (b"".join(_parts([{"state": each, "at": 1.5} for each in states])) + bytes(200),)


def _plan() -> bytes:
    empty = encode(Plan(changes=(), digest="0" * 64))
    hosts = {"hv1": {"state": "0" * 64, "plan": empty}}
    body = {"revision": "", "made_at": 1.0, "made_by": "root@hv1", "hosts": hosts}
    checksum = sha256(wire.dumps(body))
    words = {"format": plan_file.FORMAT, "version": plan_file.VERSION, "checksum": checksum}
    return wire.dumps({**words, **body}).encode()


def _inventories() -> tuple[bytes, ...]:
    return (
        b"hv1:\n  hostname: 198.18.0.1\n  data:\n    network:\n"
        b"      ethernets: {eno1: {mtu: 9000}}\n"
        b"      bridges:\n        br0:\n          interfaces: [eno1]\n"
        b'          addresses: ["{{ host.hostname }}/24"]\n'
        b"          routes: [{to: default, via: 198.18.0.254}]\n"
        b"          parameters: {stp: yes, forward-delay: 4}\n"
        b"    sysctl: {net.ipv4.ip_forward: 1}\n",
        b"hv1: &a\n  data: {network: {taps: {t0: {owner: root}}, vlans: {v: {id: 5, link: e}}}}\n"
        b"hv2: *a\n",
    )


def changed(name: str, chance: random.Random) -> bytes:
    """Return a good input of a target after a few random changes."""
    data = bytearray(chance.choice(seeds(name)))
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        start = chance.randrange(len(data) + 1)
        stop = min(len(data), start + chance.choice((0, 0, 1, 1, 4, 20)))
        kind = chance.randrange(4)
        if kind == 0:
            data[start:stop] = chance.choice(WORDS)
        elif kind == 1:
            data[start:stop] = chance.randbytes(stop - start or 1)
        elif kind == 2:
            other = chance.randrange(len(data) + 1)
            data[start:start] = data[other : other + chance.randrange(40)]
        else:
            del data[start:stop]
    return bytes(data)
