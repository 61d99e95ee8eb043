"""networkd's words for what netplan has and fleet leaves to the host's manager: DHCP, names, RA."""

from __future__ import annotations

from typing import Any

_YES, _NO = ("true", "yes", "on", "y"), ("false", "no", "off", "n")
_DHCP = {
    "hostname": "Hostname",
    "route-metric": "RouteMetric",
    "send-hostname": "SendHostname",
    "use-dns": "UseDNS",
    "use-domains": "UseDomains",
    "use-hostname": "UseHostname",
    "use-mtu": "UseMTU",
    "use-ntp": "UseNTP",
    "use-routes": "UseRoutes",
}
_RA = {"use-dns": "UseDNS", "use-domains": "UseDomains", "table": "RouteTable"}


def network_lines(left: dict[str, Any]) -> list[str]:
    """Return the lines of [Network] for the keys left to the manager; values are texts."""
    four, six = is_true(left.get("dhcp4")), is_true(left.get("dhcp6"))
    lines = []
    if four or six:
        lines.append(f"DHCP={'yes' if four and six else 'ipv4' if four else 'ipv6'}")
    if "link-local" in left:
        families = left["link-local"]
        lines.append(f"LinkLocalAddressing={_families(families)}")
    if "accept-ra" in left:
        lines.append(f"IPv6AcceptRA={_said(left['accept-ra'])}")
    if is_true(left.get("ipv6-privacy")):
        lines.append("IPv6PrivacyExtensions=yes")
    if "ipv6-mtu" in left:
        lines.append(f"IPv6MTUBytes={left['ipv6-mtu']}")
    if is_true(left.get("emit-lldp")):
        lines.append("EmitLLDP=yes")
    if is_true(left.get("critical")):
        lines.append("KeepConfiguration=yes")
    if is_true(left.get("ignore-carrier")):
        lines.append("ConfigureWithoutCarrier=yes")
    names = left.get("nameservers") or {}
    lines += [f"DNS={address}" for address in names.get("addresses") or ()]
    if names.get("search"):
        lines.append(f"Domains={' '.join(names['search'])}")
    return lines


def left_sections(left: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the sections of a .network file for the keys left to the manager."""
    four = _options(left.get("dhcp4-overrides"), _DHCP)
    if left.get("dhcp-identifier") == "mac":
        four.insert(0, "ClientIdentifier=mac")
    acceptance = _options(left.get("ra-overrides"), _RA)
    if "ipv6-address-token" in left:
        acceptance.append(f"Token=static:{left['ipv6-address-token']}")
    addressing = {"eui64": "eui64", "stable-privacy": "stable-privacy"}.get(
        str(left.get("ipv6-address-generation") or "")
    )
    link = [f"IPv6LinkLocalAddressGenerationMode={addressing}"] if addressing else []
    return [
        (name, lines)
        for name, lines in (
            ("Network", link),
            ("DHCPv4", four),
            ("DHCPv6", _options(left.get("dhcp6-overrides"), _DHCP)),
            ("IPv6AcceptRA", acceptance),
        )
        if lines
    ]


def _options(data: dict[str, Any] | None, words: dict[str, str]) -> list[str]:
    return [f"{words[key]}={_said(data[key])}" for key in words if data and key in data]


def _families(value: Any) -> str:
    names = set(value) if isinstance(value, list) else {str(value)}
    if {"ipv4", "ipv6"} <= names:
        return "yes"
    return next(iter(names & {"ipv4", "ipv6"}), "no")


def is_true(value: Any) -> bool:
    """Say whether a key left to the manager, or a flag of netplan's, is on."""
    return str(value) in _YES


def _said(value: Any) -> str:
    text = str(value)
    return "yes" if text in _YES else "no" if text in _NO else text
