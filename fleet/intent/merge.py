"""The merge: defaults, then groups by C3 linearisation, then the host.

Mappings merge by key, scalars and lists replace, null removes. Nodes keep their places, so every
leaf of the result still says which file and line it comes from.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.errors import InventoryError
from fleet.intent.tree import NULLS, Mapping, Node, Place, Scalar


class Merger:
    """Merges layers, and remembers: hosts of the same groups share one result."""

    def __init__(self) -> None:
        self._done: dict[tuple[int, int], tuple[Node, Node, Node]] = {}

    def stack(self, layers: list[Mapping]) -> Mapping:
        """Return layers merged, the most general first; the result may be one of them."""
        result = Mapping({}, "", 0)
        for layer in layers:
            merged = self._remembered(layer, result)
            assert isinstance(merged, Mapping)
            result = merged
        return result

    def _remembered(self, high: Mapping, low: Mapping) -> Node:
        key = id(high), id(low)
        if key not in self._done:
            # The two operands are kept, for an id is unique only as long as its object lives.
            self._done[key] = high, low, overlay(high, low)
        return self._done[key][2]


def overlay(high: Node, low: Node | None) -> Node:
    """Return ``low`` with ``high`` laid over it."""
    if not isinstance(high, Mapping):
        return high
    below = low.entries if isinstance(low, Mapping) else {}
    if not below and not high.flags & NULLS:
        return high
    entries = dict(below)
    for key, value in high.entries.items():
        if isinstance(value, Scalar) and value.null:
            entries.pop(key, None)
        else:
            entries[key] = overlay(value, below.get(key))
    return Mapping(entries, high.file, high.at, high.key_at)


Parents = Callable[[str], list[tuple[str, Place]]]


class Linearisation:
    """The order of groups, as Python orders classes (C3): first-listed first, parents after."""

    def __init__(self, parents: Parents) -> None:
        """``parents`` returns the groups a group lists, each with its place, or raises KeyError."""
        self._parents = parents
        self._done: dict[str, tuple[str, ...]] = {}
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of(self, listed: list[tuple[str, Place]], owner: str) -> tuple[str, ...]:
        """Return all groups of a host or group that lists some, the winning one first.

        Raises InventoryError on an unknown group, a cycle, or an order that contradicts itself.
        """
        names = tuple(name for name, _ in listed)
        if names not in self._orders:
            self._orders[names] = self._merge(listed, owner, ())
        return self._orders[names]

    def _merge(
        self, listed: list[tuple[str, Place]], owner: str, below: tuple[str, ...]
    ) -> tuple[str, ...]:
        names = [name for name, _ in listed]
        lines = [list(self._line(name, place, below)) for name, place in listed]
        order: list[str] = []
        lines = [line for line in [*lines, names] if line]
        while lines:
            tails = {name for line in lines for name in line[1:]}
            head = next((line[0] for line in lines if line[0] not in tails), None)
            if head is None:
                stuck = ", ".join(dict.fromkeys(line[0] for line in lines))
                raise InventoryError(
                    f"the groups of {owner} contradict each other's order: {stuck}",
                    listed[0][1],
                    remedy="list them in one order everywhere, a group before the groups it is in",
                )
            order.append(head)
            lines = [line for line in (_without(line, head) for line in lines) if line]
        return tuple(order)

    def _line(self, name: str, place: Place, below: tuple[str, ...]) -> tuple[str, ...]:
        if name in below:
            way = " → ".join((*below[below.index(name) :], name))
            raise InventoryError(f"groups contain each other: {way}", place)
        if name not in self._done:
            above = self._parents(name) if name else []
            self._done[name] = (name, *self._merge(above, f"group {name}", (*below, name)))
        return self._done[name]


def _without(line: list[str], head: str) -> list[str]:
    return line[1:] if line[0] == head else line
