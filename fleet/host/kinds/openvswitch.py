"""Bridges of Open vSwitch (netplan ``bridges`` with ``openvswitch``; ovs-vswitchd.conf.db(5)).

What the database holds of one bridge changes in one transaction. Ports that intent does not name
and fleet did not add are somebody's, a guest's mostly, and are left alone.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.links.link import Link
from fleet.host.links.link_diff import diff_link, name_taken, observe_link
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, encode, spec
from fleet.host.switches import openflow, picture
from fleet.host.switches.words import DEFAULTS, said, wanted_picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

if not ON_HOST:
    from typing import Annotated, Literal

    from fleet.host.fields import Bound, Controller, DeviceName, Number, Text, Uint32, VlanId, Word

    #: 0 stands for frames without a tag.
    Trunk = Annotated[int, Bound(0, 4094)]
    Version = Literal[
        "OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"
    ]


@spec
class SwitchInterface:
    """One interface of a port, in ovs-vsctl(8)'s words."""

    type: Word | None = None
    options: dict[Word, Text] | None = None
    external_ids: dict[Word, Text] | None = None
    other_config: dict[Word, Text] | None = None
    mtu_request: Annotated[int, Bound(68, 65535)] | None = None
    #: Kilobits per second; bursts are kilobits.
    ingress_policing_rate: Uint32 | None = None
    ingress_policing_burst: Uint32 | None = None


@spec
class SwitchQueue:
    """One queue of a port's quality of service; ``other-config`` has its rates."""

    dscp: Annotated[int, Bound(0, 63)] | None = None
    other_config: dict[Word, Text] | None = None


@spec
class SwitchQuality:
    """How a port shares its rate among queues (table QoS)."""

    type: Word | None = None
    other_config: dict[Word, Text] | None = None
    queues: dict[Number, SwitchQueue] | None = None


@spec
class SwitchPort(SwitchInterface):
    """One port, and what its one interface is; with ``members`` it is a bond of those.

    ``external-ids`` and ``other-config`` are the port's.
    """

    tag: VlanId | None = None
    trunks: tuple[Trunk, ...] | None = None
    vlan_mode: (
        Literal["access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel"] | None
    ) = None
    members: dict[DeviceName, SwitchInterface] | None = None
    bond_mode: Literal["balance-tcp", "balance-slb", "active-backup"] | None = None
    lacp: Literal["active", "passive", "off"] | None = None
    bond_updelay: Uint32 | None = None
    bond_downdelay: Uint32 | None = None
    protected: bool | None = None
    qos: SwitchQuality | None = None


@spec
class SwitchMirror:
    """What is copied to a port or a VLAN."""

    select_all: bool | None = None
    select_src_port: tuple[DeviceName, ...] | None = None
    select_dst_port: tuple[DeviceName, ...] | None = None
    select_vlan: tuple[Trunk, ...] | None = None
    output_port: DeviceName | None = None
    output_vlan: VlanId | None = None
    snaplen: Annotated[int, Bound(14, 65535)] | None = None


@spec
class SwitchController:
    """OpenFlow controllers of a bridge (netplan, ``openvswitch.controller``)."""

    addresses: tuple[Controller, ...] | None = None
    connection_mode: Literal["in-band", "out-of-band"] | None = None


@spec
class Switch:
    """What makes a bridge one of Open vSwitch; netplan's words first, then the database's."""

    fail_mode: Literal["secure", "standalone"] | None = None
    mcast_snooping: bool | None = None
    rstp: bool | None = None
    protocols: tuple[Version, ...] | None = None
    controller: SwitchController | None = None
    external_ids: dict[Word, Text] | None = None
    other_config: dict[Word, Text] | None = None
    stp: bool | None = None
    datapath_type: Literal["system", "netdev"] | None = None
    ports: dict[DeviceName, SwitchPort] | None = None
    mirrors: dict[Word, SwitchMirror] | None = None


