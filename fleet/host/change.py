"""The words of a plan: resources, changes, problems and the plan itself."""

from __future__ import annotations

from fleet.host.spec import field_names, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Impacts in rising order. ``blip``: traffic is interrupted for a moment; ``drain``: guests must
#: leave first; ``reboot``: the host must.
IMPACTS = ("none", "blip", "drain", "reboot")

CREATE, UPDATE, DELETE = "create", "update", "delete"
#: The kind of what is no resource: a file that only the next boot will read (``lasting``).
FILE = "file"


@spec
class Resource:
    """One thing a host should have, as the controller rendered it.

    ``spec`` is plain data with Python's field names; the kind's spec class decodes it. The
    namespace of the host itself is the empty string.
    """

    namespace: str = ""
    kind: str = ""
    name: str = ""
    spec: dict[str, Any] = None  # type: ignore[assignment]

    @property
    def key(self) -> str:
        """``kind/name``, or ``namespace:kind/name`` inside a namespace."""
        return resource_key(self.namespace, self.kind, self.name)


def resource_key(namespace: str, kind: str, name: str) -> str:
    """Return how messages, the ledger and the record name a resource."""
    return f"{namespace}:{kind}/{name}" if namespace else f"{kind}/{name}"


@spec
class Change:
    """One step on one resource.

    ``what`` is the attribute's path in the intent's own words (``mtu``, ``addresses``,
    ``parameters.forward-delay``), empty for the resource itself. For a list each entry is a change
    of its own: ``before`` None adds ``after``, ``after`` None removes ``before``. ``provides`` and
    ``requires`` are tokens such as ``device:br0``; a required token orders this change after those
    that provide it, and means nothing where no change of the plan provides it. ``touches`` names
    the devices whose state this change alters: it is what the digest covers and a revert restores.
    ``NS|device`` is one of another namespace; ``nftables:family/table``, ``namespace:NS``,
    ``driver:ADDRESS``, ``module:NAME``, ``mount:PATH`` and ``value:/sys/...`` are no devices.
    ``takes`` names what is others' and is lost with it. ``lines`` says for people what differs
    between two texts, ``+ line`` for what comes and ``- line`` for what goes.
    """

    namespace: str = ""
    kind: str = ""
    name: str = ""
    action: str = UPDATE
    what: str = ""
    before: Any = None
    after: Any = None
    impact: str = "none"
    guests: tuple[str, ...] = ()
    reason: str = ""
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of the resource this change is a step of."""
        return resource_key(self.namespace, self.kind, self.name)


def amended(change: Change, **fields: Any) -> Change:
    """Return a change with some of its fields set anew."""
    return Change(**{**{name: getattr(change, name) for name in field_names(change)}, **fields})


@spec
class Problem:
    """Why a plan cannot be carried out: one resource, what was expected, what is, what to do."""

    resource: str = ""
    what: str = ""
    expected: str = ""
    actual: str = ""
    remedy: str = ""


@spec
class Plan:
    """The ordered changes of one host, bound by a digest to what was observed.

    ``settle`` is how many seconds the verification may wait for what settles by itself.
    ``unmanaged`` holds the keys of resources that nobody named and no ignore pattern matches.
    """

    changes: tuple[Change, ...] = ()
    digest: str = ""
    problems: tuple[Problem, ...] = ()
    unmanaged: tuple[str, ...] = ()
    settle: float = 0.0


class HostError(Exception):
    """Something on this host is not as a step needs it; the text is for the operator."""

    def __init__(
        self, resource: str, expected: str, actual: str, remedy: str = "", what: str = ""
    ) -> None:
        super().__init__(f"{resource}: expected {expected}, found {actual}")
        self.problem = Problem(resource, what, expected, actual, remedy)
