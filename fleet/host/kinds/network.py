"""libvirt's networks (formatnetwork.html): defined, running and started by themselves.

The intent is libvirt's own XML. libvirt says what it means: what it generates, reorders or leaves
out is no difference, and what differs is named by its path.
"""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, UPDATE, HostError
from fleet.host.kernel.system import CommandError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.virtual import networks, tree

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
class Network:
    """A network as libvirt's XML, whether it runs, and whether it starts with libvirt."""

    xml: Block = ""
    active: bool = True
    autostart: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no definition of a network; the controller alone comes here."""
        tree.expect(self.xml, "network")


#: What the whole of a resource in intent is, where it is no mapping of the fields.
SHORT = "xml"
SPEC = Network


def names(observation: Observation) -> list[str]:
    """Return libvirt's networks."""
    try:
        return sorted(observation.once("networks", networks.listing))
    except CommandError:
        return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a network as intent would write it; None where libvirt has none or is not there."""
    try:
        book = _read(observation, name)
    except CommandError:
        return None
    if book is None:
        return None
    text = book["defined"] or book["running"]
    return {"xml": text, "active": bool(book["running"]), "autostart": book["autostart"]}


def _read(observation: Observation, name: str) -> dict[str, Any] | None:
    known = observation.once("networks", networks.listing)
    return networks.read(observation.system, name, known)


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a network what the intent says, live and defined."""
    words = decode(Network, resource.spec)
    system = observation.system
    if observation.namespace:
        raise HostError(
            resource.key,
            "a network of the host itself",
            f"one of the namespace {observation.namespace}",
            "move it out of the namespace",
        )
    try:
        now = _read(observation, resource.name)
    except CommandError as error:
        raise networks.silent(resource.key, error) from error
    try:
        wanted = networks.normal(system, words.xml)
        if networks.name_of(words.xml) != resource.name:
            raise HostError(
                resource.key,
                f"<name>{resource.name}</name>",
                f"<name>{networks.name_of(words.xml)}</name>",
                "give both the same name",
                "xml",
            )
    except CommandError as error:
        raise HostError(
            resource.key,
            "a network that libvirt takes",
            networks.reason_of(error),
            "correct the XML",
            "xml",
        ) from error
    steps = Steps(resource)
    book = f"libvirt:{resource.name}"
    if now is None:
        bridge = tree.attribute(wanted, "bridge", "name")
        # Only this mode takes a bridge that is there already; the others make theirs, and what
        # was not there before goes with a revert, also where libvirt knows nothing of it.
        needs = [bridge] if tree.attribute(wanted, "forward", "mode") == "bridge" else []
        makes = (bridge,) if bridge and not needs else ()
        steps.add(
            "",
            None,
            {"xml": words.xml, "active": words.active, "autostart": words.autostart},
            action=CREATE,
            requires=tuple(f"device:{name}" for name in (*needs, *_devices(wanted)) if name),
            touches=(book, *makes),
        )
        return steps.changes
    _definition(steps, words.xml, wanted, now, observation)
    if bool(now["running"]) != words.active:
        stops = not words.active
        bridge = networks.bridge_of(now["running"] or now["defined"])
        steps.add(
            "active",
            bool(now["running"]),
            words.active,
            impact=_restart(observation, bridge) if stops else "none",
            touches=(book, *((bridge,) if bridge and stops else ())),
        )
    if now["autostart"] != words.autostart:
        steps.add("autostart", now["autostart"], words.autostart, touches=(book,))
    return steps.changes


def _devices(wanted: dict[str, Any]) -> list[str]:
    """Return the devices a network stands on: its uplink's and its pool's."""
    forward = tree.child(wanted, "forward")
    if forward is None:
        return []
    named = [forward, *forward["children"]]
    return list(dict.fromkeys(each["attributes"].get("dev", "") for each in named))


def _definition(
    steps: Steps, text: str, wanted: dict[str, Any], now: dict[str, Any], observation: Observation
) -> None:
    """Add the change of what is defined and of what runs, where either is not as wanted."""
    found: dict[str, tuple[Any, Any]] = {}
    for form in ("defined", "running"):
        if now[form] or form == "defined":
            if not now[form]:
                found[form] = (None, "defined")
                continue
            for path, have, want in networks.differing(now[form], wanted):
                found[f"{form}: {path}"] = (have, want)
    if not found:
        return
    live = any(key.startswith("running") for key in found)
    again = live and networks.updates(now["running"], wanted) is None
    bridge = networks.bridge_of(now["running"]) if again else ""
    steps.add(
        "xml",
        {key: have for key, (have, _) in found.items()},
        {"xml": text, "differs": {key: want for key, (_, want) in found.items()}},
        lines=tree.lines(found),
        impact=_restart(observation, bridge) if again else "none",
        reason="the network starts again" if again else "",
        touches=(f"libvirt:{steps.resource.name}", *((bridge,) if bridge else ())),
    )


def _restart(observation: Observation, bridge: str) -> str:
    """Return what it is to take a bridge away: guests on it lose it until they are put back."""
    ports = [link for link in observation.links.values() if bridge and link["master"] == bridge]
    return "drain" if ports else "blip"


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the end of a network that fleet made and libvirt still has."""
    if not entry.created:
        return []
    try:
        now = _read(observation, entry.name)
    except CommandError as error:
        raise networks.silent(entry.key, error) from error
    if now is None:
        return []
    bridge = networks.bridge_of(now["running"])
    steps = Steps(entry)
    steps.add(
        "",
        {"xml": now["defined"] or now["running"]},
        None,
        action=DELETE,
        impact=_restart(observation, bridge) if now["running"] else "none",
        touches=(f"libvirt:{entry.name}", *((bridge,) if bridge else ())),
    )
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Carry out one change; raises HostError with libvirt's own reason."""
    try:
        _apply(system, change)
    except CommandError as error:
        raise HostError(
            change.key, "libvirt to take it", networks.reason_of(error), "", change.what
        ) from error


def _apply(system: System, change: Change) -> None:
    name, now = change.name, networks.read(system, change.name)
    if change.action == DELETE:
        if now is not None:
            networks.take_away(system, name, now)
    elif change.action == CREATE or change.what == "xml":
        wanted = networks.normal(system, change.after["xml"])
        networks.define(system, wanted, (now["defined"] or now["running"]) if now else "")
        if change.action == UPDATE and now and now["running"]:
            networks.run(system, name, wanted, now["running"])
        if change.action == CREATE:
            _set(system, name, "autostart", change.after["autostart"])
            if change.after["active"] and not (now and now["running"]):
                _set(system, name, "active", True)
    else:
        _set(system, name, change.what, change.after)


def _set(system: System, name: str, what: str, value: bool) -> None:
    if what == "autostart":
        networks.virsh(system, "net-autostart", name, *([] if value else ["--disable"]))
    elif value:
        networks.virsh(system, "net-start", name, timeout=networks.STARTING)
    else:
        networks.virsh(system, "net-destroy", name, timeout=networks.STARTING)
