"""Flows of a bridge of Open vSwitch, its groups and meters (ovs-ofctl(8), ovs-fields(7)).

Flows are owned by their cookies, and those without one get fleet's. What has another cookie is
somebody else's and stays; the one flow that a fresh bridge has is nobody's. Groups and meters are
owned by their numbers.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, UPDATE, HostError
from fleet.host.kernel.system import CommandError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.switches import forwarding, groups, meters, openflow, picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import Block, DeviceName

    #: What a resource is called: the bridge.
    NAME = DeviceName


@spec
class Flows:
    """A bridge's flows, groups and meters, one a line, as ovs-ofctl(8) writes them."""

    flows: Block = ""
    groups: Block | None = None
    meters: Block | None = None


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "flows"
SPEC = Flows


def names(observation: Observation) -> list[str]:
    """Return the bridges that have flows of fleet's."""
    try:
        return sorted(picture.bridges(observation))
    except HostError:
        return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a bridge's flows that carry a cookie, and its groups and meters; None for nothing."""
    try:
        now = forwarding.read(observation.system, name)
    except CommandError:
        return None
    now["flows"] = [line for line in now["flows"] if openflow.cookie_of(line)]
    return {part: "".join(f"{t}\n" for t in texts) for part, texts in now.items() if texts} or None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change where a bridge does not forward by what intent says."""
    return _diff(resource, decode(Flows, resource.spec), entry, observation)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that takes away what fleet put there."""
    if entry.name not in picture.bridges(observation):
        return []
    return _diff(entry, Flows(), entry, observation)


def _texts(words: Flows) -> dict[str, list[str]]:
    """Return the flows, groups and meters of intent, one a text; raises HostError for no such."""
    return {
        "flows": openflow.lines_of(words.flows),
        "groups": [group.text for group in groups.groups_of(words.groups or "")],
        "meters": [meter.text for meter in meters.meters_of(words.meters or "")],
    }


def _diff(
    resource: Resource | Entry, words: Flows, entry: Entry | None, observation: Observation
) -> list[Change]:
    openflow.require(observation.system, resource.key)
    name, wanted = resource.name, _texts(words)
    old = _texts(decode(Flows, entry.spec)) if entry and entry.spec else {}
    own = forwarding.numbers(wanted, old)
    try:
        gone, new = forwarding.differing(observation.system, name, wanted, own)
    except CommandError as error:
        if not _not_yet(str(error), observation, name):
            raise HostError(
                resource.key, "flows that ovs-ofctl takes", str(error), "correct the flows", "flows"
            ) from error
        # Without its ports' numbers nothing can be compared: all that is fleet's is exchanged.
        gone, new = forwarding.owned(observation.system, name, own), wanted
    gone["flows"] = _ours(resource, gone["flows"], new["flows"], own["flows"])
    steps = Steps(resource, name)
    if any(gone.values()) or any(new.values()):
        first = entry is None and not any(gone.values())
        before, after = ([t for texts in each.values() for t in texts] for each in (gone, new))
        ending = not any(wanted.values())
        steps.add(
            "" if first or ending else "flows",
            None if first else before,
            {part: texts for part, texts in new.items() if texts} if first else after,
            action=CREATE if first else DELETE if ending else UPDATE,
            impact="blip",
            touches=(name, f"openvswitch:{name}"),
            requires=tuple(f"port:{name}/{port}" for port in _ports(wanted)),
        )
    return steps.changes


def _ours(resource: Resource | Entry, gone: list[str], new: list[str], own: list[int]) -> list[str]:
    """Return which flows that are too much are fleet's; raises HostError where one that is not
    has the place of a new one."""
    flows = [openflow.Flow(text) for text in gone]
    ours = [flow for flow in flows if flow.cookie in own]
    taken = {openflow.Flow(text).place for text in new} - {flow.place for flow in ours}
    for flow in flows:
        if flow.place in taken and not openflow.is_default(flow):
            raise HostError(
                resource.key,
                "a match and priority of fleet's own",
                f"a flow of somebody else's has them: {flow.text}",
                "give the flow another priority, or take the other away by hand",
                "flows",
            )
    return [flow.text for flow in ours]


def _ports(wanted: dict[str, list[str]]) -> list[str]:
    """Return the ports that flows and buckets name: they are joined first."""
    found = []
    for line in [*wanted["flows"], *wanted["groups"]]:
        for mark in ("in_port=", "output:", "watch_port:"):
            for part in line.split(mark)[1:]:
                word = part.replace(",", " ").split()[0].strip('"') if part else ""
                if word and not word.isdigit() and not word.isupper() and word not in found:
                    found.append(word)
    return found


def _not_yet(reason: str, observation: Observation, name: str) -> bool:
    """Say whether flows cannot be compared only because the plan is yet to make what they name."""
    return name not in picture.bridges(observation) or "unknown port" in reason


def apply(system: System, change: Change) -> None:
    """Exchange what differs, the flows as one bundle; what others put there meanwhile stays."""
    if change.action == DELETE and change.name not in picture.read(system):
        return  # they went with their bridge
    gone, new = forwarding.exchanged(change)
    forwarding.put(system, change.name, new, gone)
