"""Writes and takes away routes, through pyroute2."""

from __future__ import annotations

from fleet.host.links.route import NOWHERE, normal, route_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

#: include/uapi/linux/rtnetlink.h: RTPROT_STATIC, RTNH_F_ONLINK, RTM_F_CLONED
STATIC, ONLINK, CLONED = 4, 4, 0x200
TYPES = {
    "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
    "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9,
}  # fmt: skip
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}
#: As networkd: InitialCongestionWindow and InitialAdvertisedReceiveWindow.
METRICS = {
    "mtu": "mtu", "congestion-window": "initcwnd",
    "advertised-receive-window": "initrwnd", "advertised-mss": "advmss",
}  # fmt: skip
ESRCH, ENOENT, EEXIST = 3, 2, 17


def attributes_of(words: dict[str, Any], index: int) -> dict[str, Any]:
    """Return pyroute2's keywords of one route out of one device."""
    route = normal(route_of(words))
    family = route["family"]
    attributes: dict[str, Any] = {
        "family": 10 if family == 6 else 2,
        "dst": {4: "0.0.0.0/0", 6: "::/0"}[family] if route["to"] == "default" else route["to"],
        "table": route["table"],
        "type": TYPES[route["type"]],
        "proto": STATIC,
    }
    if route["metric"]:
        attributes["priority"] = route["metric"]
    if route["type"] not in NOWHERE:
        attributes["oif"] = index
    if family == 4:
        attributes["scope"] = _scope(route)
    if route["via"]:
        attributes["gateway"] = route["via"]
    if route["from"]:
        attributes["prefsrc"] = route["from"]
    if route["on-link"]:
        attributes["flags"] = ONLINK
    metrics = {name: route[word] for word, name in METRICS.items() if route[word]}
    if metrics:
        attributes["metrics"] = metrics
    return attributes


def _scope(route: dict[str, Any]) -> int:
    if route["scope"]:
        return SCOPES[route["scope"]]
    if route["type"] == "local":
        return SCOPES["host"]
    direct = route["type"] in ("unicast", "broadcast", "anycast", "multicast") and not route["via"]
    return SCOPES["link"] if direct else SCOPES["global"]


def apply_route(system: System, change: Change) -> None:
    """Add, replace or remove one route of the change's device."""
    from pyroute2.netlink.exceptions import NetlinkError

    from fleet.host.links.link_apply import code_of, index_of, refused

    index = index_of(system, change.touches[0])
    try:
        if change.after is None:
            _remove(system, change.before, index)
        elif change.before is None:
            system.route.route("add", **attributes_of(change.after, index))
        else:
            _replace(system, change, index)
    except NetlinkError as error:
        if change.after is None and code_of(error) in (ESRCH, ENOENT):
            return  # the kernel dropped it with its address or its device
        raise refused(change, error) from error


def _remove(system: System, words: dict[str, Any], index: int) -> None:
    attributes = attributes_of(words, index)
    for loose in ("proto", "flags", "metrics", "prefsrc"):
        attributes.pop(loose, None)
    if "scope" not in words:
        attributes["scope"] = SCOPE_ANY  # fib_table_delete(): any
    system.route.route("del", **attributes)


#: RT_SCOPE_NOWHERE, which fib_table_delete() takes for "whatever its scope is".
SCOPE_ANY = 255


def _replace(system: System, change: Change, index: int) -> None:
    attributes = attributes_of(change.after, index)
    old = route_of(change.before)
    same_type = (old.type or "unicast") == (route_of(change.after).type or "unicast")
    if attributes["family"] == 2 or same_type:
        system.route.route("replace", **attributes)
        return
    # IPv6 keeps routes of different types side by side.
    _remove(system, change.before, index)
    system.route.route("add", **attributes)


def routes_of(system: System, index: int) -> list[Any]:
    """Return the kernel's messages of a device's routes, but those it makes by itself."""
    return [
        message
        for message in system.route.get_routes()
        if message.get_attr("RTA_OIF") == index
        and message["proto"] != 2
        and not message["flags"] & CLONED
    ]


def replay(system: System, before: list[Any], now: list[Any]) -> None:
    """Add again the routes that are no longer there; one whose gateway went stays away."""
    from pyroute2.netlink.exceptions import NetlinkError

    present = {_identity(message) for message in now}
    lost = [message for message in before if _identity(message) not in present]
    # What leads to a gateway comes before what goes through it.
    lost.sort(key=lambda message: message.get_attr("RTA_GATEWAY") is not None)
    for message in lost:
        attributes = {name: value for name, value in message["attrs"] if name != "RTA_CACHEINFO"}
        fields = {
            name: message[name]
            for name in ("family", "dst_len", "src_len", "tos", "type", "scope", "proto")
        }
        fields["flags"] = message["flags"] & ONLINK
        fields["table"] = message.get_attr("RTA_TABLE") or message["table"]
        try:
            system.route.route("add", **fields, **attributes)
        except NetlinkError:
            # Its source or its gateway was what the step took away.
            continue


def _identity(message: Any) -> tuple[Any, ...]:
    names = ("RTA_DST", "RTA_GATEWAY", "RTA_PRIORITY", "RTA_TABLE", "RTA_OIF")
    return message["family"], message["dst_len"], *(message.get_attr(name) for name in names)
