"""How a rollout goes: canary, waves, soak, budget, deadline; which hosts it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError

if TYPE_CHECKING:
    from nornir.core.inventory import Host, Inventory

STOP, REVERT = "stop", "revert"


@dataclass(frozen=True)
class Selection:
    """Which hosts: those named and those of the groups add up, filters and predicate narrow.

    ``filters`` are (key, value) pairs in the spelling of Nornir's F; ``nornir_filter`` is an F or
    any predicate of a host. An empty selection is every host.
    """

    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    filters: tuple[tuple[str, Any], ...] = ()
    nornir_filter: Callable[[Host], bool] | None = None

    def names(self, inventory: Inventory) -> list[str]:
        """Return the selected hosts in the inventory's order; raises UsageError for none."""
        from nornir.core.filter import F

        for noun, wanted, known in (
            ("host", self.hosts, inventory.hosts),
            ("group", self.groups, inventory.groups),
        ):
            for name in wanted:
                if name not in known:
                    raise UsageError(f"the inventory has no {noun} {name!r}")
        rules: list[Callable[[Host], bool]] = [F(**{key: value}) for key, value in self.filters]
        rules += [self.nornir_filter] if self.nornir_filter else []
        chosen = [
            name
            for name, host in inventory.hosts.items()
            if self._named(host) and all(rule(host) for rule in rules)
        ]
        if not chosen:
            raise UsageError("no host matches the selection")
        return chosen

    def _named(self, host: Host) -> bool:
        if not self.hosts and not self.groups:
            return True
        return host.name in self.hosts or any(map(host.has_parent_group, self.groups))


#: An impact, or a resource's key: kind/name, or namespace:kind/name.


@dataclass(frozen=True)
class RolloutOptions:
    """How a rollout goes.

    ``canary`` hosts first (0 for none), then ``wave`` at a time: a number as text (``"10"``), or
    a percentage of the hosts that change (``"20%"``), by default the rest at once. ``soak``
    seconds are waited, and watched, after each wave. More than ``max_failures`` failed hosts, over
    all waves, stop it. ``confirm_timeout`` is the dead-man's deadline in seconds, which a host may
    lengthen and never shortens; None takes each host's ``fleet: confirm-timeout``. ``allow`` holds
    ``drain``, ``reboot``, ``foreign`` or keys of resources. ``on_failure`` says what happens to
    hosts already committed once the budget is spent or a gate after a wave fails: ``stop`` leaves
    them, ``revert`` takes them back.
    """

    canary: int = 1
    wave: str | None = None
    soak: float = 0.0
    max_failures: int = 0
    confirm_timeout: float | None = None
    allow: tuple[str, ...] = ()
    on_failure: str = STOP
    #: Names of tasks run once after each wave's confirms, on the hosts of the wave.
    fleet_gates: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.on_failure not in (STOP, REVERT):
            raise UsageError(f"on-failure: {self.on_failure!r} is neither stop nor revert")
        if self.canary < 0 or self.max_failures < 0 or self.soak < 0:
            raise UsageError("canary, max-failures and soak cannot be negative")
        if self.confirm_timeout is not None and not 1 <= self.confirm_timeout <= 86400:
            raise UsageError("confirm-timeout must be between 1 and 86400 seconds")
        from fleet.intent.settings import ALLOWED

        for word in self.allow:
            if not ALLOWED.fullmatch(word):
                raise UsageError(
                    f"--allow {word!r}: allow drain, reboot, foreign, or one resource "
                    "such as veth/vm7"
                )

    @classmethod
    def of(cls, config: Mapping[str, Any], **given: Any) -> RolloutOptions:
        """Return the options that an inventory's ``fleet:`` section says, save those given.

        Keys of the section are dashed, those of its ``rollout`` too (``max-failures``); a given
        None means not given. What differs from host to host (``confirm-timeout``) is not taken.
        """
        known = {each.name for each in fields(cls)} - {"confirm_timeout"}
        flat = {**config, **(config.get("rollout") or {})}
        said = {key.replace("-", "_"): value for key, value in flat.items()}
        chosen = {key: value for key, value in said.items() if key in known and value is not None}
        chosen |= {key: value for key, value in given.items() if value is not None}
        if isinstance(chosen.get("wave"), int):
            chosen["wave"] = str(chosen["wave"])
        for key in ("allow", "fleet_gates"):
            value = chosen.get(key, ())
            chosen[key] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**chosen)
