"""The VLANs that a bridge's ports and the bridge itself are in (bridge(8), vlan); pure.

A list that intent names is the whole list: any other VLAN leaves. A port whose VLANs intent does
not name keeps what it has, which for a new one is the bridge's default PVID.
"""

from __future__ import annotations

from fleet.host.kernel.bridge_vlans import PVID, UNTAGGED, runs
from fleet.host.links.link_diff import device_of
from fleet.host.spec import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from fleet.host.change import Problem, Resource
    from fleet.host.kernel.bridge_vlans import Vlans
    from fleet.host.kernel.observation import Observation
    from fleet.host.links.steps import Steps
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

#: The words of a port, and of the bridge for itself, that make a list.
LISTS = ("vlans", "pvid", "untagged")
#: The parameters that lists depend on.
VLAN_WORDS = ("vlan_filtering", "vlan_protocol", "vlan_default_pvid")
#: br_vlan_init(): the default PVID of a new bridge.
_DEFAULT = 1


def vlans_of(words: Words) -> Vlans | None:
    """Return the VLANs that words of intent mean, None where they name none.

    The PVID is one of them, and leaves untagged unless ``untagged`` says otherwise.
    """
    if all(words.get(word) is None for word in LISTS):
        return None
    pvid = words.get("pvid")
    found = dict.fromkeys(_ids(words.get("vlans") or ()), 0)
    untagged = _ids(words.get("untagged") or ())
    if pvid:
        found[pvid] = PVID
        untagged = untagged if words.get("untagged") is not None else {pvid}
    for vid in untagged:
        found[vid] = found.get(vid, 0) | UNTAGGED
    return found


def words_of(vlans: Vlans) -> Words:
    """Return VLANs as intent would write them."""
    pvid = next((vid for vid, flags in vlans.items() if flags & PVID), None)
    untagged = {vid: 0 for vid, flags in vlans.items() if flags & UNTAGGED}
    words: Words = {"vlans": _ranges({vid: 0 for vid in vlans if vid != pvid})}
    if pvid:
        words["pvid"] = pvid
    if set(untagged) != ({pvid} if pvid else set()):
        words["untagged"] = _ranges(untagged)
    return words


def without_vlans(form: Words, usual: Words) -> Words:
    """Return a form without the VLANs of a new port, and without an empty list beside a PVID."""
    own = {word: form[word] for word in LISTS if word in form}
    rest = {word: value for word, value in form.items() if word not in LISTS}
    if own == usual:
        return rest
    if own.get("pvid") and not own.get("vlans"):
        own.pop("vlans", None)
    return {**rest, **own}


def by_default(pvid: int | None) -> Vlans:
    """Return the VLANs of a new port of a bridge with a default PVID, 0 for none."""
    return {pvid: PVID | UNTAGGED} if pvid else {}


def said(vlans: Vlans) -> list[str]:
    """Return VLANs as bridge(8) shows them: ``100-199``, ``10 pvid untagged``."""
    found = []
    for first, last, flags in runs(vlans):
        text = str(first) if first == last else f"{first}-{last}"
        text += " pvid" if flags & PVID else ""
        found.append(text + (" untagged" if flags & UNTAGGED else ""))
    return found


def named_vlans(wanted: Any) -> dict[str, Vlans]:
    """Return the lists that a spec names, by port; the bridge's own under an empty name."""
    ports = {port: encode(value) for port, value in (wanted.ports or {}).items()}
    listed = {"": encode(wanted), **ports}
    found = {port: vlans_of(words) for port, words in listed.items()}
    return {port: vlans for port, vlans in found.items() if vlans is not None}


def check_vlans(words: Any) -> None:
    """Raise ValueError for an untagged VLAN that is none of the list."""
    listed = _ids(words.vlans or ()) | ({words.pvid} if words.pvid else set())
    stray = sorted(_ids(words.untagged or ()) - listed)
    if stray:
        raise ValueError(f"untagged: {stray[0]} is neither among vlans nor the pvid")


