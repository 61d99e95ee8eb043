"""Collects the changes of one resource, so that each says the same things the same way."""

from __future__ import annotations

from fleet.host.change import UPDATE, Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.change import Resource
    from fleet.host.planning.ledger import Entry


class Steps:
    """The changes of one resource that acts on one device (empty for none)."""

    def __init__(self, resource: Resource | Entry, device: str = "") -> None:
        self.resource = resource
        self.device = device
        self.changes: list[Change] = []

    def token(self, word: str, name: str | None = None) -> str:
        """Return ``word:name`` as the graph knows it in this resource's namespace."""
        text = f"{word}:{self.device if name is None else name}"
        return f"{self.resource.namespace}|{text}" if self.resource.namespace else text

    def add(
        self,
        what: str,
        before: Any,
        after: Any,
        *,
        action: str = UPDATE,
        impact: str = "none",
        reason: str = "",
        provides: Iterable[str] = (),
        requires: Iterable[str] = (),
        touches: tuple[str, ...] | None = None,
        lines: tuple[str, ...] = (),
    ) -> None:
        """Add one change; ``provides`` and ``requires`` are tokens without the namespace.

        An update or a deletion of something on a device requires that device.
        """
        needs = [self.token(*token.split(":", 1)) for token in requires]
        if self.device and action == UPDATE:
            needs.insert(0, self.token("device"))
        self.changes.append(
            Change(
                namespace=self.resource.namespace,
                kind=self.resource.kind,
                name=self.resource.name,
                action=action,
                what=what,
                before=before,
                after=after,
                impact=impact,
                reason=reason,
                provides=tuple(self.token(*token.split(":", 1)) for token in provides),
                requires=tuple(needs),
                touches=((self.device,) if self.device else ()) if touches is None else touches,
                lines=lines,
            )
        )
