"""The interfaces and pins of libvirt's guests (formatdomain.html): as they run, as they will start.

A guest is somebody else's: fleet makes and deletes none, and of one it changes what intent names.
What libvirt can change while a guest runs is changed there too; the rest holds from the guest's
next start, and nothing is unplugged from a guest that runs, but for what fleet plugged in.
"""

from __future__ import annotations

from fleet.host.change import UPDATE, HostError
from fleet.host.kernel.system import CommandError
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, decode, spec
from fleet.host.virtual import (
    filters,
    guests,
    interface_words,
    networks,
    overlay,
    pinning,
    pins,
    tree,
)
from fleet.host.virtual.interface_words import Interface
from fleet.host.virtual.pinning import Pinning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change, Problem, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.facts import Facts
    from fleet.host.planning.ledger import Entry

    Tree = dict[str, Any]

if not ON_HOST:
    from fleet.host.fields import InterfaceKey, LibvirtName

    #: What a resource is called.
    NAME = LibvirtName

#: Forms of a guest, as drift names them.
LIVE, LATER = "live", "at next start"
#: How the paths of what an interface is plugged in start.
_PLACE = ("source", "@type")


@spec
class Guest:
    """What is wanted of a guest that is there."""

    #: By MAC address, or by the alias that the guest's definition gives an interface.
    interfaces: dict[InterfaceKey, Interface] | None = None
    pins: Pinning | None = None


SPEC = Guest


def names(observation: Observation) -> list[str]:
    """Return nothing: guests are somebody else's, and only those in the intent are looked at."""
    return []


def observe(observation: Observation, name: str) -> dict[str, Any] | None:
    """Return a guest's interfaces as intent may write them; None where libvirt has none such."""
    try:
        book = _read(observation, name)
    except CommandError:
        return None
    if book is None:
        return None
    here = guests.interfaces(book["config"] or book["live"])
    return {"interfaces": {mac: {"xml": tree.write(each)} for mac, each in here.items()}}


def _read(observation: Observation, name: str) -> guests.Book | None:
    book: guests.Book | None = observation.once(
        f"guest/{name}", lambda system: guests.read(system, name)
    )
    return book


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a guest what the intent says, as it runs and as it starts."""
    words = decode(Guest, resource.spec)
    if observation.namespace:
        there = f"one of the namespace {observation.namespace}"
        raise HostError(
            resource.key, "a guest of the host itself", there, "move it out of the namespace"
        )
    try:
        book = _read(observation, resource.name)
    except CommandError as error:
        raise networks.silent(resource.key, error) from error
    if book is None:
        raise HostError(
            resource.key,
            f"a guest {resource.name} that libvirt has",
            "there is none of that name",
            "define it first, or take it out of the intent: fleet makes no guests",
        )
    steps = Steps(resource)
    named = set()
    for key, each in (words.interfaces or {}).items():
        mac = guests.find(book, key)
        if not mac:
            raise HostError(
                resource.key,
                f"an interface with the alias {key}",
                "none of that alias",
                "name it by its MAC address, or give it the alias",
                f"interfaces.{key}",
            )
        named.add(mac)
        _interface(steps, key, mac, interface_words.as_tree(each), book, observation)
    if words.pins is not None:
        _pins(steps, words.pins, book, observation)
    if entry is not None:
        _let_go(steps, book, named)
    return steps.changes


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield the networks and filters that interfaces name and neither the host nor intent has."""
    observation = facts.observation
    if observation is None:
        return
    words = decode(Guest, resource.spec)
    for key, each in (words.interfaces or {}).items():
        wanted = interface_words.as_tree(each)
        network = tree.attribute(wanted, "source", "network")
        filter_ = tree.attribute(wanted, "filterref", "filter")
        try:
            if network and network not in {
                *(r.name for r in facts.of("network")),
                *observation.once("networks", networks.listing),
            }:
                yield _absent(facts, resource, f"interfaces.{key}.source", "network", network, [])
            if filter_:
                known = observation.once("nwfilters", filters.listing)
                own = {r.name: (r.spec or {})["xml"] for r in facts.of("nwfilter")}
                way, lost = filters.lacking(observation.system, filter_, known, own)
                if lost:
                    what = f"interfaces.{key}.filterref"
                    yield _absent(facts, resource, what, "nwfilter", lost, way)
        except CommandError as error:
            yield networks.silent(resource.key, error).problem


