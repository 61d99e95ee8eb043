"""The kinds fleet knows: adding one is a file in ``kinds/``, a line here and a folder of cases."""

from __future__ import annotations

import sys

from fleet.host.spec import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kind import Kind


@spec
class Entry:
    """Where a kind is written in intent, and how early its creations run among equals.

    ``device`` says that its resources are network devices, whose names share one space.
    """

    kind: str = ""
    section: str = ""
    order: int = 50
    device: bool = False


KINDS = (
    Entry("sysctl", "sysctl", 10),
    Entry("ethernet", "ethernets", 20, device=True),
    Entry("veth", "virtual-ethernets", 25, device=True),
    Entry("bridge", "bridges", 40, device=True),
    Entry("rule", "routing-policy", 80),
)

BY_NAME = {entry.kind: entry for entry in KINDS}
DEVICES = tuple(entry.kind for entry in KINDS if entry.device)
BY_SECTION = {entry.section: entry for entry in KINDS}


def load(kind: str) -> Kind:
    """Import and return the module of a kind; raises KeyError for a kind fleet does not have."""
    name = f"fleet.host.kinds.{BY_NAME[kind].kind}"
    __import__(name)
    module: Kind = sys.modules[name]
    return module
