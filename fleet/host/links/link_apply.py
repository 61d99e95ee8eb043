"""Carries out changes of what every kind of device shares, through pyroute2."""

from __future__ import annotations

from contextlib import contextmanager

from fleet.host.change import CREATE, DELETE, HostError
from fleet.host.kernel import ip
from fleet.host.kernel.system import path_of_namespace
from fleet.host.links.address import by_subnet, listed
from fleet.host.links.neighbours_apply import keeping_neighbours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fleet.host.change import Change
    from fleet.host.kernel.system import System

ENODEV, EEXIST, EBUSY, EADDRNOTAVAIL = 19, 17, 16, 99
FOREVER = 0xFFFFFFFF
#: include/uapi/linux/if_addr.h
NODAD = 0x02
_IFAPROT_KERNEL_LL = 3  # linux/if_addr.h, since Linux 5.18
_RT_SCOPE_LINK = 253


def apply(system: System, change: Change) -> None:
    """Carry out one change of a device; ``touches[0]`` is the device."""
    word = change.what.partition(".")[0]
    if change.action == CREATE:
        create(system, change)
    elif change.action == DELETE:
        delete(system, change)
    elif word == "mtu":
        set_link(system, change, mtu=change.after)
    elif word == "macaddress":
        _set_mac(system, change)
    elif word == "activation-mode":
        _activate(system, change)
    elif word == "addresses":
        _addresses(system, change)
    elif word == "routes":
        from fleet.host.links.route_apply import apply_route

        apply_route(system, change)
    elif word == "neighbours":
        from fleet.host.links.neighbours_apply import carry

        carry(system, change)
    elif word == "set-name":
        _rename(system, change)
    else:
        raise HostError(change.key, "a change this kind knows", change.what, "", change.what)


def index_of(system: System, device: str) -> int:
    """Return a device's index now; raises HostError where it is gone."""
    found: int | None = next(iter(system.route.link_lookup(ifname=device)), None)
    if found is None:
        raise HostError(f"device {device}", "it to be there", "no such device", "plan again")
    return found


def refused(change: Change, error: Exception) -> HostError:
    """Return a kernel's refusal in the operator's words."""
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    import os

    words = os.strerror(code) if isinstance(code, int) and code > 0 else str(error)
    after = "it to be gone" if change.after is None else f"{change.after}"
    return HostError(change.key, after, f"the kernel refuses: {words}", "", change.what)


def code_of(error: Exception) -> int:
    """Return the errno of a pyroute2 error."""
    return int(getattr(error, "code", 0) or 0)


