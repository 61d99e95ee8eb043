"""Put back queueing disciplines, classes and filters: a side of a device at a time, and whole."""

from __future__ import annotations

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from fleet.host.kernel.traffic import (
    DELQDISC,
    NEWACTION,
    actions_of,
    goes_first,
    removal,
    request_of,
)
from fleet.host.reverting.differences import map_differences

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]


def restore_traffic(step: Step) -> None:
    """Make every side that differs anew; a filter and a class cannot be told what they were."""
    for name, (then, now) in map_differences(step.then, step.now, "traffic").items():
        device, _, side = name.rpartition("/")
        if device not in step.indexes:
            continue
        index = step.indexes[device]
        if goes_first(now or [], then or []):
            step.ask("traffic", name, DELQDISC, 0, removal, side, index)
        for record in then or ():
            _make(step, name, index, record)


def _make(step: Step, name: str, index: int, record: Record) -> None:
    exclusive = record["object"] == "filter"
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else NLM_F_REPLACE)

    def send() -> None:
        kind, message = request_of(record, index, step.indexes)
        step.netlink.request(kind, flags, message)
        actions = actions_of(record, step.indexes)
        if actions:
            # A filter that went leaves its actions for a moment: a new one with the same number
            # joins them as they are (net/sched/act_api.c, tcf_idr_check_alloc).
            step.netlink.request(NEWACTION, NLM_F_CREATE | NLM_F_REPLACE, actions)

    step.attempt("traffic", name, send)
