"""The state of one host: all its resources, after merge, rendering and validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from fleet.host.change import Resource
from fleet.host.spec import encode
from fleet.host.state import Management
from fleet.host.wire import dumps


@dataclass(frozen=True)
class State:
    """What one host should be, and what fleet has to mind on the way there.

    ``resources`` are in the order of the registry, then by name. ``probes`` is ``{"gateway": bool,
    "targets": ["198.18.0.1:22"]}``. ``manager`` holds what is left to the host's own network
    manager, as a tree in netplan's words whose values are texts; ``files`` are the manager's files
    that a commit puts in place, text by path.
    """

    host: str
    resources: tuple[Resource, ...] = ()
    management: Management = field(default_factory=Management)
    ignore: tuple[str, ...] = ()
    probes: dict[str, Any] = field(default_factory=dict)
    manager: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """Return the state as the helper takes it, plain data."""
        words: dict[str, Any] = {
            "host": self.host,
            "resources": [encode(resource) for resource in self.resources],
            "management": encode(self.management),
            "ignore": list(self.ignore),
            "probes": self.probes,
        }
        if self.files:
            words["manager"] = {"files": self.files}
        return words

    @property
    def digest(self) -> str:
        """The SHA-256 of what the wire carries: equal states have equal digests."""
        return hashlib.sha256(dumps(self.wire()).encode()).hexdigest()
