"""What netplan's keys that fleet leaves to the host's manager may say (netplan-yaml.5).

fleet applies none of them, so these records only check: what is wrong is said with file and line
before any host is contacted, and not by a manager that then refuses all of its files.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from fleet.host.fields import Bound, Check, IPAddress, Uint32
from fleet.host.spec import spec


def _host_name(value: str) -> str:
    # RFC 1123, 2.1; and _, which DHCP servers take.
    word = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if not re.fullmatch(rf"{word}(\.{word})*\.?", value) or len(value) > 253:
        raise ValueError(f"{value!r} is not a name such as hv1.example.net")
    return value


def _domain(value: str) -> str:
    # systemd.network(5), Domains=: a leading ~ routes queries, and ~. routes them all.
    name = value.removeprefix("~")
    return value if name == "." else value[: len(value) - len(name)] + _host_name(name)


def _token(value: str) -> str:
    # ip-token(8): the low 64 bits of an address.
    token = ipaddress.IPv6Address(value)
    if not 0 < int(token) < 1 << 64:
        raise ValueError(f"{value!r} is not an interface identifier such as ::2")
    return value


HostName = Annotated[str, Check(_host_name)]
Domain = Annotated[str, Check(_domain)]
UseDomains = bool | Literal["route"]


@spec
class DHCPOverrides:
    """What of a lease counts; ``route-metric`` is that of its routes."""

    hostname: HostName | None = None
    route_metric: Uint32 | None = None
    send_hostname: bool | None = None
    use_dns: bool | None = None
    use_domains: UseDomains | None = None
    use_hostname: bool | None = None
    use_mtu: bool | None = None
    use_ntp: bool | None = None
    use_routes: bool | None = None


@spec
class RAOverrides:
    """What of router advertisements counts; ``table`` is where their routes go."""

    use_dns: bool | None = None
    use_domains: UseDomains | None = None
    table: Uint32 | None = None


@spec
class Nameservers:
    """DNS servers and the domains that are searched."""

    search: tuple[Domain, ...] | None = None
    addresses: tuple[IPAddress, ...] | None = None


@spec
class Left:
    """All that a device's manager is left; the fields are netplan's keys."""

    accept_ra: bool | None = None
    critical: bool | None = None
    dhcp4: bool | None = None
    dhcp6: bool | None = None
    dhcp_identifier: Literal["mac", "duid"] | None = None
    dhcp4_overrides: DHCPOverrides | None = None
    dhcp6_overrides: DHCPOverrides | None = None
    emit_lldp: bool | None = None
    ignore_carrier: bool | None = None
    ipv6_address_generation: Literal["eui64", "stable-privacy"] | None = None
    ipv6_address_token: Annotated[str, Check(_token)] | None = None
    #: RFC 8200, 5: every IPv6 link carries 1280 bytes.
    ipv6_mtu: Annotated[int, Bound(1280, 65535)] | None = None
    ipv6_privacy: bool | None = None
    link_local: tuple[Literal["ipv4", "ipv6"], ...] | None = None
    nameservers: Nameservers | None = None
    optional: bool | None = None
    optional_addresses: (
        tuple[Literal["ipv4-ll", "ipv6-ra", "dhcp4", "dhcp6", "static"], ...] | None
    ) = None
    ra_overrides: RAOverrides | None = None
    wakeonlan: bool | None = None
