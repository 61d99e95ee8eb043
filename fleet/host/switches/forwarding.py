"""What a bridge forwards by besides its database: flows, groups and meters, all as texts.

Groups and meters carry no cookie: those whose numbers intent names are fleet's. A group or meter
that is deleted takes the flows along that use it, so what is new comes before the flows and what
is gone goes after them.
"""

from __future__ import annotations

from fleet.host.switches import groups, meters, openflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    number: Any = groups.Group(text).number if part == "groups" else meters.Meter(text).number
    return int(number)