@spec
class SwitchBridge(Link):
    """One bridge: its ports, its part of the database, and its own device as any other."""

    interfaces: tuple[DeviceName, ...] | None = None
    openvswitch: Switch | None = None


SPEC = SwitchBridge


def _pictures(observation: Observation) -> dict[str, Words]:
    """Return all bridges of the database, none where the host has no Open vSwitch."""
    if observation.namespace:
        return {}  # the switch lives in the host's own namespace
    return picture.bridges(observation)


def names(observation: Observation) -> list[str]:
    """Return the names of all bridges of Open vSwitch."""
    try:
        return sorted(_pictures(observation))
    except HostError:
        return []


def observe(observation: Observation, name: str) -> Words | None:
    """Return a bridge as intent would write it."""
    now = _pictures(observation).get(name)
    if now is None:
        return None
    words = observe_link(observation, name) if name in observation.links else {}
    return {**words, **said(name, now)}


def lean(form: Words, observation: Observation, name: str) -> Words:
    """Return a form without the MAC and MTU that the switch gives; what somebody set is in the
    database."""
    return {key: value for key, value in form.items() if key not in ("macaddress", "mtu")}


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a bridge what its spec says; its database part is one."""
    name = resource.name
    if resource.namespace:
        raise HostError(
            resource.key,
            "a bridge in the host's own namespace",
            "Open vSwitch runs there alone",
            "move it out of the namespace",
        )
    now = _pictures(observation).get(name)
    link = observation.links.get(name)
    if now is None and link is not None:
        raise name_taken(resource, link, "a bridge of Open vSwitch")
    wanted = decode(SwitchBridge, resource.spec)
    form = wanted_picture(name, encode(wanted))
    if now is None:
        _without_the_kernel_s(form, observation)
    _pin_mac(form, wanted, now, observation)
    _forget(form, name, entry)
    steps = Steps(resource, name)
    change = picture.delta(form, now) if now is not None else _without_nothing(form)
    if now is None or change:
        _database_step(steps, change, now, observation)
    diff_link(steps, wanted, entry, observation)
    return steps.changes


def _database_step(
    steps: Steps, change: Words, now: Words | None, observation: Observation
) -> None:
    ports = change.get("ports") or {}
    known = (now or {}).get("ports") or {}
    joining = [port for port, form in ports.items() if form and port not in known]
    devices, made = _interfaces([ports[port] for port in joining], steps.device)
    gone = [known[port] for port, form in ports.items() if form is None and port in known]
    leaving = sorted({name for each in _interfaces(gone, steps.device) for name in each})
    held = [device for device in devices if (observation.links.get(device) or {}).get("master")]
    steps.add(
        "" if now is None else "openvswitch",
        None if now is None else picture.part(now, change),
        change,
        action=CREATE if now is None else "update",
        impact="blip" if devices or leaving or "datapath_type" in change else "none",
        reason="; ".join(f"{d} leaves {observation.links[d]['master']}" for d in held),
        provides=(
            *((f"device:{steps.device}",) if now is None else ()),
            *(f"port:{steps.device}/{port}" for port in joining),
            *(f"device:{device}" for device in made),
            *(f"unport:{device}" for device in leaving),
        ),
        requires=(
            *((f"absent:{steps.device}",) if now is None else ()),
            *(word for device in devices for word in (f"device:{device}", f"unport:{device}")),
        ),
        touches=(steps.device, *devices, *leaving, f"openvswitch:{steps.device}"),
    )


def _interfaces(ports: list[Words], bridge: str) -> tuple[list[str], list[str]]:
    """Return the devices of ports: those that have to be there, and those that the switch makes
    itself, which are tunnels, patches and internal ports."""
    found: tuple[list[str], list[str]] = [], []
    for form in ports:
        for name, each in form["interfaces"].items():
            found[name == bridge or bool(each.get("type"))].append(name)
    return found


def _without_nothing(form: Any) -> Any:
    """Return a picture without what it takes away, for a bridge that is not there yet."""
    if not isinstance(form, dict):
        return form
    return {key: _without_nothing(inner) for key, inner in form.items() if inner is not None}


def _without_the_kernel_s(form: Words, observation: Observation) -> None:
    """A switch that was built, or started, without the kernel's datapath has the one in user space
    only."""
    kinds = picture.datapath_types(observation.system)
    if not form.get("datapath_type") and "netdev" in kinds and "system" not in kinds:
        form["datapath_type"] = "netdev"


def _pin_mac(
    form: Words, wanted: SwitchBridge, now: Words | None, observation: Observation
) -> None:
    """A bridge has the lowest MAC of its ports unless told; what takes over the management
    address keeps the MAC that the network knows it by."""
    mac = wanted.macaddress
    carriers = {str(item["dev"]) for item in observation.management}
    known = (now or {}).get("ports", ())
    for port in form["ports"]:
        if port in carriers and port in observation.links and port not in known:
            mac = mac or observation.links[port]["mac"]
    if mac:
        form.setdefault("other_config", {}).setdefault("hwaddr", mac)


def _forget(form: Words, name: str, entry: Entry | None) -> None:
    """Add to a picture, as taken away, what fleet put there and intent names no longer."""
    if entry is None or not entry.spec:
        return
    before = {} if entry.created else wanted_picture(name, entry.before or {})
    _take_away(wanted_picture(name, entry.spec), form, before, DEFAULTS)


def _take_away(old: Words, form: Words, before: Words, defaults: Any) -> None:
    for key, value in old.items():
        if key in form:
            if isinstance(value, dict) and isinstance(form[key], dict):
                inner = before.get(key)
                nested = defaults.get(key, defaults.get("*", {}))
                _take_away(value, form[key], inner if isinstance(inner, dict) else {}, nested)
        elif key in before:
            form[key] = before[key]
        elif "*" not in defaults and key != "qos" and isinstance(value, dict):
            # A map, whose other keys are somebody else's; an entry with a name goes as a whole.
            form[key] = {}
            _take_away(value, form[key], {}, defaults.get(key, {}))
        else:
            form[key] = defaults.get(key)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a bridge that fleet created; its guests leave first."""
    now = _pictures(observation).get(entry.name)
    if now is None or not entry.created:
        return []
    steps = Steps(entry, entry.name)
    inside = _interfaces(list(now["ports"].values()), entry.name)
    ports = sorted({name for each in inside for name in each} - {entry.name})
    freed = [
        item["address"].partition("/")[0] for item in observation.addresses.get(entry.name, [])
    ]
    steps.add(
        "",
        "openvswitch",
        None,
        action=DELETE,
        impact="blip" if ports or freed else "none",
        provides=(
            f"absent:{entry.name}",
            *(f"free:{address}" for address in freed),
            *(f"unport:{port}" for port in ports),
        ),
        touches=(entry.name, *ports, f"openvswitch:{entry.name}"),
    )
    return steps.changes


def _flushes(change: Change) -> bool:
    """Say whether the switch drops all that a bridge forwards by along (vswitchd/bridge.c)."""
    return change.before is not None and not openflow.FLUSHING.isdisjoint(change.after)


def apply(system: System, change: Change) -> None:
    """Carry out one change: the database's part in one transaction, the device's as any other."""
    if change.what in ("", "openvswitch"):
        from fleet.host.switches import forwarding
        from fleet.host.switches.operations import put

        if change.action == DELETE:
            put(system, {change.name: None})
            return
        had = forwarding.read(system, change.name) if _flushes(change) else None
        put(system, {change.name: change.after})
        if had:
            lost = forwarding.missing(had, forwarding.read(system, change.name))
            forwarding.put(system, change.name, lost, {})
        return
    from fleet.host.links import link_apply

    link_apply.apply(system, change)
