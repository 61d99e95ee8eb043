"""Bonds (netplan ``bonds``; Documentation/networking/bonding.rst, ip-link(8) type bond)."""

from __future__ import annotations

from fleet.host.change import CREATE, UPDATE, amended
from fleet.host.links.bridge_ports import diff_ports, ports_of
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, device_of, observe_link
from fleet.host.links.steps import Steps
from fleet.host.links.virtual import diff_virtual
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from typing import Annotated, Literal

    from fleet.host.fields import Address, Bound, DeviceName, Uint8, Uint16, Uint32

    Milliseconds = Annotated[int, Bound(0, 2147483647)]


#: bond_options.c, BOND_OPT_ARP_INTERVAL and BOND_OPT_ARP_VALIDATE: unsuppmodes.
_WITHOUT_ARP = ("802.3ad", "balance-tlb", "balance-alb")


@spec
class BondParameters:
    """netplan's parameters of a bond; times are milliseconds, ``learn-packet-interval`` seconds."""

    mode: Literal[
        "balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb",
        "balance-alb",
    ] | None = None  # fmt: skip
    lacp_rate: Literal["slow", "fast"] | None = None
    mii_monitor_interval: Milliseconds | None = None
    min_links: Uint32 | None = None
    transmit_hash_policy: (
        Literal["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"] | None
    ) = None
    ad_select: Literal["stable", "bandwidth", "count"] | None = None
    all_members_active: bool | None = None
    arp_interval: Milliseconds | None = None
    arp_ip_targets: tuple[Address, ...] | None = None
    arp_validate: Literal["none", "active", "backup", "all"] | None = None
    arp_all_targets: Literal["any", "all"] | None = None
    up_delay: Milliseconds | None = None
    down_delay: Milliseconds | None = None
    fail_over_mac_policy: Literal["none", "active", "follow"] | None = None
    gratuitous_arp: Uint8 | None = None
    packets_per_member: Uint16 | None = None
    primary_reselect_policy: Literal["always", "better", "failure"] | None = None
    resend_igmp: Uint8 | None = None
    learn_packet_interval: Annotated[int, Bound(1, 2147483647)] | None = None
    primary: DeviceName | None = None

    def __check__(self) -> None:
        """Refuse what no kernel takes (drivers/net/bonding/bond_options.c)."""
        mode = self.mode or "balance-rr"
        if self.mii_monitor_interval and self.arp_interval:
            raise ValueError("a bond is watched by mii-monitor-interval or arp-interval, not both")
        if self.arp_interval and mode in _WITHOUT_ARP:
            raise ValueError(f"mode {mode} cannot be watched by arp-interval")
        if (self.lacp_rate or self.ad_select) and mode != "802.3ad":
            raise ValueError(f"lacp-rate and ad-select are of mode 802.3ad, not {mode}")
        if self.primary and mode not in ("active-backup", "balance-tlb", "balance-alb"):
            raise ValueError(f"mode {mode} has no primary")
        if self.packets_per_member is not None and mode != "balance-rr":
            raise ValueError(f"packets-per-member is of mode balance-rr, not {mode}")
        if (self.arp_validate or "none") != "none" and mode in _WITHOUT_ARP:
            raise ValueError(f"mode {mode} cannot validate ARP")
        if len(self.arp_ip_targets or ()) > 16:
            raise ValueError("a bond has at most 16 arp-ip-targets")
        self._check_delays()

    def _check_delays(self) -> None:
        """The kernel counts delays in intervals, and rounds down what is none."""
        interval = self.mii_monitor_interval
        for name, delay in (("up-delay", self.up_delay), ("down-delay", self.down_delay)):
            if delay and not interval:
                raise ValueError(f"{name} needs a mii-monitor-interval")
            if delay and interval and delay % interval:
                raise ValueError(
                    f"{name} {delay} is no multiple of mii-monitor-interval {interval}"
                )


@spec
class Bond(Link):
    """One bond and its members."""

    interfaces: tuple[DeviceName, ...] | None = None
    parameters: BondParameters | None = None


SPEC = Bond

_VALIDATE = ("none", "active", "backup", "all")
_SELECT = ("stable", "bandwidth", "count")
_RESELECT = ("always", "better", "failure")
_MAC = ("none", "active", "follow")
#: Each parameter's name in an observation, its numbers' words, and what a new bond has
#: (drivers/net/bonding/bond_main.c, bond_check_params).
PARAMETERS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "mode": ("mode", (), "balance-rr"),
    "lacp_rate": ("ad_lacp_rate", (), "slow"),
    "ad_select": ("ad_select", _SELECT, "stable"),
    "fail_over_mac_policy": ("fail_over_mac", _MAC, "none"),
    "mii_monitor_interval": ("miimon", (), 0),
    "arp_interval": ("arp_interval", (), 0),
    "arp_ip_targets": ("arp_ip_target", (), []),
    "arp_validate": ("arp_validate", _VALIDATE, "none"),
    "arp_all_targets": ("arp_all_targets", ("any", "all"), "any"),
    "up_delay": ("updelay", (), 0),
    "down_delay": ("downdelay", (), 0),
    "min_links": ("min_links", (), 0),
    "transmit_hash_policy": ("xmit_hash_policy", (), "layer2"),
    "all_members_active": ("all_slaves_active", (), False),
    "gratuitous_arp": ("num_peer_notif", (), 1),
    "packets_per_member": ("packets_per_slave", (), 1),
    "primary_reselect_policy": ("primary_reselect", _RESELECT, "always"),
    "resend_igmp": ("resend_igmp", (), 1),
    "learn_packet_interval": ("lp_interval", (), 1),
    "primary": ("primary", (), None),
}
#: BOND_OPTFLAG_NOSLAVES or IFDOWN: what only a bond without members, or one that is down, takes.
FIXED = ("mode", "lacp_rate", "ad_select", "fail_over_mac_policy")
#: What changes no member's part.
_QUIET = ("min-links", "gratuitous-arp", "resend-igmp", "learn-packet-interval")


