"""Flows of a bridge of Open vSwitch (ovs-ofctl(8), ovs-fields(7)), owned by their cookies.

Flows without a cookie get fleet's. What has another cookie is somebody else's and stays; the one
flow that a fresh bridge has is nobody's.
"""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.system import CommandError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.switches import openflow, picture

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
    """A bridge's flows, one a line, as ovs-ofctl(8) writes them."""

    flows: Block = ""


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
    """Return a bridge's flows that carry a cookie, None where it has none."""
    try:
        lines = openflow.dump(observation.system, name)
    except CommandError:
        return None
    flows = [line for line in lines if openflow.cookie_of(line)]
    return {"flows": "".join(f"{line}\n" for line in flows)} if flows else None


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change where the bridge's flows do not mean what intent's mean."""
    wanted = decode(Flows, resource.spec)
    return _diff(resource, openflow.lines_of(wanted.flows), entry, observation)


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the change that takes fleet's flows away."""
    if entry.name not in picture.bridges(observation):
        return []
    return _diff(entry, [], entry, observation)


def _diff(
    resource: Resource | Entry, lines: list[str], entry: Entry | None, observation: Observation
) -> list[Change]:
    openflow.require(observation.system, resource.key)
    old = openflow.lines_of(entry.spec.get("flows", "")) if entry and entry.spec else []
    own = openflow.cookies([*lines, *old])
    steps = Steps(resource, resource.name)
    try:
        gone, new = openflow.differing(observation.system, resource.name, lines)
    except CommandError as error:
        if _not_yet(str(error), observation, resource.name):
            gone, new = [], [openflow.Flow(line) for line in lines]
        else:
            raise HostError(
                resource.key, "flows that ovs-ofctl takes", str(error), "correct the flows", "flows"
            ) from error
    ours = [flow for flow in gone if flow.cookie in own]
    taken = {flow.place for flow in new} - {flow.place for flow in ours}
    for flow in gone:
        if flow.place in taken and not openflow.is_default(flow):
            raise HostError(
                resource.key,
                "a match and priority of fleet's own",
                f"a flow of somebody else's has them: {flow.text}",
                "give the flow another priority, or take the other away by hand",
                "flows",
            )
    if ours or new:
        steps.add(
            "flows",
            [flow.text for flow in ours],
            # What is carried out is compared once more: ports may only then have their numbers.
            {"flows": [flow.text for flow in new], "all": lines, "cookies": sorted(own)},
            impact="blip",
            touches=(resource.name, f"openvswitch:{resource.name}"),
            requires=tuple(f"port:{resource.name}/{port}" for port in _ports(lines)),
        )
    return steps.changes


def _ports(lines: list[str]) -> list[str]:
    """Return the ports that flows name: they are joined first."""
    found = []
    for line in lines:
        for mark in ("in_port=", "output:"):
            for part in line.split(mark)[1:]:
                word = part.replace(",", " ").split()[0].strip('"') if part else ""
                if word and not word.isdigit() and not word.isupper() and word not in found:
                    found.append(word)
    return found


def _not_yet(reason: str, observation: Observation, name: str) -> bool:
    """Say whether flows cannot be compared only because the plan is yet to make what they name."""
    return name not in picture.bridges(observation) or "unknown port" in reason


def apply(system: System, change: Change) -> None:
    """Exchange the flows that differ as one bundle; what others put there meanwhile stays."""
    gone, new = openflow.differing(system, change.name, change.after["all"])
    own = set(change.after["cookies"])
    ours = [flow for flow in gone if flow.cookie in own]
    openflow.exchange(system, change.name, ours, [flow.text for flow in new])
