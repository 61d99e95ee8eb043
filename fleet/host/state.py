"""The state of one host, as it comes over the wire."""

from __future__ import annotations

from fleet.host.change import Resource
from fleet.host.spec import decode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@spec
class Management:
    """How operators reach the host: its addresses (no prefix length) and, where known, the NIC."""

    addresses: tuple[str, ...] = ()
    device: str | None = None


@spec
class State:
    """All resources one host should have, and what the plan has to mind while making them so.

    ``ignore`` holds patterns of device names that are never reported as unmanaged; ``probes`` is
    for the transaction's checks and means nothing to a plan.
    """

    host: str = ""
    resources: tuple[Resource, ...] = ()
    management: Management = Management()
    ignore: tuple[str, ...] = ()
    probes: dict[str, Any] = None  # type: ignore[assignment]


def decode_state(data: dict[str, Any]) -> State:
    """Build a State from the wire's plain data; raises TypeError on a key that is not a field."""
    known = {name: data[name] for name in data if data[name] is not None}
    return decode(State, known)
