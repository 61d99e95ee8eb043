"""Linux bridges (netplan ``bridges``; bridge(8), ip-link(8) type bridge)."""

from __future__ import annotations

from fleet.host.link import Link
from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from typing import Annotated

    from fleet.host.fields import Bound, DeviceName, Seconds, Uint16, Uint32


@spec
class BridgeParameters:
    """The bridge's own settings; times are seconds."""

    stp: bool | None = None
    priority: Uint16 | None = None
    #: IEEE 802.1D-1998 table 8-3, as br_stp.c enforces while STP is on.
    forward_delay: Annotated[float, Bound(0, 30)] | None = None
    hello_time: Annotated[float, Bound(1, 10)] | None = None
    max_age: Annotated[float, Bound(6, 40)] | None = None
    ageing_time: Seconds | None = None
    path_cost: dict[DeviceName, Annotated[int, Bound(1, 65535)]] | None = None
    port_priority: dict[DeviceName, Annotated[int, Bound(0, 63)]] | None = None
    #: Ours, in ip-link(8)'s words.
    multicast_snooping: bool | None = None
    group_fwd_mask: Uint16 | None = None


@spec
class BridgePort:
    """Flags of one port, in bridge(8)'s words."""

    isolated: bool | None = None
    learning: bool | None = None
    flood: bool | None = None
    mcast_flood: bool | None = None
    bcast_flood: bool | None = None
    hairpin: bool | None = None
    guard: bool | None = None
    root_block: bool | None = None
    fastleave: bool | None = None
    neigh_suppress: bool | None = None
    locked: bool | None = None
    cost: Annotated[int, Bound(1, 65535)] | None = None
    priority: Annotated[int, Bound(0, 63)] | None = None


@spec
class Bridge(Link):
    """One bridge, its ports and their flags."""

    interfaces: tuple[DeviceName, ...] | None = None
    parameters: BridgeParameters | None = None
    ports: dict[DeviceName, BridgePort] | None = None


SPEC = Bridge
