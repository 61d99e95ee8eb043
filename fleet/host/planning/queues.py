"""What goes with a NIC's queues, where a plan has the driver make them anew."""

from __future__ import annotations

from fleet.host import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.planning.draft import Draft

#: Other channels, and functions, which take queues of their NIC's.
_MAKES = (("ethtool", "channels"), ("sriov", "virtual-function-count"))


def see_to_queues(draft: Draft) -> None:
    """Place interrupts and packets once more: those of new queues are anywhere."""
    made = {c.touches[0] for c in draft.changes if (c.kind, c.what) in _MAKES}
    if not made:
        return
    planned = {change.key for change in draft.changes}
    for resource in draft.resources:
        if resource.kind not in ("interrupts", "steering") or resource.key in planned:
            continue
        kind: Any = registry.load(resource.kind)
        device = draft.observation.aliases.get(resource.name, resource.name)
        if device in made:
            draft.changes.append(kind.again(resource, draft.observation))
