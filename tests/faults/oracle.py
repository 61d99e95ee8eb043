"""What is true of a host, in the words of iproute2, nft, sysctl and files: nothing of fleet's."""

from __future__ import annotations

import json
import re
from typing import Any

from .world import World

_SCRIPT = r"""
ip -j -d address; echo; echo '#4'; ip -j -d -4 route show table all; echo; echo '#6'
ip -j -d -6 route show table all; echo; echo '#rules'; ip -j rule; echo; ip -j -6 rule
echo; echo '#neighbours'; ip -j neigh show nud permanent; echo; echo '#ports'
bridge -j -d link; echo; echo '#fdb'; bridge -j fdb; echo; echo '#nft'; nft list ruleset
echo '#sysctls'
sysctl -e net.ipv4.ip_forward net.ipv4.tcp_mtu_probing net.ipv4.tcp_congestion_control
sysctl -a -e -r '^net\.ipv4\.conf\..*\.(rp_filter|forwarding|arp_ignore|accept_redirects)$'
sysctl -a -e -r '^net\.ipv4\.conf\..*\.log_martians$'
sysctl -a -e -r '^net\.ipv6\.conf\..*\.(hop_limit|disable_ipv6|mtu|forwarding)$'
echo '#files'
find /etc/sysctl.d -type f -printf '%p %m %U\n' -exec md5sum {} + | sort
echo '#spaces'
for space in $(ls -A /run/netns); do
  echo $space; ip -n $space -br address; ip -n $space route; ip -n $space -6 route
  ip netns exec $space sh -c 'nft list ruleset; sysctl net.ipv4.ip_forward'
done
"""
#: What operators set in Open vSwitch, by names: no row numbers, no state of the moment.
_SWITCH = r"""
echo '#switch'
columns() { ovs-vsctl --timeout=5 -f csv -d bare --no-headings --columns=$2 list $1 | sort; }
columns Bridge name,datapath_type,fail_mode,external_ids,other_config,stp_enable,rstp_enable
columns Port name,tag,trunks,vlan_mode,external_ids,other_config
columns Interface name,type,options,external_ids,other_config
for bridge in $(ovs-vsctl --timeout=5 list-br | sort); do
  echo $bridge; ovs-vsctl --timeout=5 list-ports $bridge
done
"""
_FLOWS = r"""
echo '#flows'
for bridge in $(ovs-vsctl --timeout=5 list-br | sort); do
  echo $bridge; ovs-ofctl --no-stats dump-flows $bridge | grep actions= | sort
done
"""
#: What passes by itself, or tells one host of two with the same configuration from the other.
_NOISE = {
    "ifindex", "valid_life_time", "preferred_life_time", "hello_timer", "tcn_timer",
    "topology_change_timer", "gc_timer", "message_age_timer", "forward_delay_timer", "link_netnsid",
    "hold_timer", "expires", "link_index", "used", "updated", "topology_change",
    "topology_change_detected", "designated_port", "config_pending", "topology_change_ack", "id",
    "no", "linkmode", "bridge_id", "designated_bridge",
}  # fmt: skip


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if key not in _NOISE}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


#: What a hand added and the harness leaves where it is; it is looked for by itself.
LEFT = "198.18.79.1"


def picture(world: World) -> dict[str, Any]:
    """Return everything about a host that a plan or a revert could change, sorted."""
    found: dict[str, Any] = {}
    script = _SCRIPT + (_SWITCH + _FLOWS if (world.root / "run/openvswitch").exists() else "")
    for part in ("#addresses\n" + world.sh(script)).split("\n#"):
        name, _, text = part.lstrip("#").partition("\n")
        if name in ("nft", "sysctls", "files", "spaces", "switch", "flows"):
            lines = [re.sub(r" +$", "", line) for line in text.splitlines() if line.strip()]
            found[name] = lines
            continue
        items = [
            item for line in text.splitlines() if line.startswith("[") for item in json.loads(line)
        ]
        # The switch's own device has another address each time that it starts.
        items = [item for item in items if item.get("ifname") != "ovs-netdev"]
        for item in items:
            # A tap that is opened anew is UP, or UNKNOWN: its flags say whether it is.
            if item.get("linkinfo", {}).get("info_kind") == "tun":
                item.pop("operstate", None)
            if "addr_info" in item:
                item["addr_info"] = [a for a in item["addr_info"] if a.get("local") != LEFT]
        if name == "fdb":
            items = [item for item in items if item.get("state") in ("permanent", "static")]
        if name in ("4", "6"):
            # The kernel's own multicast and local routes follow their addresses.
            items = [
                item
                for item in items
                if item.get("table") != "local"
                and not str(item.get("dst", "")).startswith(("fe80:", "ff"))
            ]
        if name == "addresses":
            order = {
                item["ifname"]: [a["local"] for a in item.get("addr_info", ())] for item in items
            }
            found["order"] = {
                key: [a for a in value if not a.startswith("fe80")] for key, value in order.items()
            }
        found[name] = sorted((_clean(item) for item in items), key=json.dumps)
    return found


def _same(item: Any, other: Any) -> bool:
    return json.dumps(item, sort_keys=True) == json.dumps(other, sort_keys=True)


def compare(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """Return the differences of two pictures as lines, an empty list where there is none."""
    found = []
    for part in sorted({*expected, *actual}):
        one, other = expected.get(part), actual.get(part)
        if _same(one, other):
            continue
        if isinstance(one, list) and isinstance(other, list):
            found += [f"{part}: missing {item}" for item in one if item not in other]
            found += [f"{part}: extra {item}" for item in other if item not in one]
        if not found or not found[-1].startswith(part):
            found.append(f"{part}: {one} -> {other}")
    return [line[:1500] for line in found]


def ports_of(world: World, bridge: str) -> set[str]:
    """Return the ports of a bridge."""
    listed = json.loads(world.enter(world.pid, "bridge", "-j", "link") or "[]")
    return {item["ifname"] for item in listed if item.get("master") == bridge}