def _absent(
    facts: Facts, resource: Resource, what: str, sort: str, name: str, way: list[str]
) -> Problem:
    actual = f"neither libvirt nor the intent has {sort} {name}"
    if way:
        actual += f", which {' includes '.join(way)} includes"
    remedy = f"add {name} to libvirt.{sort}s, or correct the name"
    return facts.problem(resource, what, f"a {sort} {name}", actual, remedy)


def _interface(
    steps: Steps, key: str, mac: str, wanted: Tree, book: guests.Book, observation: Observation
) -> None:
    """Add the change of one interface, where it is not as wanted."""
    live, later = (guests.interfaces(book[form]).get(mac) for form in ("live", "config"))
    text = {"xml": tree.write(wanted)}
    if live is None and later is None:
        _plug(steps, key, wanted, text)
        return
    found: dict[str, tuple[Any, Any]] = {}
    waits: list[str] = []
    if later is not None:
        for path, have, want in tree.differences(later, overlay.overlaid(later, wanted)):
            found[f"{LATER}: {path}"] = (have, want)
    if live is not None:
        bridged = _is_bridged(observation, wanted)
        for path, have, want in tree.differences(live, overlay.overlaid(live, wanted)):
            if overlay.in_place(path, live, wanted, bridged):
                found[f"{LIVE}: {path}"] = (have, want)
            else:
                waits.append(path)
    if not found:
        return
    changed = [path for path in found if path.startswith(LIVE)]
    moved = any(path.startswith(f"{LIVE}: {word}") for path in changed for word in _PLACE)
    down = tree.attribute(wanted, "link", "state") == "down"
    cut = moved or (down and any(path.startswith(f"{LIVE}: link") for path in changed))
    # Where it has to go and cannot, its guest is better gone first: until then it stays there.
    stays = any(path.startswith(_PLACE) for path in waits)
    tap = tree.attribute(live, "target", "dev") if live is not None else ""
    impact = "drain" if stays else "blip" if cut else "none"
    steps.add(
        f"interfaces.{key}",
        {path: have for path, (have, _) in found.items()},
        {**text, "differs": {path: want for path, (_, want) in found.items()}},
        lines=tree.lines(found),
        impact=impact,
        reason=f"{', '.join(waits)}: at the guest's next start" if waits else "",
        requires=_requires(wanted),
        touches=(_token(steps), *((tap,) if tap and impact != "none" else ())),
    )


def _pins(steps: Steps, words: Pinning, book: guests.Book, observation: Observation) -> None:
    """Add the change of where a guest's threads and memory are."""
    text = book["config"] or book["live"]
    wanted = pinning.wanted(words, steps.resource.key, text, observation)
    found: dict[str, tuple[Any, Any]] = {}
    waits = False
    for form, document in ((LATER, book["config"]), (LIVE, book["live"])):
        had = guests.parts(document)
        if had is None:
            continue
        now = pins.of(had)
        for path, have, want in pins.differing(now, pins.overlaid(now, wanted)):
            if form == LIVE and path == "memory":
                waits = True
            else:
                found[f"{form}: {path}"] = (have, want)
    if found:
        steps.add(
            "pins",
            {path: have for path, (have, _) in found.items()},
            {"pins": wanted, "differs": {path: want for path, (_, want) in found.items()}},
            lines=tree.lines(found),
            reason="memory: at the guest's next start" if waits else "",
            touches=(_token(steps),),
        )


def _plug(steps: Steps, key: str, wanted: Tree, text: dict[str, Any]) -> None:
    """Add the change that gives a guest one more interface."""
    if ":" not in key or tree.child(wanted, "source") is None:
        raise HostError(
            steps.resource.key,
            "an interface that the guest has, or the source of one to give it",
            "the guest has none such, and no source is named",
            "name its source, or correct the MAC address",
            f"interfaces.{key}",
        )
    steps.add(
        f"interfaces.{key}",
        None,
        {**text, "differs": {}},
        reason="it is plugged in; to go back, the guest's own system has to let go of it",
        requires=_requires(wanted),
        touches=(_token(steps),),
    )


def _let_go(steps: Steps, book: guests.Book, named: set[str]) -> None:
    """Add the end of each interface that fleet plugged in and nobody names any more."""
    # What the guest has not let go of yet is no more in what it starts with.
    for mac, each in guests.interfaces(book["config"] or book["live"]).items():
        if mac not in named and guests.ours(each):
            live = guests.interfaces(book["live"]).get(mac)
            tap = tree.attribute(live, "target", "dev") if live is not None else ""
            steps.add(
                f"interfaces.{mac}",
                {"xml": tree.write(each)},
                None,
                impact="drain" if live is not None else "none",
                touches=(_token(steps), *((tap,) if tap else ())),
            )


