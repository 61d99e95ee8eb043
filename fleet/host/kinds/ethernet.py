"""Physical NICs (netplan ``ethernets``): found by name or by match, never created or deleted."""

from __future__ import annotations

from fleet.host.link import Link
from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from fleet.host.fields import MAC, DeviceName, Text


@spec
class Match:
    """How a NIC is found, whatever the kernel called it this boot (netplan ``match``)."""

    name: Text | None = None
    macaddress: MAC | None = None
    driver: Text | None = None
    #: ``0000:01:00.0``: our word; netplan has none.
    pci_address: Text | None = None


@spec
class Ethernet(Link):
    """One NIC."""

    match: Match | None = None
    set_name: DeviceName | None = None


SPEC = Ethernet
