"""Put kernel parameters back."""

from __future__ import annotations

from fleet.host.reverting.differences import map_differences

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.reverting.restore_step import Step

#: Keys that set others: they go first (net.ipv4.ip_forward resets every device's forwarding).
_WIDE = ("ip_forward", "/all/", ".all.", "/default/", ".default.")


def restore_sysctls(step: Step) -> None:
    """Write the keys that differ, those that reset others first."""
    differing = map_differences(step.then, step.now, "sysctls")
    for name in sorted(differing, key=lambda name: (not any(w in name for w in _WIDE), name)):
        expected, _ = differing[name]
        if expected is not None:
            step.attempt("sysctls", name, step.system.set_sysctl, name, expected)