def _ids(ranges: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for text in ranges:
        low, _, high = text.partition("-")
        found |= {*range(int(low), int(high or low) + 1)}
    return found


def _ranges(vlans: Vlans) -> list[str]:
    return [str(low) if low == high else f"{low}-{high}" for low, high, _ in runs(vlans)]


def diff_vlans(
    steps: Steps,
    wanted: Any,
    entry: Entry | None,
    observation: Observation,
    joining: dict[str, str],
    leaving: list[str],
) -> None:
    """Add a change for each list that is not as named, or no longer named and fleet's."""
    named = named_vlans(wanted)
    old = _listed(entry.spec) if entry and entry.spec else {}
    if not named and not old:
        return
    bridge, was = steps.device, _listed(entry.before) if entry and entry.before else {}
    link = observation.links.get(bridge)
    parameters = encode(wanted.parameters) if wanted.parameters else {}
    data = link["data"] if link else {}
    had = data.get("vlan_default_pvid", _DEFAULT)
    default = parameters.get("vlan_default_pvid", had)
    filtering = bool(data.get("vlan_filtering"))
    for port in sorted({*named, *old}):
        device = device_of(observation, port) if port else bridge
        if device in leaving:
            continue
        member = link is not None and (not port or _is_port(observation, device, bridge))
        if not member and port and port not in joining:
            continue  # diff_flags says what is wrong with one that is no port
        have = observation.bridge_vlans.get(device, {}) if member else {}
        now = _defaulted(have, had, default) if member else by_default(default)
        target = named.get(port)
        if target is None:
            target = was.get(device if port else "", by_default(default))
        if target != now:
            _step(steps, port, device, have if member else None, target, filtering)


def _is_port(observation: Observation, device: str, bridge: str) -> bool:
    link = observation.links.get(device)
    return link is not None and link["master"] == bridge


def _listed(form: Words) -> dict[str, Vlans]:
    ports = {port: words or {} for port, words in (form.get("ports") or {}).items()}
    found = {port: vlans_of(words) for port, words in {"": form, **ports}.items()}
    return {port: vlans for port, vlans in found.items() if vlans is not None}


def _defaulted(vlans: Vlans, old: int, new: int) -> Vlans:
    """Return what a change of the default PVID makes of a list (__br_vlan_set_default_pvid)."""
    both = PVID | UNTAGGED
    if old == new or vlans.get(old) != both or new in vlans:
        return vlans
    return {**{vid: flags for vid, flags in vlans.items() if vid != old}, **by_default(new)}


def _step(
    steps: Steps, port: str, device: str, before: Vlans | None, after: Vlans, filtering: bool
) -> None:
    bridge = steps.device
    # More VLANs disturb nobody; one that goes or changes its tags does, where they are looked at.
    kept = all(after.get(vid) == flags for vid, flags in (before or {}).items())
    steps.add(
        f"ports.{port}.vlans" if port else "vlans",
        None if before is None else said(before),
        said(after),
        impact="blip" if filtering and not kept else "none",
        provides=(f"vlans:{bridge}",),
        requires=(f"vlan-default:{bridge}", *((f"port:{bridge}/{device}",) if port else ())),
        touches=(bridge, device) if port else (bridge,),
    )


def parsed(lines: Iterable[str]) -> Vlans:
    """Return the VLANs that ``said`` made a change's words of."""
    found: Vlans = {}
    for line in lines:
        text, *flags = line.split()
        value = (PVID if "pvid" in flags else 0) | (UNTAGGED if "untagged" in flags else 0)
        found.update(dict.fromkeys(_ids([text]), value))
    return found


def unfit_vlans(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield lists that a bridge without VLAN filtering would not look at, and VLANs above a bridge
    that is not in them itself."""
    spec, bridge = resource.spec or {}, resource.name
    listed, data = _listed(spec), facts.link(bridge).get("data") or {}
    filtering = (spec.get("parameters") or {}).get("vlan_filtering")
    if filtering is None and (data or facts.absent(bridge)):
        filtering = bool(data.get("vlan_filtering"))
    if filtering is False and listed:
        port = sorted(listed)[-1]
        remedy = "add vlan-filtering: true to parameters, or take the VLANs out"
        yield facts.problem(
            resource, f"ports.{port}.vlans" if port else "vlans",
            f"VLAN filtering on {bridge}", "it is off, so that nobody looks at the list", remedy,
        )  # fmt: skip
    own = listed.get("")
    if own is None and facts.absent(bridge):
        default = (spec.get("parameters") or {}).get("vlan_default_pvid", _DEFAULT)
        own = by_default(default)
    if own is None and facts.observation is not None:
        own = facts.observation.bridge_vlans.get(bridge)
    if not filtering or own is None:
        return
    for name, each in facts.specs("vlan"):
        if facts.device(each.get("link") or "") == bridge and each.get("id") not in own:
            yield facts.problem(
                resource, "vlans", f"VLAN {each['id']} among them, which {name} is above",
                ", ".join(said(own)) or "none", f"add {each['id']} to vlans of {bridge}",
            )  # fmt: skip


def words_for_networkd(words: Words) -> list[str]:
    """Return the lines of networkd's [BridgeVLAN], empty where intent names no list."""
    found = vlans_of(words)
    if found is None:
        return []
    lines = [f"VLAN={text}" for text in _ranges(found)]
    lines += [f"PVID={vid}" for vid, flags in found.items() if flags & PVID]
    untagged = {vid: 0 for vid, flags in found.items() if flags & UNTAGGED}
    return lines + [f"EgressUntagged={text}" for text in _ranges(untagged)]
