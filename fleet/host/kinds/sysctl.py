"""Kernel parameters (sysctl(8), sysctl.d(5)): one resource a key, named with dots."""

from __future__ import annotations

from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from fleet.host.fields import Text


@spec
class Sysctl:
    """One key's value, as sysctl(8) prints it."""

    value: Text = ""


SPEC = Sysctl
