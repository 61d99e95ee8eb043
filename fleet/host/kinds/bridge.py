"""Linux bridges (netplan ``bridges``; bridge(8), ip-link(8) type bridge)."""

from __future__ import annotations

from fleet.host.change import CREATE, HostError
from fleet.host.links.bridge_ports import (
    PORT_DEFAULTS,
    TOPOLOGY,
    diff_flags,
    diff_ports,
    is_guest,
    ports_of,
)
from fleet.host.links.bridge_vlans import (
    LISTS,
    VLAN_WORDS,
    by_default,
    check_vlans,
    diff_vlans,
    named_vlans,
    unfit_vlans,
    without_vlans,
    words_of,
)
from fleet.host.links.link import Link
from fleet.host.links.link_diff import (
    delete_device,
    diff_link,
    mtu_tokens,
    name_taken,
    observe_link,
)
from fleet.host.links.steps import Steps
from fleet.host.links.virtual import require
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change, Problem, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from typing import Annotated

    from fleet.host.fields import (
        Bound,
        DeviceName,
        Seconds,
        Uint16,
        VlanId,
        VlanProtocol,
        VlanRange,
    )


@spec
class BridgeParameters:
    """The bridge's own settings; times are seconds."""

    stp: bool | None = None
    priority: Uint16 | None = None
    #: IEEE 802.1D-1998 table 8-3, as br_stp.c enforces while STP is on.
    forward_delay: Annotated[float, Bound(0, 30)] | None = None
    hello_time: Annotated[float, Bound(1, 10)] | None = None
    max_age: Annotated[float, Bound(6, 40)] | None = None
    ageing_time: Seconds | None = None
    path_cost: dict[DeviceName, Annotated[int, Bound(1, 65535)]] | None = None
    port_priority: dict[DeviceName, Annotated[int, Bound(0, 63)]] | None = None
    #: Ours, in ip-link(8)'s words.
    multicast_snooping: bool | None = None
    group_fwd_mask: Uint16 | None = None
    vlan_filtering: bool | None = None
    vlan_protocol: VlanProtocol | None = None
    #: The PVID of a new port; 0 for none.
    vlan_default_pvid: Annotated[int, Bound(0, 4094)] | None = None

    def __post_init__(self) -> None:
        """Refuse what br_if.c does; the controller alone comes here."""
        if self.group_fwd_mask and self.group_fwd_mask & GROUP_FWD_RESTRICTED:
            raise ValueError(
                f"group-fwd-mask {self.group_fwd_mask} has one of the lowest three bits: a bridge "
                "never forwards STP's, pause and LACP's frames"
            )