def set_link(system: System, change: Change, **attributes: Any) -> None:
    """Set attributes of the change's device in one message."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        system.route.link("set", index=index_of(system, change.touches[0]), **attributes)
    except NetlinkError as error:
        raise refused(change, error) from error


def create(system: System, change: Change) -> None:
    """Make a device; one that the other end of a pair has made already is left alone."""
    from pyroute2.netlink.exceptions import NetlinkError

    name, made = change.touches[0], dict(change.after)
    attributes: dict[str, Any] = {"ifname": name, "kind": change.kind}
    existing = system.route.link_lookup(ifname=name)
    if existing:
        # The first end made both; the second only gets what is its own.
        attributes = {"index": existing[0]}
    elif "peer" in made:
        attributes["peer"] = made["peer"]
        if "peer-namespace" in made:
            path = path_of_namespace(made["peer-namespace"])
            attributes["peer"] = {"ifname": made["peer"], "net_ns_fd": path}
    if "macaddress" in made:
        attributes["address"] = made["macaddress"]
    if "mtu" in made:
        attributes["mtu"] = made["mtu"]
    attributes.update(made.get("data", {}))
    if existing and len(attributes) == 1:
        return
    try:
        system.route.link("set" if existing else "add", **attributes)
    except NetlinkError as error:
        raise refused(change, error) from error


def delete(system: System, change: Change) -> None:
    """Delete a device; one that went with its peer is gone already."""
    from pyroute2.netlink.exceptions import NetlinkError

    found = system.route.link_lookup(ifname=change.touches[0])
    if not found:
        return
    try:
        system.route.link("del", index=found[0])
    except NetlinkError as error:
        if code_of(error) != ENODEV:
            raise refused(change, error) from error


def _set_mac(system: System, change: Change) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    index = index_of(system, change.touches[0])
    try:
        # neigh_changeaddr() drops permanent neighbours too, whoever put them.
        with keeping_neighbours(system, index):
            system.route.link("set", index=index, address=change.after)
    except NetlinkError as error:
        # eth_mac_addr(): drivers without IFF_LIVE_ADDR_CHANGE want the device down.
        if code_of(error) != EBUSY:
            raise refused(change, error) from error
        with down(system, index):
            set_link(system, change, address=change.after)


def _activate(system: System, change: Change) -> None:
    if change.after == "up":
        set_link(system, change, state="up")
        return
    index = index_of(system, change.touches[0])
    before = messages(system, index)
    set_link(system, change, state="down")
    # addrconf_ifdown(): IPv6's addresses go with the device's state; intent still has them.
    now = {identity(message) for message in messages(system, index)}
    for message in before:
        link_local = message["scope"] == _RT_SCOPE_LINK
        if identity(message) not in now and not link_local:
            put_address(system, index, message)


def _rename(system: System, change: Change) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    index = index_of(system, change.before)
    try:
        system.route.link("set", index=index, ifname=change.after)
    except NetlinkError as error:
        # dev_change_name(): before Linux 6.2 only a device that is down.
        if code_of(error) != EBUSY:
            raise refused(change, error) from error
        with down(system, index):
            system.route.link("set", index=index, ifname=change.after)


@contextmanager
def down(system: System, index: int) -> Iterator[None]:
    """Take a device down around a step, and give it back what the kernel drops meanwhile."""
    with keeping(system, index):
        system.route.link("set", index=index, state="down")
        try:
            yield
        finally:
            system.route.link("set", index=index, state="up")


@contextmanager
def keeping(system: System, index: int, but: str = "") -> Iterator[None]:
    """Put back what the kernel drops from a device during a step: addresses, then routes.

    The kernel takes away an interface's routes with its last IPv4 address, and routes that name
    an address as source with that address (fib_sync_down_addr). ``but`` is an address that the
    step itself takes away. A link-local address that the kernel made it makes again itself, from
    the MAC that the device has by then (addrconf_dev_config).
    """
    from fleet.host.links.route_apply import replay, routes_of

    addresses = messages(system, index)
    routes = routes_of(system, index)
    with keeping_neighbours(system, index):
        yield
    now = {identity(message) for message in messages(system, index)}
    for message in addresses:
        own = message.get_attr("IFA_PROTO") == _IFAPROT_KERNEL_LL
        if identity(message) not in now and text_of(message) != but and not own:
            put_address(system, index, message)
    replay(system, routes, routes_of(system, index))


@contextmanager
def keeping_others(system: System, index: int) -> Iterator[None]:
    """Put back what the kernel drops with an IPv4 address and what is possible without it.

    With the last one go all routes of the device, and its neighbours (fib_disable_ip in
    net/ipv4/fib_frontend.c). A route stays away whose gateway was in the address's subnet.
    """
    from fleet.host.links.route_apply import replay, routes_of

    routes = routes_of(system, index)
    with keeping_neighbours(system, index):
        yield
    replay(system, routes, routes_of(system, index))


def messages(system: System, index: int) -> list[Any]:
    """Return the kernel's messages of a device's addresses, in order."""
    return [m for m in system.route.get_addr(index=index) if m["index"] == index]


def text_of(message: Any) -> str:
    """Return ``address/length`` of an address message; the local end where there is a peer."""
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return f"{local}/{message['prefixlen']}"


def identity(message: Any) -> tuple[str, Any]:
    """Return what tells two addresses of a device apart."""
    return text_of(message), message.get_attr("IFA_ADDRESS")


def put_address(system: System, index: int, message: Any) -> None:
    """Add an address again as a message had it."""
    cache = message.get_attr("IFA_CACHEINFO") or {}
    attributes: dict[str, Any] = {"address": text_of(message).partition("/")[0]}
    peer = message.get_attr("IFA_ADDRESS")
    if peer and peer != attributes["address"]:
        attributes = {"local": attributes["address"], "address": peer}
    for name, attribute in (("label", "IFA_LABEL"), ("broadcast", "IFA_BROADCAST")):
        if message.get_attr(attribute):
            attributes[name] = message.get_attr(attribute)
    if cache and cache["ifa_valid"] != FOREVER:
        attributes["IFA_CACHEINFO"] = {
            "ifa_valid": cache["ifa_valid"],
            "ifa_preferred": cache["ifa_preferred"],
        }
    if message["family"] == 10:
        attributes["IFA_FLAGS"] = NODAD
    _quiet(system, "add", index, message["prefixlen"], message["family"], attributes)


def _quiet(
    system: System, command: str, index: int, length: int, family: int, attributes: dict[str, Any]
) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    allowed = (EEXIST,) if command == "add" else (EADDRNOTAVAIL, ENODEV)
    try:
        system.route.addr(command, index=index, prefixlen=length, family=family, **attributes)
    except NetlinkError as error:
        if code_of(error) not in allowed:
            raise


def _addresses(system: System, change: Change) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    index = index_of(system, change.touches[0])
    try:
        if isinstance(change.before, list):
            _reorder(system, index, change.before, change.after)
        elif change.after is None:
            with keeping_others(system, index):
                _take(system, change.touches[0], index, _text(change.before))
        elif change.before is None:
            _give(system, index, change.after)
        else:
            _again(system, index, change)
    except NetlinkError as error:
        raise refused(change, error) from error


def _text(item: Any) -> str:
    return ip.normal(item if isinstance(item, str) else item["address"])


def _give(system: System, index: int, item: Any, command: str = "add") -> None:
    """Add one address as intent writes it."""
    text, address = next(iter(listed([item]).items()))
    attributes: dict[str, Any] = {"address": ip.host(text)}
    family, length = (10 if ip.family(text) == 6 else 2), ip.length(text)
    if family == 2 and length < 31:
        # As ip-address(8) with "brd +"; without one nobody answers to the subnet's broadcast.
        size = 32 - length
        attributes["broadcast"] = _ipv4(ip.number(ip.host(text)) | ((1 << size) - 1))
    if address.label and family == 2:
        attributes["label"] = address.label
    if address.lifetime == "0":
        attributes["IFA_CACHEINFO"] = {"ifa_valid": FOREVER, "ifa_preferred": 0}
    elif command == "replace":
        attributes["IFA_CACHEINFO"] = {"ifa_valid": FOREVER, "ifa_preferred": FOREVER}
    if family == 10 and isinstance(item, dict) and item.get("moved"):
        # It is this host's already: detecting duplicates would only make it wait.
        attributes["IFA_FLAGS"] = NODAD
    system.route.addr(command, index=index, prefixlen=length, family=family, **attributes)


def _ipv4(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def _take(system: System, device: str, index: int, text: str) -> None:
    """Remove one address and only that one.

    With a subnet's first address the kernel drops all others of the subnet, unless told to
    promote the next (ip-sysctl, promote_secondaries).
    """
    key = f"net/ipv4/conf/{device}/promote_secondaries"
    promoted = system.sysctl(key) if ip.family(text) == 4 else "1"
    if promoted == "0":
        system.set_sysctl(key, "1")
    try:
        for message in messages(system, index):
            if text_of(message) == text:
                attributes = {"address": message.get_attr("IFA_ADDRESS")}
                if message.get_attr("IFA_LOCAL"):
                    attributes["local"] = message.get_attr("IFA_LOCAL")
                family = message["family"]
                _quiet(system, "del", index, message["prefixlen"], family, attributes)
    finally:
        if promoted == "0":
            system.set_sysctl(key, "0")


def _again(system: System, index: int, change: Change) -> None:
    """Give an address another lifetime in place, or another label by taking it off and back."""
    device, text = change.touches[0], _text(change.after)
    present = [m for m in messages(system, index) if text_of(m) == text]
    label = change.after.get("label")
    other = bool(present and label and present[0].get_attr("IFA_LABEL") != label)
    failed = any(m.get_attr("IFA_FLAGS", m["flags"]) & 0x08 for m in present)
    if not other and not failed:
        _give(system, index, change.after, "replace")
        return
    with keeping(system, index, text):
        _take(system, device, index, text)
        _give(system, index, change.after)


def _reorder(system: System, index: int, now: list[str], then: list[str]) -> None:
    """Take off and add again the addresses that come too early, in the order wanted."""
    device = system.route.get_links(index)[0].get_attr("IFLA_IFNAME")
    order = [text_of(m) for m in messages(system, index)]
    present = {text_of(m): m for m in messages(system, index)}
    late: list[str] = []
    there = by_subnet(text for text in order if text in then)
    for net, want in by_subnet(text for text in then if text in present).items():
        have, same = there[net], 0
        while same < len(have) and have[same] == want[same]:
            same += 1
        # The one that becomes first stays, so the device is never without an address.
        late += want[same + 1 :]
    with keeping(system, index):
        for text in late:
            _take(system, device, index, text)
            put_address(system, index, present[text])


def make(system: System, change: Change, kernel: str, **attributes: Any) -> None:
    """Make a device of a kernel kind with its own attributes, its MAC and MTU where named."""
    from pyroute2.netlink.exceptions import NetlinkError

    attributes.update(named(change))
    try:
        system.route.link("add", ifname=change.touches[0], kind=kernel, **attributes)
    except NetlinkError as error:
        raise refused(change, error) from error


def named(change: Change) -> dict[str, Any]:
    """Return the MAC and the MTU that a creation names, in the kernel's words."""
    words = {"address": change.after.get("macaddress"), "mtu": change.after.get("mtu")}
    return {word: value for word, value in words.items() if value}
