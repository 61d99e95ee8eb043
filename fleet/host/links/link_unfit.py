"""What the kernel refuses of any device's addresses and routes, said before it is asked; pure."""

from __future__ import annotations

from fleet.host.kernel import ip
from fleet.host.links.route import NOWHERE, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Problem, Resource
    from fleet.host.planning.facts import Facts

    Words = dict[str, Any]

#: RFC 8200, 5: the least MTU IPv6 works with; below it the kernel turns IPv6 off.
IPV6_MTU = 1280


def unfit(resource: Resource, facts: Facts) -> Iterator[Problem]:
    """Yield what is wrong with the addresses and routes of one device."""
    spec, device = resource.spec or {}, facts.device(resource.name)
    for index, item in enumerate(spec.get("addresses") or ()):
        yield from _address(resource, facts, device, item["address"], f"addresses[{index}]")
    addresses, there = facts.addresses(device), facts.routes(device)
    for index, route in enumerate(spec.get("routes") or ()):
        if route.get("type") in NOWHERE or there & {*listed([route])}:
            continue
        what = f"routes[{index}]"
        if facts.up(device) is False:
            # fib_check_nh() and ip6_route_info_create(): ENETDOWN.
            yield facts.problem(
                resource, what, f"{device} up, for a route needs that", "it is down",
                "bring it up, which leaving activation-mode out does, or take away the route",
            )  # fmt: skip
        yield from _route(resource, facts, route, what, addresses)


def _address(
    resource: Resource, facts: Facts, device: str, text: str, what: str
) -> Iterator[Problem]:
    if ":" not in text:
        return
    if ip.host(text) == "::1" and device != "lo":
        yield facts.problem(
            resource, what, "an address of this device", "::1 is the loopback device's",
            "name another address",
        )  # fmt: skip
    mtu = facts.mtu(device)
    if mtu is not None and mtu < IPV6_MTU:
        yield facts.problem(
            resource, what, f"an MTU of at least {IPV6_MTU} for {text}", str(mtu),
            "raise mtu or take the IPv6 addresses away",
        )  # fmt: skip
    off = _without_ipv6(facts, device)
    if off:
        yield facts.problem(
            resource, what, f"IPv6 on {device}, for {text}", f"{off} is 1",
            f"set {off} to 0, or take the IPv6 addresses away",
        )  # fmt: skip


def _without_ipv6(facts: Facts, device: str) -> str:
    """Return the parameter that turns IPv6 off on a device, empty where it is on."""
    own, every = (f"net.ipv6.conf.{word}.disable_ipv6" for word in (device, "all"))
    named = {r.name: (r.spec or {}).get("value") for r in facts.of("sysctl")}
    for name in (own, every):
        # addrconf_disable_ipv6(): the value for all is given to each device.
        if name in named:
            return name if named[name] == "1" else ""
    name = "net.ipv6.conf.default.disable_ipv6" if facts.absent(device) else own
    return name if facts.sysctl(name) == "1" else ""


def _route(
    resource: Resource, facts: Facts, route: Words, what: str, addresses: list[str] | None
) -> Iterator[Problem]:
    via, source = route.get("via"), route.get("from_")
    if via and ":" in via and ip.normal(via) in facts.all_addresses():
        yield facts.problem(
            resource, f"{what}.via", "a gateway that is another host", f"{via} is the host's own",
            "name the neighbour that packets go to",
        )  # fmt: skip
    elif via and _broadcast(via, addresses or ()):
        yield facts.problem(
            resource, f"{what}.via", "a gateway that is one host", f"{via} is a broadcast address",
            "name the neighbour that packets go to",
        )  # fmt: skip
    elif via and addresses is not None and not _reached(route, resource.spec or {}, addresses):
        device = facts.device(resource.name)
        if facts.observation is not None and not _leads_there(facts, device, via):
            yield facts.problem(
                resource, f"{what}.via", f"{via} on a network of {device}",
                f"{device} has {', '.join(addresses) or 'no addresses'}",
                "give the device an address beside the gateway, or say on-link: true",
            )  # fmt: skip
    if source and facts.observation is not None and ip.normal(source) not in facts.all_addresses():
        yield facts.problem(
            resource, f"{what}.from", f"{source} on this host", "no device has it",
            "give a device this address, or leave from out",
        )  # fmt: skip
    first = not route.get("metric") and route.get("table") in (None, 254)
    if first and route["to"] != "default" and ip.family(route["to"]) == 4:
        yield from _connected(resource, facts, route, what)


def _broadcast(via: str, addresses: Any) -> bool:
    for text in addresses:
        if ":" in text or ":" in via or ip.length(text) > 30 or not ip.inside(via, text):
            continue
        if ip.number(via) | (0xFFFFFFFF >> ip.length(text)) == ip.number(via):
            return True
    return False


def _reached(route: Words, spec: Words, addresses: list[str]) -> bool:
    via = route["via"]
    if route.get("on_link") or ip.link_local(via) or any(ip.inside(via, a) for a in addresses):
        return True
    others = spec.get("routes") or ()
    ways = [other["to"] for other in others if not other.get("via")]
    return any(way != "default" and ip.inside(via, way) for way in ways)


def _leads_there(facts: Facts, device: str, via: str) -> bool:
    """Say whether the host has a route to a gateway itself that stays."""
    assert facts.observation is not None
    return any(
        route["dev"] == device
        and not route["via"]
        and route["to"] != "default"
        and ip.inside(via, route["to"])
        for route in facts.observation.routes
    )


def _connected(resource: Resource, facts: Facts, route: Words, what: str) -> Iterator[Problem]:
    """fib_table_insert(): the kernel's own route to a device's network is there already."""
    for device, spec in facts.specs(*_all_devices()):
        for item in spec.get("addresses") or ():
            text = item["address"]
            if ip.family(text) == 6 or ip.length(text) == 32 or facts.up(device) is not True:
                continue
            if ip.subnet(text) == ip.subnet(route["to"]):
                yield facts.problem(
                    resource, f"{what}.to", "a destination with no route yet",
                    f"the kernel makes one to {route['to']} for {text} of {device}",
                    "leave the route out, or give it a metric",
                )  # fmt: skip
                return


def _all_devices() -> tuple[str, ...]:
    from fleet.host import registry

    return registry.DEVICES
