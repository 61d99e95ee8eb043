"""Pairs of virtual Ethernet devices (netplan ``virtual-ethernets``; veth(4))."""

from __future__ import annotations

from fleet.host.link import Link
from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from fleet.host.fields import DeviceName


@spec
class Veth(Link):
    """One end of a pair; the peer is an entry of its own."""

    peer: DeviceName = ""


SPEC = Veth
