"""Makes the plan of one host: diff of every resource, what follows from it, in order."""

from __future__ import annotations

from fleet.host import registry
from fleet.host.change import Change, HostError, Plan, Problem, Resource
from fleet.host.pattern import any_matches
from fleet.host.planning import conflict, inside
from fleet.host.planning.digest import digest
from fleet.host.planning.draft import Draft
from fleet.host.planning.ledger import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.state import State

#: addrconf.c: one probe of a second after a random delay of at most one (RFC 4862, 5.4).
DUPLICATE_DETECTION = 3.0
#: What the kernel does after it has answered: operational states, carriers.
MOMENT = 2.0


def make_plan(state: State, ledger: dict[str, Entry], system: System) -> Plan:
    """Observe a host and return the plan that makes it what state says; never writes.

    What keeps the plan from being carried out is in its ``problems``.
    """
    from fleet.host.kernel.observation import Observation

    return plan_from(state, ledger, Observation(system))


def plan_from(state: State, ledger: dict[str, Entry], observation: Observation) -> Plan:
    """Return the plan of a host as observed; pure but for the observation's lazy reading."""
    _find_management(state, observation)
    drafts = _drafts(state, ledger, observation)
    deleted = inside.deleted_namespaces(drafts[0], ledger) if len(drafts) > 1 else set()
    changes: list[Change] = []
    problems: list[Problem] = []
    for draft in drafts:
        if draft.namespace in deleted:
            inside.forbid(draft)
        else:
            _fill(draft, ledger)
            inside.wait_for_namespace(draft, drafts[0])
        changes += draft.changes
        problems += draft.problems
    if changes:
        changes = _ordered(changes, problems, observation)
    named, failed = tuple(changes), tuple(problems)
    observations = {draft.namespace: draft.observation for draft in drafts}
    observations.setdefault("", observation)
    return Plan(
        named,
        digest(state, named, failed, observations),
        failed,
        _unmanaged(state, ledger, drafts),
        _settle(named, drafts),
    )


def _ordered(
    changes: list[Change], problems: list[Problem], observation: Observation
) -> list[Change]:
    """Return the changes in their order; a cycle is a problem, and they stay as they are."""
    from fleet.host.planning.graph import Cycle, order

    rank = {entry.kind: entry.order for entry in registry.KINDS}
    try:
        return order(changes, rank, _carriers(observation))
    except Cycle as error:
        problems.append(
            Problem(
                error.changes[0].key,
                error.changes[0].what,
                "an order in which the changes can be made",
                f"each waits for the next: {error}",
                "make the change in two steps",
            )
        )
        return changes


def _find_management(state: State, observation: Observation) -> None:
    """Tell the observation which devices have the addresses that operators use."""
    found = []
    for address in state.management.addresses:
        device = next(
            (
                name
                for name, items in observation.addresses.items()
                if any(item["address"].partition("/")[0] == address for item in items)
            ),
            state.management.device,
        )
        found.append({"address": address, "dev": device})
    observation.management = found


def _carriers(observation: Observation) -> set[str]:
    """Return the devices that management runs through: the address's, and what is below it."""
    devices = {str(item["dev"]) for item in observation.management if item["dev"]}
    for name, link in observation.links.items():
        if link["master"] in devices:
            devices.add(name)
    return devices


def _drafts(state: State, ledger: dict[str, Entry], observation: Observation) -> list[Draft]:
    spaces = {"": Draft("", [], observation)}
    items: list[Any] = [*state.resources, *ledger.values()]
    for item in items:
        if item.namespace not in spaces:
            other = observation.at(item.namespace)
            spaces[item.namespace] = Draft(item.namespace, [], other)
        if isinstance(item, Resource):
            spaces[item.namespace].resources.append(item)
    wanted = {resource.key for resource in state.resources}
    for key, entry in ledger.items():
        if key not in wanted:
            spaces[entry.namespace].removals.append(entry)
    return [spaces[name] for name in sorted(spaces)]


def _fill(draft: Draft, ledger: dict[str, Entry]) -> None:
    observation = draft.observation
    _refuse_unknown(draft)
    lost = _find_nics(draft)
    for resource in draft.resources:
        if resource.kind in registry.DEVICES:
            device = observation.aliases.get(resource.name, resource.name)
            draft.by_device[device] = resource
    before = len(draft.problems)
    conflict.check(draft)
    if len(draft.problems) > before:
        return
    _diff(draft, ledger, lost)
    if draft.changes or _shared(draft):
        _follow_up(draft)


