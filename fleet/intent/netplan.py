"""Every key of netplan v2, and what fleet does with it: one table.

The keys are those of netplan 1.1's parser; ``fleet.intent.keys`` prints the table for the docs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from fleet.host import registry
from fleet.host.spec import dashed, field_names

APPLIED, MANAGER, REFUSED, LATER = "applied", "manager", "refused", "later"


class Key(NamedTuple):
    """What happens to a key; ``inner`` is the table of the keys inside it, None where any may be.

    ``ours`` marks a word that netplan does not have.
    """

    verdict: str
    note: str = ""
    inner: dict[str, Key] | None = None
    ours: bool = False


def _keys(verdict: str, names: str, note: str = "", ours: bool = False) -> dict[str, Key]:
    return {name: Key(verdict, note, ours=ours) for name in names.split()}


_DHCP = _keys(
    MANAGER,
    "hostname route-metric send-hostname use-dns use-domains use-hostname use-mtu use-ntp "
    "use-routes",
)
_ROUTE = _keys(
    APPLIED,
    "to via from metric on-link type scope table mtu congestion-window advertised-receive-window "
    "advertised-mss",
)
_POLICY = _keys(APPLIED, "from to table priority mark type-of-service") | _keys(
    APPLIED, "family", "for a rule that names neither from nor to", ours=True
)

#: What every device takes.
COMMON: dict[str, Key] = {
    "renderer": Key(MANAGER, "networkd alone; the device's own renderer says nothing more"),
    "addresses": Key(
        APPLIED,
        "a text, or a mapping of the address to its label and lifetime",
        _keys(APPLIED, "label lifetime"),
    ),
    "routes": Key(APPLIED, "", _ROUTE),
    "routing-policy": Key(APPLIED, "each rule becomes a resource of its own", _POLICY),
    **_keys(APPLIED, "mtu macaddress activation-mode"),
    **_keys(
        APPLIED,
        "hairpin port-mac-learning neigh-suppress",
        "a flag of the bridge's port that the device is; see bridges, ports",
    ),
    **_keys(
        MANAGER,
        "accept-ra critical dhcp4 dhcp6 dhcp-identifier ignore-carrier ipv6-address-generation "
        "ipv6-address-token ipv6-mtu ipv6-privacy link-local optional optional-addresses",
    ),
    "dhcp4-overrides": Key(MANAGER, "", _DHCP),
    "dhcp6-overrides": Key(MANAGER, "", _DHCP),
    "ra-overrides": Key(MANAGER, "", _keys(MANAGER, "use-dns use-domains table")),
    "nameservers": Key(MANAGER, "", _keys(MANAGER, "search addresses")),
    "gateway4": Key(
        REFUSED, "netplan has deprecated it; write routes: [{to: default, via: ADDRESS}]"
    ),
    "gateway6": Key(
        REFUSED, 'netplan has deprecated it; write routes: [{to: "::/0", via: ADDRESS}]'
    ),
    "networkmanager": Key(REFUSED, "hosts are managed by networkd or netplan's networkd backend"),
    "openvswitch": Key(LATER, "Open vSwitch on devices other than bridges"),
}

PHYSICAL: dict[str, Key] = {
    "match": Key(
        APPLIED,
        "how the NIC is found",
        _keys(APPLIED, "name macaddress driver") | _keys(APPLIED, "pci-address", ours=True),
    ),
    "set-name": Key(APPLIED),
    **_keys(MANAGER, "wakeonlan emit-lldp"),
    **_keys(
        APPLIED,
        "receive-checksum-offload transmit-checksum-offload tcp-segmentation-offload "
        "tcp6-segmentation-offload generic-segmentation-offload generic-receive-offload "
        "large-receive-offload",
        "a feature of what ethtool sets",
    ),
    "wakeonwlan": Key(REFUSED, "hypervisors have no wireless NICs"),
}

_SECRETS = "802.1X puts credentials into files; let the host's manager have them by hand"
_AUTH = _keys(
    REFUSED,
    "key-management password method identity anonymous-identity ca-certificate client-certificate "
    "client-key client-key-password phase2-auth",
)

ETHERNETS: dict[str, Key] = {
    **COMMON,
    **PHYSICAL,
    "auth": Key(REFUSED, _SECRETS, _AUTH),
    "virtual-function-count": Key(APPLIED, "the kernel goes from one number to another by none"),
    "embedded-switch-mode": Key(APPLIED, "switchdev or legacy"),
    "virtual-functions": Key(
        APPLIED,
        "a mapping of a function's number, or a range such as 0-3, to what it may do",
        _keys(
            APPLIED,
            "macaddress vlan qos protocol min-tx-rate max-tx-rate spoofchk trust state",
            "as ip-link(8), vf",
            ours=True,
        )
        | _keys(APPLIED, "driver", "such as vfio-pci", ours=True),
        ours=True,
    ),
    "delay-virtual-functions-rebind": Key(LATER, "delayed drivers of virtual functions"),
    "link": Key(LATER, "the host's own use of a virtual function"),
    "infiniband-mode": Key(REFUSED, "InfiniBand is no hypervisor's guest network here"),
}

BRIDGES: dict[str, Key] = {
    **COMMON,
    "interfaces": Key(APPLIED),
    "parameters": Key(
        APPLIED,
        "times are seconds",
        {
            **_keys(
                APPLIED,
                "ageing-time priority port-priority forward-delay hello-time max-age path-cost stp",
            ),
            "aging-time": Key(APPLIED, "the same as ageing-time"),
            **_keys(
                APPLIED,
                "multicast-snooping group-fwd-mask vlan-filtering vlan-protocol vlan-default-pvid",
                "as ip-link(8)",
                ours=True,
            ),
        },
    ),
    "ports": Key(
        APPLIED,
        "a mapping of the port's name to its flags",
        _keys(
            APPLIED,
            "isolated learning flood mcast-flood bcast-flood hairpin guard root-block fastleave "
            "neigh-suppress locked cost priority vlans pvid untagged",
            "as bridge(8)",
            ours=True,
        ),
        ours=True,
    ),
    **_keys(APPLIED, "vlans pvid untagged", "of the bridge itself, as of a port", ours=True),
}

VETHS: dict[str, Key] = {**COMMON, "peer": Key(APPLIED)}

_BOND_PARAMETERS = _keys(
    APPLIED,
    "mode lacp-rate mii-monitor-interval min-links transmit-hash-policy ad-select "
    "all-members-active all-slaves-active arp-interval arp-ip-targets arp-validate "
    "arp-all-targets up-delay down-delay fail-over-mac-policy gratuitous-arp gratuitious-arp "
    "packets-per-member packets-per-slave primary-reselect-policy resend-igmp "
    "learn-packet-interval primary",
)
_TUNNEL = _keys(
    LATER,
    "mode local remote ttl key keys mark port peers link ageing aging id limit type-of-service "
    "flow-label do-not-fragment short-circuit arp-proxy mac-learning notifications checksums "
    "extensions port-range",
)
_MODEM = _keys(
    REFUSED,
    "apn auto-config device-id network-id number password pin sim-id sim-operator-id username",
)
_OPENVSWITCH = {
    **_keys(LATER, "external-ids other-config protocols ports"),
    "ssl": Key(LATER, "", _keys(LATER, "ca-cert certificate private-key")),
}

#: netplan's keys of ``network:``; for a section of devices ``inner`` is the table of one device.
NETPLAN: dict[str, Key] = {
    "version": Key(MANAGER, "2"),
    "renderer": Key(MANAGER, "networkd; NetworkManager and sriov are refused"),
    "ethernets": Key(APPLIED, "", ETHERNETS),
    "virtual-ethernets": Key(APPLIED, "", VETHS),
    "bridges": Key(APPLIED, "", BRIDGES),
    "bonds": Key(
        APPLIED,
        "",
        {
            **COMMON,
            "interfaces": Key(APPLIED),
            "parameters": Key(APPLIED, "times are milliseconds", _BOND_PARAMETERS),
        },
    ),
    "dummy-devices": Key(APPLIED),
    "tunnels": Key(LATER, "tunnels", _TUNNEL),
    "vlans": Key(
        APPLIED,
        "",
        COMMON
        | _keys(APPLIED, "id link")
        | _keys(
            APPLIED,
            "protocol gvrp mvrp reorder-hdr loose-binding ingress-qos-map egress-qos-map",
            "as ip-link(8)",
            ours=True,
        ),
    ),
    "vrfs": Key(
        APPLIED,
        "routes and rules without a table are in the VRF's, its members' routes too",
        COMMON | _keys(APPLIED, "table interfaces"),
    ),
    "openvswitch": Key(LATER, "Open vSwitch", _OPENVSWITCH),
    "wifis": Key(
        REFUSED,
        "hypervisors have no wireless NICs",
        _keys(REFUSED, "access-points auth regulatory-domain"),
    ),
    "modems": Key(REFUSED, "hypervisors have no modems", _MODEM),
    "nm-devices": Key(REFUSED, "these are NetworkManager's own"),
}

#: The sections of ``network:`` that hold devices of a kind this fleet has, by section.
SECTIONS = {
    entry.section: entry.kind for entry in registry.KINDS if entry.device and not entry.mark
}
#: The kinds of a section by the key that marks them.
MARKED = {entry.section: (entry.mark, entry.kind) for entry in registry.KINDS if entry.mark}

#: The sections of ``network:`` whose entries are no devices; fleet.intent.other reads them.
OTHERS: dict[str, Key] = {
    entry.section: Key(APPLIED, ours=True)
    for entry in registry.KINDS
    if entry.phase and not entry.device and entry.under == "network"
}

#: The keys of ``network:``: netplan's, and the sections of kinds that netplan does not have.
NETWORK: dict[str, Key] = {
    **NETPLAN,
    **OTHERS,
    **{
        section: Key(APPLIED, ours=section not in NETPLAN)
        for section in SECTIONS
        if section not in NETPLAN or NETPLAN[section].verdict != APPLIED
    },
}


@functools.cache
def device_table(section: str, kind: str = "") -> dict[str, Key]:
    """Return the table of a section's devices: netplan's, and every field of the kind's spec.

    ``kind`` is the one that a mark makes of a device; netplan's keys of the others are not its.
    """
    known = NETPLAN[section].inner or {} if section in NETPLAN and not kind else {}
    table = {**COMMON, **known}
    for field in field_names(registry.load(kind or SECTIONS[section]).SPEC):
        name = dashed(field)
        if name not in table or table[name].verdict != APPLIED:
            table[name] = Key(APPLIED, ours=name not in table)
    return table


def marked_kind(section: str, keys: Iterable[str]) -> str:
    """Return the kind that one of a device's keys makes of it, empty for its section's own."""
    mark, kind = MARKED.get(section, ("", ""))
    return kind if mark in keys else ""


RENDERERS = {
    "networkd": "",
    "NetworkManager": "fleet configures hosts that systemd-networkd runs; write `networkd`",
    "sriov": "fleet cannot apply it; write `virtual-functions: {0: {vlan: ID}}` under the NIC",
}


def verdict_text(key: str, entry: Key) -> str:
    """Return the sentence that refuses a key."""
    if entry.verdict == LATER:
        return f"this fleet cannot apply {entry.note or key} yet"
    return f"{key} is refused: {entry.note}"
