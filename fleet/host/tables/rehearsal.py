"""Tries rules on a copy of the management path before the host gets them.

``nft -c`` accepts a ruleset that locks you out. So the host's whole ruleset, with the tables of
intent in their new form, is loaded into a namespace of the moment that has the management devices'
names and addresses, and a second namespace plays the controller: it opens the same connection.
"""

from __future__ import annotations

import os

from fleet.host.kernel.scratch import Scratch
from fleet.host.kernel.system import CommandError
from fleet.host.tables import ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System

IP = "/usr/sbin/ip"
SSH_PORT = 22
#: Seconds a handshake on one machine may take; a dropped SYN is sent again after one second.
PATIENCE = 1.5
PEER = "fleet-peer"


def rehearse(observation: Observation, replaced: dict[str, str]) -> str:
    """Return why management would be cut off, an empty string if it would not.

    ``replaced`` holds the new rules by ``family/table``. Without a management address on the host
    there is nothing to rehearse.
    """
    for entry in observation.management:
        device = entry["dev"]
        if device is None or device not in observation.links:
            continue
        with Scratch() as host, Scratch() as peer:
            said = _rehearse_one(observation, host, peer, entry, replaced)
        if said:
            return said
    return ""


def _rehearse_one(
    observation: Observation,
    host: System,
    peer: System,
    entry: dict[str, Any],
    replaced: dict[str, str],
) -> str:
    device, address = str(entry["dev"]), str(entry["address"]).partition("/")[0]
    controller, port = controller_seen_from(address)
    _build(observation, host, peer, device, address, controller)
    if not _answers(host, peer, address, port, controller):
        return ""  # the copy does not carry a connection even without rules: it proves nothing
    _load(observation, host, replaced)
    if _answers(host, peer, address, port, controller):
        return ""
    return f"a new connection from {controller} to {address} port {port} is dropped (rehearsed)"


def controller_seen_from(address: str) -> tuple[str, int]:
    """Return the controller's address and sshd's port, as sshd told this session.

    Without a session (an audit by hand) a neighbour of the management address plays it.
    """
    told = os.environ.get("SSH_CONNECTION", "").split()
    same_family = len(told) == 4 and (":" in told[0]) == (":" in address)
    if same_family and told[0] != address and not told[0].startswith("127."):
        return told[0], int(told[3])
    if ":" in address:
        head, _, last = address.rpartition(":")
        return f"{head}:{'2' if last != '2' else '3'}", SSH_PORT
    head, _, last = address.rpartition(".")
    return f"{head}.{(int(last) % 253) + 1}", SSH_PORT


def _build(
    observation: Observation,
    host: System,
    peer: System,
    device: str,
    address: str,
    controller: str,
) -> None:
    """Give the copy the host's device names, and a cable from the management NIC to the peer."""
    uplink = device
    if observation.links[device]["kind"] == "bridge":
        ports = [n for n, link in observation.links.items() if link["master"] == device]
        guests = observation.holders
        uplink = next((name for name in sorted(ports) if name not in guests), "fleet-uplink")
        host.run([IP, "link", "add", "name", device, "type", "bridge"])
    there = f"/proc/{peer.namespace.split('/')[2]}/ns/net"
    make = [IP, "link", "add", "name", uplink, "type", "veth", "peer", "name", PEER, "netns", there]
    host.run(make)
    if uplink != device:
        host.run([IP, "link", "set", "dev", uplink, "master", device])
    prefix = "/128" if ":" in address else "/32"
    for name in dict.fromkeys((uplink, device, "lo")):
        host.run([IP, "link", "set", "dev", name, "up"])
    host.run([IP, "address", "add", address + prefix, "dev", device, *_nodad(address)])
    host.run([IP, "route", "add", controller + prefix, "dev", device])
    peer.run([IP, "link", "set", "dev", PEER, "up"])
    peer.run([IP, "address", "add", controller + prefix, "dev", PEER, *_nodad(address)])
    peer.run([IP, "route", "add", address + prefix, "dev", PEER])


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def _load(observation: Observation, host: System, replaced: dict[str, str]) -> None:
    """Load the host's rules and the new tables; what others have and cannot load is left out."""
    wanted = [ruleset.script(name, rules) for name, rules in replaced.items()]
    others = []
    for name in ruleset.tables(observation.system):
        if name not in replaced:
            others.append(ruleset.listing(observation.system, name) or "")
    present = {line.split(": ")[1].split("@")[0] for line in _links(host)}
    for text in [*others, *wanted]:
        for device in ruleset.devices(text):
            if device not in present:
                host.run([IP, "link", "add", "name", device, "type", "bridge"])
                present.add(device)
    for text in others:
        host.run([ruleset.NFT, "-f", "-"], input=text, check=False)
    for text in wanted:
        try:
            host.run([ruleset.NFT, "-f", "-"], input=text)
        except CommandError:
            return  # meaning_of() has told already why the kernel refuses it


def _links(system: System) -> list[str]:
    return system.run([IP, "-o", "link", "show"]).out.splitlines()


def _answers(host: System, peer: System, address: str, port: int, controller: str) -> bool:
    """Say whether the controller's stand-in can open a connection and send a byte through it."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.enter():
        listener = socket.socket(family)
    with peer.enter():
        caller = socket.socket(family)
    with listener, caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        caller.settimeout(PATIENCE)
        try:
            caller.bind((controller, 0))
            caller.connect((address, port))
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                caller.sendall(b"?")
                return accepted.recv(1) == b"?"
        except OSError:
            return False