@spec
class BridgePort:
    """Flags and VLANs of one port, in bridge(8)'s words."""

    isolated: bool | None = None
    learning: bool | None = None
    flood: bool | None = None
    mcast_flood: bool | None = None
    bcast_flood: bool | None = None
    hairpin: bool | None = None
    guard: bool | None = None
    root_block: bool | None = None
    fastleave: bool | None = None
    neigh_suppress: bool | None = None
    locked: bool | None = None
    cost: Annotated[int, Bound(1, 65535)] | None = None
    priority: Annotated[int, Bound(0, 63)] | None = None
    vlans: tuple[VlanRange, ...] | None = None
    pvid: VlanId | None = None
    untagged: tuple[VlanRange, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse VLANs that contradict each other; the controller alone comes here."""
        check_vlans(self)


@spec
class Bridge(Link):
    """One bridge, its ports with their flags, and the VLANs that the bridge itself is in."""

    interfaces: tuple[DeviceName, ...] | None = None
    parameters: BridgeParameters | None = None
    ports: dict[DeviceName, BridgePort] | None = None
    vlans: tuple[VlanRange, ...] | None = None
    pvid: VlanId | None = None
    untagged: tuple[VlanRange, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse VLANs that contradict each other; the controller alone comes here."""
        check_vlans(self)


SPEC = Bridge

#: net/bridge/br_private.h, BR_GROUPFWD_RESTRICTED.
GROUP_FWD_RESTRICTED = 0x7

#: net/bridge/br_device.c, br_dev_setup().
DEFAULTS = {
    "stp": False, "priority": 32768, "forward_delay": 15.0, "hello_time": 2.0, "max_age": 20.0,
    "ageing_time": 300.0, "multicast_snooping": True, "group_fwd_mask": 0,
    "vlan_filtering": False, "vlan_protocol": "802.1q", "vlan_default_pvid": 1,
}  # fmt: skip


def names(observation: Observation) -> list[str]:
    """Return the names of all bridges."""
    return sorted(n for n, link in observation.links.items() if link["kind"] == "bridge")


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a bridge as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "bridge":
        return None
    words = observe_link(observation, name)
    words["interfaces"] = ports_of(observation, name)
    words["parameters"] = {dashed(key): _value(link["data"], key) for key in DEFAULTS}
    ports = {
        port: {
            dashed(key): value
            for key, value in (observation.links[port]["port"] or {}).items()
            if key in PORT_DEFAULTS and value != PORT_DEFAULTS[key]
        }
        for port in words["interfaces"]
    }
    if link["data"].get("vlan_filtering"):
        vlans = observation.bridge_vlans
        words.update(words_of(vlans.get(name, {})))
        ports = {port: {**flags, **words_of(vlans.get(port, {}))} for port, flags in ports.items()}
    words["ports"] = {port: flags for port, flags in ports.items() if flags}
    return words


def _value(data: dict[str, Any], key: str) -> Any:
    value = data.get(key)
    return value.lower() if key == "vlan_protocol" and value else value


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a bridge's form without defaults and guests' ports, with the costs somebody set."""
    from fleet.host.pattern import any_matches
    from fleet.host.planning.lean import MADE_BY_OTHERS, attributes, nics, without

    links, own = observation.links, nics(observation)

    def ours(port: str) -> bool:
        # An end whose other end is in a namespace with a name is an operator's as well.
        known = links[port]["kind"] == "veth" and observation.peer(links[port])[1]
        known = known and not any_matches(port, MADE_BY_OTHERS)
        return port in own or bool(known) or not is_guest(observation, port)

    ports = [port for port in form["interfaces"] if ours(port)]
    form = {**form, "interfaces": ports}
    flags = {port: form["ports"][port] for port in ports if port in form["ports"]}
    speeds = attributes(observation, ports, "speed")
    for port in ports:
        cost = (links[port]["port"] or {}).get("cost")
        if cost and cost not in _costs(speeds.get(port, "")):
            flags[port] = {**flags.get(port, {}), "cost": cost}
    # br_mtu_auto_adjust(): a bridge follows the smallest of its ports.
    mtu = min((links[port]["mtu"] for port in ports_of(observation, name)), default=1500)
    defaults = {"mtu": mtu, "parameters": {dashed(key): v for key, v in DEFAULTS.items()}}
    form = {**without(form, defaults), "ports": flags}
    if not links[name]["data"].get("vlan_filtering"):
        return form
    usual = words_of(by_default(links[name]["data"].get("vlan_default_pvid")))
    flags = {port: without_vlans(flags.get(port, {}), usual) for port in ports}
    form["ports"] = {port: words for port, words in flags.items() if words}
    return without_vlans(form, usual)


def _costs(speed: str) -> tuple[int, ...]:
    """net/bridge/br_if.c, port_cost(), of old and new kernels; 100 where a port has no speed."""
    known = {"10": 100, "100": 19, "1000": 4, "2500": 4, "5000": 3, "10000": 2}
    if not speed.isdigit():
        return (1, 2, 3, 4, 5, 19, 100)
    if speed not in known:
        return (1, 2, 3, 4, 5, 19, 100) if int(speed) < 10000 else (1, 2)
    return (known[speed], 5) if speed == "1000" else (known[speed],)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a bridge what its spec says."""
    wanted = decode(Bridge, resource.spec)
    link = observation.links.get(resource.name)
    if link is not None and link["kind"] != "bridge":
        raise name_taken(resource, link, "a bridge")
    steps = Steps(resource, resource.name)
    parameters = _parameters(wanted)
    _check_timers(resource, parameters, link)
    _require_filtering(resource, wanted, parameters, link, observation)
    if link is None:
        made = {dashed(key): value for key, value in parameters.items()}
        if wanted.macaddress:
            made["macaddress"] = wanted.macaddress
        device, absent = f"device:{resource.name}", f"absent:{resource.name}"
        steps.add("", None, made, action=CREATE, provides=(device,), requires=(absent,))
    else:
        _diff_parameters(steps, parameters, entry, link)
    joining, leaving = diff_ports(steps, wanted.interfaces, entry, observation)
    old = _flags(decode(Bridge, entry.spec)) if entry and entry.spec else {}
    diff_flags(steps, _flags(wanted), old, entry, observation, joining, leaving)
    diff_vlans(steps, wanted, entry, observation, joining, leaving)
    diff_link(steps, wanted, entry, observation)
    _settle_mtu(steps, wanted, link, joining, observation)
    return steps.changes


def _parameters(wanted: Bridge) -> dict[str, Any]:
    data: dict[str, Any] = encode(wanted.parameters) if wanted.parameters else {}
    return {key: data[key] for key in DEFAULTS if key in data}


def _require_filtering(
    resource: Resource,
    wanted: Bridge,
    parameters: dict[str, Any],
    link: dict[str, Any] | None,
    observation: Observation,
) -> None:
    """Raise HostError where VLANs are named and the kernel's bridges know none."""
    asked = parameters.get("vlan_filtering") or "vlan_protocol" in parameters
    asked = asked or "vlan_default_pvid" in parameters or bool(named_vlans(wanted))
    if asked and (link is None or "vlan_default_pvid" not in link["data"]):
        require(resource, observation, "VLAN filtering of bridges", "VLANs")


def _check_timers(
    resource: Resource, parameters: dict[str, Any], link: dict[str, Any] | None
) -> None:
    """br_set_forward_delay() and br_stp_start(): while STP is on, at least 2 s and at most 30."""
    now = link["data"] if link else DEFAULTS
    delay = parameters.get("forward_delay")
    if parameters.get("stp", now["stp"]) and delay is not None and not 2 <= delay <= 30:
        raise HostError(
            resource.key,
            "a forward-delay of 2 to 30 seconds while stp is on",
            f"{delay:g}",
            "raise forward-delay or turn stp off",
            "parameters.forward-delay",
        )


def _diff_parameters(
    steps: Steps, parameters: dict[str, Any], entry: Entry | None, link: dict[str, Any]
) -> None:
    old = ((entry.spec or {}).get("parameters") or {}) if entry else {}
    for key, default in DEFAULTS.items():
        now, value = _value(link["data"], key), parameters.get(key)
        if value is None and entry and entry.created and old.get(key) is not None:
            value = default
        if value is None or value == now or (value is False and now is None):
            continue  # a kernel without VLAN filtering does none
        stp = bool(link["data"].get("stp"))
        impact = "blip" if key == "stp" or (key in TOPOLOGY and stp) else "none"
        if key == "vlan_filtering" or (key in VLAN_WORDS and link["data"].get("vlan_filtering")):
            impact = "blip"
        # STP refuses a delay that it was turned on with, and the other way round.
        order = {"forward_delay": ("delay", "off"), "stp": ("off" if not value else "on", "delay")}
        word, after = order.get(key, ("", ""))
        sets_default = key in VLAN_WORDS and key != "vlan_filtering"
        vlans = (f"vlan-default:{steps.device}",) if sets_default else ()
        steps.add(
            f"parameters.{dashed(key)}",
            now,
            value,
            impact=impact,
            provides=(f"stp-{word}:{steps.device}",) if word else vlans,
            requires=_before(key, value, steps.device, word, after),
        )


def _before(key: str, value: Any, device: str, word: str, after: str) -> tuple[str, ...]:
    """Return the tokens a parameter waits for."""
    if key == "multicast_snooping" and not value:
        return (f"no-groups:{device}",)  # br_mdb_del(): without snooping none can be taken off
    if key == "vlan_filtering" and value:
        return (f"vlan-default:{device}", f"vlans:{device}")  # else what they carry would be cut
    return (f"stp-{after}:{device}",) if word and word != "off" else ()


def _flags(wanted: Bridge) -> dict[str, dict[str, Any]]:
    """Return the named flags of every port; netplan's two mappings are flags of ports too."""
    flags: dict[str, dict[str, Any]] = {
        port: {key: v for key, v in encode(value).items() if key not in LISTS}
        for port, value in (wanted.ports or {}).items()
    }
    parameters = wanted.parameters or BridgeParameters()
    for key, values in (("cost", parameters.path_cost), ("priority", parameters.port_priority)):
        for port, value in (values or {}).items():
            flags.setdefault(port, {}).setdefault(key, value)
    return flags


def _settle_mtu(
    steps: Steps,
    wanted: Bridge,
    link: dict[str, Any] | None,
    joining: dict[str, str],
    observation: Observation,
) -> None:
    """br_mtu_auto_adjust(): until somebody sets it, a bridge's MTU follows its ports'."""
    if wanted.mtu is None:
        return
    ports = [f"port:{steps.device}/{device}" for device in joining.values()]
    if link is None:
        _, lower = mtu_tokens(steps.device, 0, wanted.mtu, observation)
        lower += [f"mtu-raised:{device}" for device in joining.values()]
        steps.add(
            "mtu",
            None,
            wanted.mtu,
            provides=(f"mtu-raised:{steps.device}",),
            requires=(*ports, *lower),
        )


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield the ports that br_add_if() refuses, and VLANs that would keep nothing apart."""
    for index, port in enumerate((resource.spec or {}).get("interfaces") or ()):
        kind = facts.kind(facts.device(port))
        if kind in ("tun", "macvtap", "loopback"):
            yield facts.problem(
                resource, f"interfaces[{index}]", "a device whose frames a bridge can take",
                f"{port} is {facts.said(facts.device(port))}", f"take {port} out of interfaces",
            )  # fmt: skip
    yield from unfit_vlans(resource, facts)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a bridge that fleet created."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a bridge."""
    from fleet.host.links import bridge_apply

    bridge_apply.apply(system, change)


def forwarding_after(link: dict[str, Any] | None, parameters: dict[str, Any]) -> float:
    """Return how many seconds a new port waits before it forwards: listening, then learning."""
    now = link["data"] if link else DEFAULTS
    if not parameters.get("stp", now.get("stp")):
        return 0.0
    delay: float = parameters.get("forward_delay", now.get("forward_delay", 15.0))
    return 2 * max(delay, 2.0)


def settle(resource: Resource, observation: Observation) -> float:
    """Return how many seconds this bridge's ports may need before they forward."""
    link = observation.links.get(resource.name)
    return forwarding_after(link, _parameters(decode(Bridge, resource.spec)))
