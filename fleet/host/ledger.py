"""What fleet committed to on this host: the ledger of owned resources."""

from __future__ import annotations

from fleet.host.spec import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@spec
class Entry:
    """One owned resource, as of the last commit.

    ``spec`` is its committed spec as plain data with Python's field names. ``created`` says that
    fleet made it; otherwise fleet adopted it, and ``before`` is its form then, as
    ``Kind.observe`` gives it.
    """

    namespace: str = ""
    kind: str = ""
    name: str = ""
    spec: dict[str, Any] = None  # type: ignore[assignment]
    created: bool = False
    before: dict[str, Any] | None = None
