"""What a kind is: its spec, and how to observe, diff and apply it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    class Kind(Protocol):
        """A module of ``fleet/host/kinds``; the module itself is the kind.

        ``SPEC`` is the class of its spec. All but ``apply`` are pure functions of what they are
        given: an Observation reads lazily, and reading never writes.
        """

        SPEC: type[Any]

        def names(self, observation: Observation) -> list[str]:
            """Return the names of all resources of this kind that the host has."""
            ...

        def observe(self, observation: Observation, name: str) -> dict[str, Any] | None:
            """Return a resource as intent would write it (dashed keys), or None if absent."""
            ...

        def diff(
            self, resource: Resource, entry: Entry | None, observation: Observation
        ) -> list[Change]:
            """Return the changes that make the host's resource what its spec says.

            ``entry`` is the ledger's, None where fleet never had the resource. Raises HostError
            where the host lacks what the spec needs.
            """
            ...

        def remove(self, entry: Entry, observation: Observation) -> list[Change]:
            """Return the changes that take back a resource that intent no longer names."""
            ...

        def apply(self, system: System, change: Change) -> None:
            """Carry out one change; raises HostError or OSError and then changed nothing."""
            ...
