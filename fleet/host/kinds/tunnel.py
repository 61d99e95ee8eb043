"""VXLAN tunnels (netplan ``tunnels`` with mode vxlan; ip-link(8) type vxlan, RFC 7348)."""

from __future__ import annotations

from fleet.host.change import CREATE
from fleet.host.links.link import Link
from fleet.host.links.link_diff import delete_device, device_of, observe_link
from fleet.host.links.virtual import diff_virtual
from fleet.host.spec import ON_HOST, dashed, decode, spec

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
    from typing import Annotated, Literal

    from fleet.host.fields import Bound, DeviceName, IPAddress, Port, Uint8, Uint32


@spec
class Tunnel(Link):
    """One VXLAN; ``remote`` is a unicast peer or a multicast group."""

    mode: Literal["vxlan"] = "vxlan"
    id: Annotated[int, Bound(1, 16777215)] = 1
    link: DeviceName | None = None
    local: IPAddress | None = None
    remote: IPAddress | None = None
    #: RFC 7348; the kernel's own default is 8472, which is older than the RFC.
    port: Port = 4789
    ttl: Uint8 | None = None
    type_of_service: Uint8 | None = None
    mac_learning: bool | None = None
    ageing: Annotated[int, Bound(1, 4294967295)] | None = None
    limit: Uint32 | None = None
    arp_proxy: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what vxlan_config_validate() does; the controller alone comes here."""
        ends = [end for end in (self.local, self.remote) if end]
        if len({":" in end for end in ends}) > 1:
            raise ValueError(f"local {self.local} and remote {self.remote} are of two families")
        if self.local and _is_group(self.local):
            raise ValueError(
                f"local {self.local} is a multicast group: name an address of the host"
            )
        if self.remote in ("0.0.0.0", "::"):
            raise ValueError(f"remote {self.remote} is nobody: leave it out, or name a peer")
        if self.remote and _is_group(self.remote) and not self.link:
            raise ValueError(f"remote {self.remote} is a multicast group: name the link it is on")


def _is_group(address: str) -> bool:
    return (
        address.lower().startswith("ff")
        if ":" in address
        else 224 <= int(address.partition(".")[0]) < 240
    )


SPEC = Tunnel

#: Our words, the observation's, and pyroute2's.
WORDS = {
    "id": ("id", "vxlan_id"),
    "link": ("link", "vxlan_link"),
    "local": ("local", "vxlan_local"),
    "remote": ("group", "vxlan_group"),
    "port": ("port", "vxlan_port"),
    "ttl": ("ttl", "vxlan_ttl"),
    "type_of_service": ("tos", "vxlan_tos"),
    "mac_learning": ("learning", "vxlan_learning"),
    "ageing": ("ageing", "vxlan_ageing"),
    "limit": ("limit", "vxlan_limit"),
    "arp_proxy": ("proxy", "vxlan_proxy"),
}


def names(observation: Observation) -> list[str]:
    """Return the names of all VXLANs that have a number: one that is external takes any."""
    return sorted(
        name
        for name, link in observation.links.items()
        if link["kind"] == "vxlan" and link["data"].get("id") and not link["data"].get("external")
    )


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a VXLAN as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "vxlan":
        return None
    words = {"mode": "vxlan", **_now(link["data"])}
    return {**words, **observe_link(observation, name)}


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without what a new VXLAN has."""
    from fleet.host.planning.lean import without

    six = ":" in str(form.get("remote") or form.get("local") or "")
    lower = observation.links.get(form.get("link", ""))
    mtu = lower["mtu"] - _headers(six) if lower else 1500
    return without(form, {"mtu": mtu, "mac-learning": True, "arp-proxy": False, "ageing": 300})


def _headers(six: bool) -> int:
    """vxlan_headroom(): outer IP, UDP and VXLAN headers and the inner Ethernet header."""
    return 70 if six else 50


def _now(data: dict[str, Any]) -> dict[str, Any]:
    found = {dashed(word): data.get(seen) for word, (seen, _) in WORDS.items()}
    return {word: value for word, value in found.items() if value not in (None, "", 0)} | {
        "mac-learning": bool(data.get("learning")),
        "arp-proxy": bool(data.get("proxy")),
    }


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a VXLAN what its spec says.

    vxlan_changelink() takes new attributes, but not a new id, port or limit; a changed one of those
    makes the device again. So does a changed peer, whose default FDB entry stays behind otherwise.
    """
    wanted = decode(Tunnel, resource.spec)
    fixed = {dashed(w): getattr(wanted, w) for w in WORDS if getattr(wanted, w) is not None}
    lower = device_of(observation, wanted.link) if wanted.link else None
    if lower:
        fixed["link"] = lower
    link = observation.links.get(resource.name)
    now = dict.fromkeys(fixed, 0) | _now(link["data"] if link else {})
    return diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="vxlan",
        fixed=fixed,
        mutable={},
        now=now,
        lower=lower,
    )


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield an MTU that the kernel cuts, a number that another VXLAN has, a link that is none."""
    spec, name = resource.spec or {}, resource.name
    lower = facts.device(spec.get("link") or "")
    if lower and (lower == name or facts.kind(lower) == "tun"):
        yield facts.problem(
            resource, "link", "a device that leads to the peers",
            "it is this device itself" if lower == name else f"{lower} is {facts.said(lower)}",
            "name the NIC or bridge that the peers are behind, or leave link out",
        )  # fmt: skip
        return
    carried = facts.mtu(lower) if lower else None
    six = ":" in str(spec.get("remote") or spec.get("local") or "")
    if spec.get("mtu") and carried is not None and spec["mtu"] > carried - _headers(six):
        most = carried - _headers(six)
        yield facts.problem(
            resource, "mtu",
            f"an MTU of at most {most}, what the {carried} of {lower} leave of a frame",
            str(spec["mtu"]), f"raise the mtu of {lower}, or name at most {most}",
        )  # fmt: skip
    # vxlan_vni_in_use(): one VXLAN for a number and port in a namespace.
    own = (spec.get("id", 1), spec.get("port", 4789))
    others = {n: (s.get("id", 1), s.get("port", 4789)) for n, s in facts.specs("tunnel")}
    for other, link in facts.links():
        if link["kind"] == "vxlan" and other not in others:
            others[other] = (link["data"].get("id"), link["data"].get("port"))
    for other, theirs in sorted(others.items()):
        if theirs == own and other != name and (other < name or facts.link(other)):
            yield facts.problem(
                resource, "id", f"id {own[0]} at port {own[1]} for itself", f"{other} has both",
                "give one of them another id or port",
            )  # fmt: skip


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the deletion of a VXLAN that fleet made."""
    return delete_device(entry, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change of a VXLAN."""
    from fleet.host.links import link_apply

    if change.action != CREATE:
        link_apply.apply(system, change)
        return
    attributes = {WORDS[k.replace("-", "_")][1]: v for k, v in change.after.items() if k in _DASHED}
    if "vxlan_link" in attributes:
        attributes["vxlan_link"] = link_apply.index_of(system, attributes["vxlan_link"])
    for word in ("vxlan_group", "vxlan_local"):
        if ":" in str(attributes.get(word, "")):
            attributes[f"{word}6"] = attributes.pop(word)
    link_apply.make(system, change, "vxlan", **attributes)


_DASHED = {dashed(word) for word in WORDS}
