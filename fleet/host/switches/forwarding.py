"""What a bridge forwards by besides its database: flows, groups and meters, all as texts.

Groups and meters carry no cookie: those whose numbers intent names are fleet's. A group or meter
that is deleted takes the flows along that use it, so what is new comes before the flows and what
is gone goes after them.
"""

from __future__ import annotations

from fleet.host.kernel.system import CommandError
from fleet.host.switches import groups, meters, openflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.change import Change
    from fleet.host.kernel.system import System

    #: ``flows``, ``groups`` and ``meters``: lists of texts that ovs-ofctl takes.
    Texts = dict[str, list[str]]


def read(system: System, bridge: str) -> Texts:
    """Return all that a bridge forwards by; raises CommandError where there is no such bridge."""
    return {
        "flows": openflow.dump(system, bridge),
        "groups": [group.text for group in groups.dump(system, bridge)],
        "meters": [meter.text for meter in meters.dump(system, bridge)],
    }


def differing(
    system: System, bridge: str, wanted: Texts, own: dict[str, list[int]]
) -> tuple[Texts, Texts]:
    """Return what a bridge has too much and what it misses, as (gone, new); raises CommandError.

    ``wanted`` has no comments. ``own`` has cookies and numbers that are fleet's; flows that are
    too much are all in ``gone``, somebody else's too.
    """
    less, more = openflow.differing(system, bridge, wanted["flows"])
    gone, new = ({"flows": [flow.text for flow in side]} for side in (less, more))
    if own["groups"]:
        named = [groups.Group(text) for text in wanted["groups"]]
        sides = groups.differing(system, bridge, named, own["groups"])
        gone["groups"], new["groups"] = ([each.text for each in side] for side in sides)
    if own["meters"]:
        meant = [meters.Meter(text) for text in wanted["meters"]]
        both = meters.differing(system, bridge, meant, own["meters"])
        gone["meters"], new["meters"] = ([each.text for each in side] for side in both)
    return gone, new


def owned(system: System, bridge: str, own: dict[str, list[int]]) -> Texts:
    """Return what of fleet's a bridge has, nothing where there is no such bridge."""
    try:
        now = read(system, bridge)
    except CommandError:
        return {part: [] for part in own}
    return {part: [t for t in now[part] if number_of(part, t) in own[part]] for part in own}


def exchanged(change: Change) -> tuple[Texts, Texts]:
    """Return what a change of flows takes away and what it puts there."""
    after = change.after or []
    if isinstance(after, dict):
        after = [text for texts in after.values() for text in texts]
    return sorted_out(change.before or []), sorted_out(after)


def sorted_out(texts: list[str]) -> Texts:
    """Return texts by what they are."""
    found: Texts = {"flows": [], "groups": [], "meters": []}
    for text in texts:
        part = {"group_id": "groups", "meter": "meters"}.get(text.partition("=")[0], "flows")
        found[part].append(text)
    return found


def put(system: System, bridge: str, new: Texts, gone: Texts) -> None:
    """Put texts there and take others away; raises CommandError, and may then have done a part."""
    meters.put(system, bridge, new.get("meters", ()))
    groups.put(system, bridge, new.get("groups", ()))
    lost = [openflow.Flow(text) for text in gone.get("flows", ())]
    openflow.exchange(system, bridge, lost, new.get("flows", ()))
    groups.take_away(system, bridge, [groups.Group(t).number for t in gone.get("groups", ())])
    meters.take_away(system, bridge, [meters.Meter(t).number for t in gone.get("meters", ())])


def missing(then: Texts, now: Texts) -> Texts:
    """Return what one reading has and another has not."""
    return {part: [text for text in texts if text not in now[part]] for part, texts in then.items()}


def number_of(part: str, text: str) -> int:
    """Return what says whose a text is: a flow's cookie, a group's or a meter's number."""
    if part == "flows":
        return openflow.cookie_of(text)
    return groups.Group(text).number if part == "groups" else meters.Meter(text).number


def numbers(*several: Texts) -> dict[str, list[int]]:
    """Return the cookies and numbers of texts, by what they are."""
    parts = sorted_out([t for each in several for texts in each.values() for t in texts])
    return {part: sorted({number_of(part, t) for t in inner}) for part, inner in parts.items()}
