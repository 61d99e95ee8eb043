"""What the kernel refuses, said before it is asked; pure.

A kind's module may have ``unfit(resource, facts)``, which yields a problem for each thing that no
kernel takes or keeps. It is asked twice: by the controller, which knows what intent says, and by
the host's plan, which knows the host as well.
"""

from __future__ import annotations

from fleet.host import registry
from fleet.host.links import link_unfit
from fleet.host.planning.facts import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fleet.host.change import Problem
    from fleet.host.planning.draft import Draft


def unfit(facts: Facts, keys: Collection[str] | None = None) -> Iterator[Problem]:
    """Yield the problems of one namespace's resources, of those with some keys alone if given."""
    for resource in facts.resources:
        if keys is not None and resource.key not in keys:
            continue
        if resource.kind in registry.DEVICES:
            yield from link_unfit.unfit(resource, facts)
        own = getattr(registry.load(resource.kind), "unfit", None)
        if own is not None:
            yield from own(resource, facts)


def check(draft: Draft) -> None:
    """Add what the kernel would refuse of a plan; what is there already it has taken."""
    known = {problem.resource for problem in draft.problems}
    keys = {change.key for change in draft.changes} - known
    again = draft.made_again()
    gone = {name for name in draft.gone() if name not in again}
    left = {c.touches[1] for c in draft.of("interfaces") if c.after is None}
    draft.problems += unfit(Facts(draft.resources, draft.observation, gone, left), keys)