def _diff(draft: Draft, ledger: dict[str, Entry], lost: set[str]) -> None:
    """Ask every kind; again where a device is made again, for all that goes with it comes back."""
    gone: set[str] = set()
    problems = list(draft.problems)
    while True:
        for resource in draft.resources:
            if resource.key not in lost:
                kind = registry.load(resource.kind)
                entry = ledger.get(resource.key)
                seen = draft.seen_by(resource, gone)
                draft.trying(lambda k=kind, r=resource, e=entry, o=seen: k.diff(r, e, o))  # type: ignore[misc]
        if draft.observation.exists:
            for entry in draft.removals:
                kind = registry.load(entry.kind)
                draft.trying(lambda k=kind, e=entry: k.remove(e, draft.observation))  # type: ignore[misc]
        again = draft.made_again()
        if again <= gone:
            break
        gone |= again
        draft.changes, draft.problems = [], list(problems)
    joining = draft.joining() if gone else {}
    leaving = draft.gone() if gone else {}
    for device in sorted(gone):
        master = draft.observation.links[device]["master"]
        known = master in draft.by_device or master in leaving
        if master and device not in joining and not known:
            draft.problem(
                draft.by_device[device].key,
                f"{master} in the intent, for {device} is made again and has to join it",
                f"no resource names {master}",
                f"add {master} to the intent, or take {device} off it first",
            )


def _shared(draft: Draft) -> bool:
    """Say whether a port has an address that intent gives its bridge: a move was interrupted."""
    for device, link in draft.observation.links.items():
        named = draft.spec_of(link["master"]).get("addresses") if link["master"] else None
        if named:
            texts = {item["address"] for item in named}
            here = draft.observation.addresses.get(device, ())
            if any(item["address"] in texts for item in here):
                return True
    return False


def _refuse_unknown(draft: Draft) -> None:
    """A state or a ledger of another version may have kinds that this helper has not."""
    items: list[Any] = [*draft.resources, *draft.removals]
    for item in items:
        if item.kind not in registry.BY_NAME:
            known = ", ".join(sorted(registry.BY_NAME))
            remedy = "use the version of fleet that this was written with, or a later one"
            draft.problem(item.key, f"a kind this helper has: {known}", item.kind, remedy)
    draft.resources = [item for item in draft.resources if item.kind in registry.BY_NAME]
    draft.removals = [item for item in draft.removals if item.kind in registry.BY_NAME]


def _find_nics(draft: Draft) -> set[str]:
    """Learn the kernel's names of NICs; return the keys of those the host lacks."""
    lost: set[str] = set()
    aliases: dict[str, str] = {}
    for resource in draft.resources:
        if resource.kind != "ethernet":
            continue
        kind: Any = registry.load("ethernet")
        try:
            device = kind.device(resource, draft.observation)
        except HostError as error:
            draft.problems.append(error.problem)
            lost.add(resource.key)
            continue
        for name in (resource.name, (resource.spec or {}).get("set_name")):
            if name and name != device:
                aliases[name] = device
    draft.observation.aliases = aliases
    return lost


def _follow_up(draft: Draft) -> None:
    """Run the passes that look at all changes together; not imported where there are none."""
    from fleet.host.planning import along, impact, moves, ports, queues, unfit

    _drop_what_goes_along(draft)
    ports.merge_ports(draft)
    ports.pin_mac(draft)
    ports.keep_mtu(draft)
    ports.wait_for_bridges(draft)
    moved = moves.move_addresses(draft)
    moves.check_management(draft)
    moves.restore_routes(draft, moved)
    along.see_to_addresses(draft, [text for _, _, text in moved.values()])
    queues.see_to_queues(draft)
    _check_devices(draft)
    unfit.check(draft)
    impact.count_guests(draft)


def _drop_what_goes_along(draft: Draft) -> None:
    """An entry on a device that the plan deletes goes with it."""
    gone = draft.gone()
    for change in list(draft.changes):
        on_device = change.kind not in registry.DEVICES and change.action == "update"
        if on_device and change.after is None and gone.keys() & set(change.touches[:1]):
            draft.drop(change)


