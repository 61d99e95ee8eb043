"""Probes of a host: what worked before a change was made and has to work after it.

A probe is {"kind", "name", ...} as plain data, so that what passed before arming can be stored
and run again by the process that confirms: the default gateways answer (ICMP echo, or ARP), the
declared TCP targets accept, links that were up are up, guests' ports are still attached.
"""

from __future__ import annotations

import errno
import os
import select
import time
from _socket import (
    AF_INET,
    AF_INET6,
    AF_PACKET,
    IPPROTO_ICMP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
    htons,
    inet_pton,
    socket,
)

from fleet.host.change import DELETE
from fleet.host.transactions import fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System

    Probe = dict[str, Any]

#: Seconds one answer may take, and how often it is asked for.
PATIENCE = 1.0
TRIES = 2
_IPPROTO_ICMPV6 = 58
_ETH_P_ARP = 0x0806


def passing(observation: Observation, declared: dict[str, Any], system: System) -> list[Probe]:
    """Return the probes that pass now; ``declared`` is the state's {"gateway", "targets"}."""
    wanted = [*_links(observation), *_guests(observation)]
    if declared.get("gateway", True):
        wanted += gateways(observation)
    for target in declared.get("targets") or ():
        wanted.append({"kind": "target", "name": str(target)})
    return [probe for probe in wanted if failure(probe, observation, system) is None]


def expected_after(
    probes: list[Probe], changes: tuple[Change, ...], links: dict[str, dict[str, Any]]
) -> list[Probe]:
    """Return the probes that a plan's own changes do not do away with; links as observed."""
    gone = {device for change in changes if change.action == DELETE for device in change.touches}
    down = {c.name for c in changes if c.what == "activation-mode" and c.after == "off"}
    moved = {
        str(port)
        for change in changes
        if change.what == "interfaces"
        for port in (change.before, change.after)
        if port
    }
    # The taps of libvirt's guests are behind the guest's own token.
    taps = [(change, change.touches[1:]) for change in changes if change.kind == "guest"]
    moved |= {tap for change, names in taps for tap in names if change.after is not None}
    gone |= {tap for change, names in taps for tap in names if change.after is None}
    left = _left_by_all(links, gone | down | moved)
    kept = []
    for probe in probes:
        name = probe["name"]
        if probe["kind"] in ("link", "guest") and (name in gone or name in down):
            continue
        if probe["kind"] == "link" and name in left:
            continue
        if probe["kind"] == "gateway" and _given_up(probe, changes, gone):
            continue
        if probe["kind"] == "guest" and name in moved:
            probe = {**probe, "master": None}
        kept.append(probe)
    return kept


def _left_by_all(links: dict[str, dict[str, Any]], leaving: set[str]) -> set[str]:
    """Return the bridges and bonds of whose running ports none surely stays: they have no carrier
    of their own, and what comes instead may have none yet.
    """
    ports: dict[str, set[str]] = {}
    for name, link in links.items():
        if link["master"] and link["running"]:
            ports.setdefault(link["master"], set()).add(name)
    return {master for master, names in ports.items() if names <= leaving}


def _given_up(probe: Probe, changes: tuple[Change, ...], gone: set[str]) -> bool:
    """Whether the plan itself takes the default route to a gateway away, and makes no other."""

    def leads(route: Any) -> bool:
        return (
            isinstance(route, dict)
            and route.get("to") in ("default", "0.0.0.0/0", "::/0")
            and str(route.get("via")) == probe["name"]
        )

    routes = [change for change in changes if change.what == "routes"]
    if any(leads(change.after) for change in routes):
        return False
    return probe.get("dev") in gone or any(leads(change.before) for change in routes)


def failures(probes: list[Probe], observation: Observation, system: System) -> list[dict[str, str]]:
    """Run probes again; return a problem for each that no longer passes."""
    found = []
    for probe in probes:
        why = failure(probe, observation, system)
        if why is not None:
            found.append(
                {
                    "resource": f"{probe['kind']} {probe['name']}",
                    "what": "probe",
                    "expected": "to pass as it did before the change",
                    "actual": why,
                    "remedy": "look at what the plan changes on the way there",
                }
            )
    return found


def failure(probe: Probe, observation: Observation, system: System) -> str | None:
    """Run one probe; return why it fails, None where it passes."""
    kind = probe["kind"]
    if kind == "link":
        return _link_failure(probe, observation)
    if kind == "guest":
        return _guest_failure(probe, observation)
    with system.enter():
        if kind == "target":
            return _target_failure(probe["name"])
        return _gateway_failure(probe, observation)


def gateways(observation: Observation) -> list[Probe]:
    """Return a probe for each gateway of a default route, of whatever table."""
    found: dict[tuple[str, str], Probe] = {}
    for route in observation.routes:
        ways = [route, *(route.get("nexthops") or ())]
        if route.get("to") != "default" or route.get("type", "unicast") != "unicast":
            continue
        for way in ways:
            via, dev = way.get("via"), way.get("dev") or route.get("dev")
            if via and dev:
                found[via, dev] = {"kind": "gateway", "name": str(via), "dev": str(dev)}
    return [found[key] for key in sorted(found)]


