"""Policy routing rules (netplan ``routing-policy``; ip-rule(8)).

A rule belongs to no device, so the controller gathers every device's ``routing-policy`` into one
resource per rule, whose name is the rule in words.
"""

from __future__ import annotations

from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from fleet.host.fields import AddressOrNetwork, Literal, Uint8, Uint32


@spec
class Rule:
    """One rule; ``from`` or ``to`` or both."""

    from_: AddressOrNetwork | None = None
    to: AddressOrNetwork | None = None
    table: Uint32 | None = None
    priority: Uint32 | None = None
    mark: Uint32 | None = None
    type_of_service: Uint8 | None = None
    family: Literal["ipv4", "ipv6"] | None = None


SPEC = Rule
