"""What every kind of network device shares: its addresses, routes, MTU, MAC and flags."""

from __future__ import annotations

from fleet.host.spec import ON_HOST, spec

if not ON_HOST:
    from typing import Literal

    from fleet.host.fields import (
        MAC,
        MTU,
        InterfaceAddress,
        IPAddress,
        Label,
        Metric,
        Prefix,
        Uint32,
    )


@spec
class Address:
    """One address of a device; intent may write it as a plain string (netplan, ``addresses``)."""

    address: InterfaceAddress
    label: Label | None = None
    lifetime: Literal["0", "forever"] | None = None


@spec
class Route:
    """One static route of a device (netplan, ``routes``; ip-route(8))."""

    to: Prefix
    via: IPAddress | None = None
    from_: IPAddress | None = None
    metric: Metric | None = None
    on_link: bool | None = None
    type: (
        Literal[
            "unicast",
            "local",
            "broadcast",
            "anycast",
            "multicast",
            "blackhole",
            "unreachable",
            "prohibit",
            "throw",
        ]
        | None
    ) = None
    scope: Literal["global", "link", "host"] | None = None
    table: Uint32 | None = None
    mtu: MTU | None = None
    congestion_window: Uint32 | None = None
    advertised_receive_window: Uint32 | None = None
    advertised_mss: Uint32 | None = None

    def __post_init__(self) -> None:
        """Refuse what no kernel takes; the controller alone comes here."""
        nowhere = self.type in ("blackhole", "unreachable", "prohibit", "throw")
        if nowhere and (self.via or self.on_link or self.from_):
            raise ValueError(f"a route of type {self.type} leads nowhere and takes no gateway")
        texts = [text for text in (self.to, self.via, self.from_) if text and text != "default"]
        if len({":" in text for text in texts}) > 1:
            raise ValueError(f"{' and '.join(texts)} are of different address families")
        if not any(":" in text for text in texts):
            self._check_ipv4()

    def _check_ipv4(self) -> None:
        """fib_props[] in net/ipv4/fib_semantics.c, and the largest values it keeps."""
        least = {"local": ("host",), "broadcast": ("host", "link"), "anycast": ("host", "link")}
        fitting = least.get(self.type or "", ("host", "link", "global"))
        if self.scope and self.scope not in fitting:
            raise ValueError(f"a route of type {self.type} has scope {' or '.join(fitting)}")
        if self.via and self.scope in ("host", "link"):
            raise ValueError(f"a route with a gateway has scope global, not {self.scope}")
        if (self.advertised_mss or 0) > 65495 or (self.mtu or 0) > 65520:
            raise ValueError("an IPv4 route keeps an mtu up to 65520, and an mss up to 65495")


@spec
class Link:
    """The fields that every kind of device takes, in netplan's words.

    None means that intent does not name the field, and fleet leaves it alone. A list that is
    named is exclusive: entries it lacks are removed, save those of the kernel, router
    advertisements and DHCP.
    """

    addresses: tuple[Address, ...] | None = None
    routes: tuple[Route, ...] | None = None
    mtu: MTU | None = None
    macaddress: MAC | None = None
    #: netplan: ``manual`` leaves the link as it is, ``off`` keeps it down; otherwise it is up.
    activation_mode: Literal["manual", "off"] | None = None