def _links(observation: Observation) -> list[Probe]:
    return [
        {"kind": "link", "name": name}
        for name, link in sorted(observation.links.items())
        if link["up"] and link["running"] and name != "lo"
    ]


def _link_failure(probe: Probe, observation: Observation) -> str | None:
    link = observation.links.get(probe["name"])
    if link is None:
        return "there is no such device"
    if not link["up"]:
        return "it is down"
    return None if link["running"] else "it has no carrier"


def _guests(observation: Observation) -> list[Probe]:
    probes = []
    for device, holders in sorted(observation.holders.items()):
        link = observation.links.get(device)
        if link is not None and holders:
            who = [fence.identity(int(holder["pid"])) for holder in holders]
            probes.append(
                {"kind": "guest", "name": device, "master": link["master"] or "", "holders": who}
            )
    return probes


def _guest_failure(probe: Probe, observation: Observation) -> str | None:
    if not any(fence.alive(who) for who in probe["holders"]):
        return None  # the guest has gone, and took its port with it
    link = observation.links.get(probe["name"])
    if link is None:
        return "the guest runs and its port is gone"
    master, now = probe["master"], link["master"] or ""
    if master is not None and now != master:
        return f"the guest's port is attached to {now or 'nothing'}, not to {master or 'nothing'}"
    return None


def _target_failure(target: str) -> str | None:
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    family = AF_INET6 if ":" in host else AF_INET
    connection = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    try:
        try:
            connection.connect((host, int(port)))
        except BlockingIOError:
            pass
        _, writable, _ = select.select([], [connection.fileno()], [], PATIENCE)
        if not writable:
            return f"no answer within {PATIENCE:g} s"
        code = connection.getsockopt(SOL_SOCKET, SO_ERROR)
        return os.strerror(code) if code else None
    except OSError as error:
        return error.strerror or str(error)
    finally:
        connection.close()


def _gateway_failure(probe: Probe, observation: Observation) -> str | None:
    """ICMP where it passed before, ARP where only that did; the routes of now say the device."""
    address = probe["name"]
    devices = [
        str(way.get("dev") or route.get("dev"))
        for route in observation.routes
        for way in (route, *(route.get("nexthops") or ()))
        if way.get("via") == address and route.get("to") == "default"
    ]
    if not devices:
        return "no default route leads there any more"
    for _ in range(TRIES):
        for device in devices:
            if _echo(address, device):
                return None
            if ":" not in address and _arp(address, device, observation):
                return None
    return f"no answer to ICMP echo or ARP on {', '.join(devices)}"


def _checksum(data: bytes) -> int:
    data = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _echo(address: str, device: str) -> bool:
    six = ":" in address
    mark = os.urandom(8)
    body = os.getpid().to_bytes(4, "big")[2:] + b"\0\1" + mark
    head = b"\x80\0" if six else b"\x08\0"
    check = b"\0\0" if six else _checksum(head + b"\0\0" + body).to_bytes(2, "big")
    try:
        family, protocol = (AF_INET6, _IPPROTO_ICMPV6) if six else (AF_INET, IPPROTO_ICMP)
        echo = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)
    except OSError:
        return False
    try:
        index = _index(device)
        where = (address, 0, 0, index if address.startswith("fe80") else 0) if six else (address, 0)
        echo.sendto(head + check + body, where)
        return _await(echo, lambda data: mark in data)
    except OSError:
        return False
    finally:
        echo.close()


def _index(device: str) -> int:
    from _socket import if_nametoindex

    return if_nametoindex(device)


def _await(connection: Any, matches: Any) -> bool:
    end = time.monotonic() + PATIENCE / TRIES
    while True:
        ready, _, _ = select.select([connection.fileno()], [], [], max(0, end - time.monotonic()))
        if not ready:
            return False
        try:
            # An echo request to ourselves is not an answer: type 8 or 128 stands first.
            data = connection.recv(2048)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            raise
        if matches(data):
            return True


def _arp(address: str, device: str, observation: Observation) -> bool:
    """Ask who has an address (RFC 826) from the first address of the device."""
    own = [
        item["address"].partition("/")[0]
        for item in observation.addresses.get(device, ())
        if item["family"] == 4
    ]
    link = observation.links.get(device)
    if link is None or not own or not link["mac"] or len(link["mac"]) != 17:
        return False
    mac = bytes.fromhex(link["mac"].replace(":", ""))
    target = inet_pton(AF_INET, address)
    ask = b"\0\1\x08\0\x06\x04\0\1" + mac + inet_pton(AF_INET, own[0]) + bytes(6) + target
    packet = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(_ETH_P_ARP))
    try:
        packet.bind((device, _ETH_P_ARP))
        packet.sendto(ask, (device, _ETH_P_ARP, 0, 1, b"\xff" * 6))
        return _await(packet, lambda data: data[6:8] == b"\0\2" and data[14:18] == target)
    except OSError:
        return False
    finally:
        packet.close()