def _check_devices(draft: Draft) -> None:
    """A change may need a device that the host has or that the plan makes, and nothing else."""
    made = {token for change in draft.changes for token in change.provides}
    gone = draft.gone()
    peers = {
        peer: name
        for name, c in gone.items()
        if c.kind == "veth"
        for peer in c.touches[1:]
        if "|" not in peer
    }
    told: set[tuple[str, str]] = set()
    for peer, name in peers.items():
        if peer in draft.by_device:
            told.add((draft.by_device[peer].key, peer))
            draft.problem(
                draft.by_device[peer].key,
                f"its peer {name} to stay",
                f"intent no longer has {gone[name].key}, and a pair goes as one",
                f"keep {name} in the intent, or take {peer} out as well",
                "peer",
            )
    for change in draft.changes:
        for token in change.requires:
            space, _, plain = token.rpartition("|")
            word, _, device = plain.partition(":")
            if space != draft.namespace:
                continue  # another namespace's own plan looks for it
            if word != "device" or token in made or (change.key, device) in told:
                continue
            if device in draft.observation.links and not {device} & {*gone, *peers}:
                continue
            told.add((change.key, device))
            lost = gone.get(device) or gone.get(peers.get(device, ""))
            why = f"intent no longer has {lost.key}, which takes it away" if lost else ""
            draft.problem(
                change.key,
                f"the device {device}",
                why or "no such device",
                f"add {device} to the intent, or take it out of this resource",
                change.what,
            )


def allowed(plan: Plan, allow: Iterable[str]) -> tuple[Problem, ...]:
    """Return a problem for each change that cannot be undone and that nobody allowed by name."""
    from fleet.host.planning import impact

    return impact.allowed(plan.changes, allow)


def _unmanaged(state: State, ledger: dict[str, Entry], drafts: list[Draft]) -> tuple[str, ...]:
    """Return the keys of devices of fleet's kinds, and of rules, that nobody named."""
    from fleet.host.change import resource_key

    found: list[str] = []
    for draft in drafts:
        named = set(draft.by_device) | {entry.name for entry in draft.removals}
        named |= _functions(draft)
        for name, link in draft.observation.links.items():
            kind = registry.kind_of(link)
            if name == "lo" or not kind or name in named:
                continue
            if not any_matches(name, state.ignore):
                found.append(resource_key(draft.namespace, kind, name))
        rules = [resource for resource in draft.resources if resource.kind == "rule"]
        old = [entry for entry in draft.removals if entry.kind == "rule"]
        if rules or old:
            kind_of_rules: Any = registry.load("rule")
            ours = kind_of_rules.managed([*rules, *old], draft.observation)
            for name in kind_of_rules.names(draft.observation):
                if name not in ours:
                    found.append(resource_key(draft.namespace, "rule", name))
    return tuple(sorted(found))


def _functions(draft: Draft) -> set[str]:
    """Return the devices of virtual functions whose NIC's intent says how many there are."""
    wanted = [resource for resource in draft.resources if resource.kind == "sriov"]
    if not wanted:
        return set()
    kind: Any = registry.load("sriov")
    return {name for each in wanted for name in kind.devices(each, draft.observation)}


def _settle(changes: tuple[Change, ...], drafts: list[Draft]) -> float:
    """Return the seconds that verification may wait for what settles by itself."""
    if not changes:
        return 0.0
    seconds = 0.0
    waiting = {
        c.key
        for c in changes
        if c.kind not in registry.DEVICES or (c.what == "interfaces" and c.after is not None)
    }
    for draft in drafts:
        for resource in draft.resources:
            settle = getattr(registry.load(resource.kind), "settle", None)
            if resource.key in waiting and settle is not None:
                seconds = max(seconds, settle(resource, draft.observation))
    if any(_detects(change) for change in changes):
        seconds += DUPLICATE_DETECTION
    return seconds + MOMENT


def _detects(change: Change) -> bool:
    """Say whether a change adds an IPv6 address that the kernel first asks the link about."""
    if change.what != "addresses" or change.before is not None:
        return False
    if isinstance(change.after, str):
        return ":" in change.after
    return ":" in change.after["address"] and not change.after.get("moved")


def committed_entries(
    state: State, old: dict[str, Entry], plan: Plan, observation: Observation
) -> dict[str, Entry]:
    """Return the ledger after a plan was carried out; pure.

    ``observation`` is the one the plan was made from: a resource that fleet adopts is remembered
    as it was then. What intent no longer names is forgotten.
    """
    created = {change.key for change in plan.changes if change.action == "create"}
    entries: dict[str, Entry] = {}
    for resource in state.resources:
        key, known = resource.key, old.get(resource.key)
        if known is not None:
            made = known.created or key in created
            before = None if key in created else known.before
        else:
            made = key in created
            before = None if made else _before(resource, observation)
        entries[key] = Entry(
            resource.namespace, resource.kind, resource.name, resource.spec, made, before
        )
    return entries


def _before(resource: Resource, observation: Observation) -> dict[str, Any] | None:
    kind: Any = registry.load(resource.kind)
    here = observation.at(resource.namespace) if resource.namespace else observation
    original = getattr(kind, "original", None)
    if original is not None:
        found: dict[str, Any] | None = original(resource, here)
        return found
    found = kind.observe(here, here.aliases.get(resource.name, resource.name))
    return dict(found) if found else None