def _token(steps: Steps) -> str:
    return f"guest:{steps.resource.name}"


def _requires(wanted: Tree) -> list[str]:
    """Return what an interface stands on, as the graph knows it."""
    found = [("device", tree.attribute(wanted, "source", name)) for name in ("bridge", "dev")]
    found.append(("nwfilter", tree.attribute(wanted, "filterref", "filter")))
    return [f"{sort}:{name}" for sort, name in found if name]


def _is_bridged(observation: Observation, wanted: Tree) -> bool:
    """Say whether a source is a bridge: only there can the interface of a running guest move."""
    network = tree.attribute(wanted, "source", "network")
    if not network:
        return bool(tree.attribute(wanted, "source", "bridge"))
    known = observation.once("networks", networks.listing)
    book = networks.read(observation.system, network, known)
    text = (book["running"] or book["defined"]) if book else ""
    return bool(networks.bridge_of(text))


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the end of the interfaces that fleet plugged in; the guest and the others stay."""
    try:
        book = _read(observation, entry.name)
    except CommandError as error:
        raise networks.silent(entry.key, error) from error
    if book is None:
        return []
    steps = Steps(entry)
    _let_go(steps, book, set())
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Carry out one change; raises HostError with libvirt's own reason."""
    try:
        book = guests.read(system, change.name)
        if book is None:
            there = "it is gone since the plan was made"
            raise HostError(change.key, "a guest that libvirt has", there, "plan again")
        assert change.action == UPDATE
        (_pins_of if change.what == "pins" else _interface_of)(system, change, book)
    except CommandError as error:
        raise HostError(
            change.key, "libvirt to take it", networks.reason_of(error), "", change.what
        ) from error


def _interface_of(system: System, change: Change, book: guests.Book) -> None:
    key = change.what.partition(".")[2]
    mac = guests.find(book, key)
    live, later = (guests.interfaces(book[form]) for form in ("live", "config"))
    if change.after is None:
        _define(system, change.name, book, {n: each for n, each in later.items() if n != mac})
        if mac in live:
            # It goes when the guest's own system lets it, and is no difference until then.
            guests.unplug(system, change.name, mac)
        return
    wanted = tree.parse(change.after["xml"])
    if change.before is None:
        fresh = _whole(mac, wanted)
        if book["live"]:
            guests.plug(system, change.name, fresh)
        _define(system, change.name, book, {**later, mac: fresh})
        return
    if mac in live and any(path.startswith(LIVE) for path in change.before):
        places = tuple(f"{LIVE}: {word}" for word in _PLACE)
        bridged = any(path.startswith(places) for path in change.before)
        tags = [e["tag"] for e in wanted["children"]]
        only = [tag for tag in tags if overlay.in_place(tag, live[mac], wanted, bridged)]
        guests.update(system, change.name, overlay.overlaid(live[mac], wanted, only))
    if mac in later and any(path.startswith(LATER) for path in change.before):
        done = overlay.overlaid(later[mac], wanted)
        _define(system, change.name, book, {**later, mac: done})


def _pins_of(system: System, change: Change, book: guests.Book) -> None:
    had = guests.parts(book["live"])
    if had is not None:
        now = pins.of(had)
        done = pins.overlaid(now, change.after["pins"])
        pins.pin(system, change.name, done, now, "")
    had = guests.parts(book["config"])
    if had is not None:
        done = pins.overlaid(pins.of(had), change.after["pins"])
        guests.define(system, change.name, pins.written(had, done))


def _define(system: System, name: str, book: guests.Book, wanted: dict[str, Tree]) -> None:
    had = guests.parts(book["config"])
    if had is not None:
        texts = [tree.write(each) for each in wanted.values()]
        guests.define(system, name, {**had, "interfaces": texts})


def _whole(mac: str, wanted: Tree) -> Tree:
    """Return an interface to plug in, with a mark that says who did."""
    source = tree.child(wanted, "source")
    assert source is not None
    address = tree.element("mac", address=mac)
    rest = [e for e in wanted["children"] if e["tag"] not in ("mac", "alias")]
    filled = [e for e in rest if e["attributes"] or e["children"] or e["text"]]
    model = [] if tree.child(wanted, "model") else [tree.element("model", type="virtio")]
    alias = tree.element("alias", name=guests.OURS + mac.replace(":", ""))
    made = tree.element("interface", type=overlay.type_of(source))
    return {**made, "children": [address, *filled, *model, alias]}
