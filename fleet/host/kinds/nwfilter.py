"""libvirt's network filters (formatnwfilter.html), which guests' interfaces refer to.

The intent is libvirt's own XML. What libvirt adds, reorders or leaves out is no difference. The
filters that libvirt ships are its package's.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, UPDATE, HostError
from fleet.host.kernel.system import CommandError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.virtual import filters, networks, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

if not ON_HOST:
    from fleet.host.fields import Block, LibvirtName

    #: What a resource is called.
    NAME = LibvirtName


@spec
class Filter:
    """A filter as libvirt's XML."""

    xml: Block = ""

    def __post_init__(self) -> None:
        """Refuse what is no definition of a filter; the controller alone comes here."""
        tree.expect(self.xml, "filter")


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "xml"
SPEC = Filter


def names(observation: Observation) -> list[str]:
    """Return libvirt's filters, but for those it ships."""
    try:
        return sorted({*observation.once("nwfilters", filters.listing)} - filters.STOCK)
    except CommandError:
        return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a filter as intent would write it; None where libvirt has none or is not there."""
    try:
        text = _read(observation, name)
    except CommandError:
        return None
    return None if text is None else {"xml": text}


def _read(observation: Observation, name: str) -> str | None:
    known = observation.once("nwfilters", filters.listing)
    return filters.read(observation.system, name, known)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the change that makes a filter what the intent says."""
    text = decode(Filter, resource.spec).xml
    _refuse(resource, text, observation)
    try:
        now = _read(observation, resource.name)
    except CommandError as error:
        raise networks.silent(resource.key, error) from error
    before: dict[str, Any] | None = None
    lines: tuple[str, ...] = ()
    if now is None:
        action = CREATE
        after: dict[str, Any] = {"xml": text}
    else:
        found = filters.differing(now, tree.parse(text))
        if not found:
            return []
        action, before = UPDATE, {path: have for path, have, _ in found}
        after = {"xml": text, "differs": {path: want for path, _, want in found}}
        lines = tree.lines({path: (have, want) for path, have, want in found})
    steps = Steps(resource)
    steps.add(
        "xml" if before else "",
        before,
        after,
        action=action,
        lines=lines,
        provides=(f"nwfilter:{resource.name}",),
        requires=[f"nwfilter:{name}" for name in filters.references(text)],
        touches=(f"nwfilter:{resource.name}",),
    )
    return steps.changes


def _refuse(resource: Resource, text: str, observation: Observation) -> None:
    """Raise HostError for a filter that is not the operator's to write here."""
    called = tree.parse(text)["attributes"].get("name", "")
    if observation.namespace:
        there = f"one of the namespace {observation.namespace}"
        remedy = "move it out of the namespace"
        raise HostError(resource.key, "a filter of the host itself", there, remedy)
    if called != resource.name:
        expected, actual = f"<filter name='{resource.name}'>", f"<filter name='{called}'>"
        raise HostError(resource.key, expected, actual, "give both the same name", "xml")
    if called in filters.STOCK:
        actual = f"{called} is one that libvirt ships, and its package writes anew"
        raise HostError(resource.key, "a filter of your own", actual, "give it another name")


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the end of a filter that fleet made; one that a guest uses is refused."""
    if not entry.created:
        return []
    try:
        now = _read(observation, entry.name)
        if now is None:
            return []
        known = observation.once("nwfilters", filters.listing)
        device = filters.users(observation.system, known).get(entry.name)
    except CommandError as error:
        raise networks.silent(entry.key, error) from error
    if device is not None:
        raise HostError(
            entry.key,
            "a filter that no guest uses, for libvirt deletes no other",
            f"the guest's device {device} is filtered by it",
            "keep it in the intent until what uses it has another filter",
        )
    steps = Steps(entry)
    touches = (f"nwfilter:{entry.name}",)
    steps.add("", {"xml": now}, None, action=DELETE, touches=touches)
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Carry out one change; raises HostError with libvirt's own reason."""
    try:
        now = filters.read(system, change.name)
        if change.action != DELETE:
            filters.define(system, change.after["xml"], now)
        elif now is not None:
            filters.put(system, change.name, None, now)
    except CommandError as error:
        raise HostError(
            change.key, "libvirt to take it", networks.reason_of(error), "", change.what
        ) from error
