"""A plan in the making: one namespace's resources, what was observed, and the changes so far."""

from __future__ import annotations

from fleet.host import registry
from fleet.host.change import Change, HostError, Problem, amended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.change import Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.planning.ledger import Entry


class Draft:
    """What the passes over a plan work on; each pass may amend, add or drop changes."""

    def __init__(self, namespace: str, resources: list[Resource], observation: Observation) -> None:
        self.namespace = namespace
        self.resources = resources
        self.observation = observation
        self.removals: list[Entry] = []
        self.changes: list[Change] = []
        self.problems: list[Problem] = []
        #: The resource that stands for a device, by the kernel's name.
        self.by_device: dict[str, Resource] = {}

    def token(self, word: str, name: str) -> str:
        """Return a token as the graph knows it in this namespace."""
        return f"{self.namespace}|{word}:{name}" if self.namespace else f"{word}:{name}"

    def trying(self, function: Callable[[], list[Change]]) -> None:
        """Take what a kind answers, or the reason why it cannot."""
        try:
            self.changes += function()
        except HostError as error:
            self.problems.append(error.problem)

    def seen_by(self, resource: Resource, gone: set[str]) -> Observation:
        """Return the host as a resource sees it while devices are made again: without the others.

        One whose own attributes make it again sees itself, to delete; one that only goes with what
        it stands on does not.
        """
        if not gone:
            return self.observation
        from fleet.host.links.without import with_what_stands_on, without

        name = self.observation.aliases.get(resource.name, resource.name)
        around = with_what_stands_on(self.observation, gone - {name})
        if resource.kind not in registry.DEVICES:
            around |= gone
        return without(self.observation, around) if around else self.observation

    def made_again(self) -> set[str]:
        """Return the devices that the changes delete in order to make them again."""
        made = {c.touches[0] for c in self.changes if c.action == "create" and c.touches}
        return {name for name in self.gone() if name in made}

    def amend(self, change: Change, **fields: Any) -> Change:
        """Put an amended change in a change's place, and return it."""
        new = amended(change, **fields)
        self.changes[self._at(change)] = new
        return new

    def drop(self, change: Change) -> None:
        """Take a change out of the plan."""
        del self.changes[self._at(change)]

    def _at(self, change: Change) -> int:
        return next(index for index, other in enumerate(self.changes) if other is change)

    def spec_of(self, device: str) -> dict[str, Any]:
        """Return what intent names of a device, empty where it names none."""
        resource = self.by_device.get(device)
        return (resource.spec or {}) if resource else {}

    def of(self, what: str) -> list[Change]:
        """Return the changes of one list or attribute, of devices only."""
        return [change for change in self.changes if change.what == what and change.touches]

    def joining(self) -> dict[str, str]:
        """Return device and master of every port that joins."""
        return {
            change.touches[1]: change.touches[0]
            for change in self.of("interfaces")
            if change.after is not None
        }

    def gone(self) -> dict[str, Change]:
        """Return the devices that the plan deletes."""
        return {
            change.touches[0]: change
            for change in self.changes
            if change.action == "delete" and change.touches
        }

    def problem(
        self, resource: str, expected: str, actual: str, remedy: str, what: str = ""
    ) -> None:
        """Say why the plan cannot be carried out."""
        self.problems.append(Problem(resource, what, expected, actual, remedy))
