"""Passes over the plans of namespaces: what waits for one, and what goes with one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.planning.draft import Draft
    from fleet.host.planning.ledger import Entry


def deleted_namespaces(host: Draft, ledger: dict[str, Entry]) -> set[str]:
    """Return the namespaces that intent no longer has and that fleet made: all in them goes too."""
    removed = [entry for entry in host.removals if entry.kind == "namespace" and entry.created]
    return {entry.name for entry in removed}


def forbid(draft: Draft) -> None:
    """Say that what intent has in a namespace cannot be there without it."""
    for resource in draft.resources:
        draft.problem(
            resource.key,
            f"the namespace {draft.namespace} to stay",
            "intent no longer has it",
            "keep the namespace in the intent, or take out what is in it",
        )


def wait_for_namespace(draft: Draft, host: Draft) -> None:
    """What is in a namespace that does not exist yet comes after its creation."""
    if not draft.namespace or draft.observation.exists:
        return
    token = f"namespace:{draft.namespace}"
    if draft.changes and not any(token in change.provides for change in host.changes):
        draft.problem(
            draft.changes[0].key,
            f"the namespace {draft.namespace}",
            "no such namespace",
            f"add it to the intent: namespaces: {{{draft.namespace}: {{}}}}",
        )
    for change in list(draft.changes):
        draft.amend(change, requires=(*change.requires, token))
