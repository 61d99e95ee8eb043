"""The order of a plan's changes: what needs what, then what disturbs least."""

from __future__ import annotations

from fleet.host.change import CREATE, DELETE, UPDATE
from fleet.host.registry import BY_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from fleet.host.change import Change


class Cycle(Exception):
    """Changes that each wait for another; ``changes`` are those that cannot be ordered."""

    def __init__(self, changes: list[Change]) -> None:
        super().__init__(" -> ".join(f"{change.key} {change.what}".strip() for change in changes))
        self.changes = changes


#: Where nothing is required: prepare first, then the few steps that interrupt close together
#: (ports in, old addresses out, routes back), then what only takes away.
_SPACE, _SYSCTL, _MADE, _SET, _UP, _ADDRESS, _PORT_OUT, _PORT, _FLAGS = range(9)
_ADDRESS_OUT, _ROUTE, _ROUTE_OUT, _ENTRY, _RULE, _RULE_OUT, _DOWN, _GONE, _RENAME = range(9, 18)
_SPACE_GONE = 18


#: The phases that the registry gives to kinds whose resources are no devices: of what makes or
#: sets one, and of a deletion.
PHASES = {
    "space": (_SPACE, _SPACE_GONE),
    "sysctl": (_SYSCTL, _SYSCTL),
    "function": (_SET, _SET),
    "entry": (_ENTRY, _ENTRY),
    "rule": (_RULE, _RULE_OUT),
    "switch": (_PORT, _GONE),
}


def phase(change: Change) -> int:
    """Return when a change runs among those that nothing else orders."""
    entry = BY_NAME.get(change.kind)
    if entry is not None and entry.phase and (not entry.device or change.action != UPDATE):
        return PHASES[entry.phase][change.action == DELETE]
    if change.action != "update":
        return _MADE if change.action == CREATE else _GONE
    word, gone = change.what.partition(".")[0], change.after is None
    if word == "activation-mode":
        return _UP if change.after == "up" else _DOWN
    both = {
        "addresses": (_ADDRESS, _ADDRESS_OUT),
        "interfaces": (_PORT, _PORT_OUT),
        "openvswitch": (_PORT, _PORT),
        "routes": (_ROUTE, _ROUTE_OUT),
        "ports": (_FLAGS, _FLAGS),
        "set-name": (_RENAME, _RENAME),
    }
    return both.get(word, (_SET, _SET))[gone]


def order(
    changes: list[Change], rank: dict[str, int], management: Collection[str] = ()
) -> list[Change]:
    """Return changes so that each comes after those that provide what it requires.

    ``rank`` is the registry's order of kinds, which breaks ties (deletions run the other way
    round). ``management`` names the devices that carry management: their ports join last and
    what follows comes first, so that the time without a way in is short. Raises Cycle.
    """
    if len(changes) < 2:
        return list(changes)
    providers: dict[str, list[int]] = {}
    for index, change in enumerate(changes):
        for token in change.provides:
            providers.setdefault(token, []).append(index)
    waiting: list[set[int]] = []
    for index, change in enumerate(changes):
        needed = {i for token in change.requires for i in providers.get(token, ()) if i != index}
        waiting.append(needed)
    keys = [_key(change, index, rank, management) for index, change in enumerate(changes)]
    followers: dict[int, list[int]] = {}
    for index, needed in enumerate(waiting):
        for before in needed:
            followers.setdefault(before, []).append(index)
    from heapq import heapify, heappop, heappush  # not needed where nothing changes

    ready = [(keys[index], index) for index, needed in enumerate(waiting) if not needed]
    heapify(ready)
    ordered: list[Change] = []
    while ready:
        _, index = heappop(ready)
        ordered.append(changes[index])
        for follower in followers.get(index, ()):
            waiting[follower].discard(index)
            if not waiting[follower]:
                heappush(ready, (keys[follower], follower))
    if len(ordered) < len(changes):
        raise Cycle(_one_cycle(changes, waiting))
    return ordered


def _key(
    change: Change, index: int, rank: dict[str, int], management: Collection[str]
) -> tuple[int, int, int, int]:
    at = phase(change)
    own = bool(management) and any(device in management for device in change.touches)
    early = own if at in (_ADDRESS_OUT, _ROUTE) else not own
    order_of_kind = rank.get(change.kind, 50)
    if at in (_GONE, _SPACE_GONE):
        order_of_kind = -order_of_kind
    return at, 0 if early else 1, order_of_kind, index


def _one_cycle(changes: list[Change], waiting: list[set[int]]) -> list[Change]:
    at = min(index for index, needed in enumerate(waiting) if needed)
    path: list[int] = []
    while at not in path:
        path.append(at)
        at = min(waiting[at])
    return [changes[index] for index in path[path.index(at) :]]