def names(observation: Observation) -> list[str]:
    """Return the names of all bonds."""
    return sorted(n for n, link in observation.links.items() if link["kind"] == "bond")


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a bond as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "bond":
        return None
    words = observe_link(observation, name)
    words["interfaces"] = ports_of(observation, name)
    now = _now(observation, link)
    words["parameters"] = {dashed(k): v for k, v in now.items() if v is not None}
    return words


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without what a new bond has, and without the MAC that is a member's."""
    from fleet.host.planning.lean import without

    defaults = {dashed(key): default for key, (_, _, default) in PARAMETERS.items()}
    macs = {observation.links[port]["mac"] for port in form["interfaces"]}
    mac = {"macaddress": form["macaddress"]} if form.get("macaddress") in macs else {}
    return without(form, {"parameters": defaults, "mtu": 1500, **mac})


def _now(observation: Observation, link: dict[str, Any]) -> dict[str, Any]:
    """Return a bond's parameters in intent's words; None for what its mode does not have."""
    data, found = link["data"], {}
    for key, (seen, words, default) in PARAMETERS.items():
        value = data.get(seen, default)
        if words:
            value = words[value] if isinstance(value, int) and value < len(words) else value
        elif isinstance(default, bool):
            value = bool(value)
        found[key] = value
    if isinstance(found["primary"], int):
        indexes = {other["index"]: name for name, other in observation.links.items()}
        found["primary"] = indexes.get(found["primary"])
    return found


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a bond what its spec says; another mode makes it again."""
    wanted = decode(Bond, resource.spec)
    link = observation.links.get(resource.name)
    parameters = _wanted(wanted, entry, observation)
    now = _now(observation, link) if link and link["kind"] == "bond" else {}
    _rescale(now, parameters.get("mii_monitor_interval"))
    fixed = {key: parameters.pop(key) for key in FIXED if key in parameters}
    primary = parameters.pop("primary", None)
    changes = diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="bond",
        fixed=_said(fixed),
        mutable=_said(parameters),
        now=_said(now),
        quiet=_QUIET,
        capability="bonding",
    )
    again = any(c.action == CREATE for c in changes)
    steps = Steps(resource, resource.name)
    seen = observation
    if again and link is not None:
        from fleet.host.links.without import without

        seen = without(observation, {resource.name})
    diff_ports(steps, wanted.interfaces, None if again else entry, seen)
    if primary is not None and (again or now.get("primary") != primary):
        steps.add(
            "parameters.primary",
            None if again else now.get("primary"),
            primary,
            requires=(f"device:{primary}", f"port:{resource.name}/{primary}"),
        )
    old = ((entry.spec or {}).get("parameters") or {}) if entry and not again else {}
    if primary is None and old.get("primary") and now.get("primary"):
        steps.add("parameters.primary", now["primary"], None)
    return [*(_named(change) for change in changes), *steps.changes]


def _rescale(now: dict[str, Any], interval: int | None) -> None:
    """Delays are counted in intervals (bond_fill_info): another interval makes others of them."""
    old = now.get("mii_monitor_interval")
    if old and interval is not None and interval != old:
        for key in ("up_delay", "down_delay"):
            now[key] = now[key] // old * interval


def _named(change: Change) -> Change:
    """Return a parameter's change under its name in intent; delays come after the interval."""
    if change.action != UPDATE or change.what.replace("-", "_") not in PARAMETERS:
        return change
    token = f"{change.namespace}|" * bool(change.namespace) + f"mii:{change.touches[0]}"
    new = amended(change, what=f"parameters.{change.what}")
    if change.what == "mii-monitor-interval":
        return amended(new, provides=(*change.provides, token))
    if change.what in ("up-delay", "down-delay"):
        return amended(new, requires=(*change.requires, token))
    return new


def _said(parameters: dict[str, Any]) -> dict[str, Any]:
    return {dashed(key): value for key, value in parameters.items()}


def _wanted(wanted: Bond, entry: Entry | None, observation: Observation) -> dict[str, Any]:
    """Return the named parameters, and the defaults of what a bond of fleet's has no longer."""
    data: dict[str, Any] = encode(wanted.parameters) if wanted.parameters else {}
    old = ((entry.spec or {}).get("parameters") or {}) if entry and entry.created else {}
    found = {key: data[key] for key in PARAMETERS if data.get(key) is not None}
    for key, (_, _, default) in PARAMETERS.items():
        if key not in found and old.get(key) is not None and default is not None:
            found[key] = default
    if "primary" in found:
        found["primary"] = device_of(observation, found["primary"])
    return found


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a bond that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a bond."""
    from fleet.host.links import bond_apply

    bond_apply.apply(system, change)
