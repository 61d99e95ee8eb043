"""What taps and tuns share: the kernel has one driver for both (drivers/net/tun.c)."""

from __future__ import annotations

import os

from fleet.host.change import CREATE, HostError
from fleet.host.links.link_diff import DEFAULT_MTU, observe_link
from fleet.host.links.virtual import diff_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

DEVICE = "/dev/net/tun"
#: include/uapi/linux/if_tun.h
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x1, 0x2, 0x1000, 0x4000, 0x0100
#: Nobody's: what TUNSETOWNER and TUNSETGROUP take to let anybody attach (an invalid id).
NOBODY = 0xFFFFFFFF


def observe(observation: Observation, name: str, mode: str) -> dict[str, Any] | None:
    """Return a persistent device of mode ``tap`` or ``tun`` as intent would write it."""
    link = observation.links.get(name)
    if link is None or link["kind"] != "tun" or link["data"].get("type") != mode:
        return None
    return {**_now(link["data"]), **observe_link(observation, name)}


def lean(form: dict[str, Any]) -> dict[str, Any]:
    """Return a form without what a new device has."""
    from fleet.host.planning.lean import without

    return without(form, {"mtu": DEFAULT_MTU, "multi-queue": False, "vnet-hdr": False})


def names(observation: Observation, mode: str) -> list[str]:
    """Return the persistent devices of a mode; others end with the process that holds them."""
    return sorted(
        name
        for name, link in observation.links.items()
        if link["kind"] == "tun"
        and link["data"].get("type") == mode
        and link["data"].get("persist")
    )


def _now(data: dict[str, Any]) -> dict[str, Any]:
    words: dict[str, Any] = {
        "multi-queue": bool(data.get("multi_queue")),
        "vnet-hdr": bool(data.get("vnet_hdr")),
    }
    for word, seen in (("owner", "user"), ("group", "group")):
        if data.get(seen) is not None:
            words[word] = data[seen]
    return words


def diff(
    resource: Resource, entry: Entry | None, observation: Observation, wanted: Any, mode: str
) -> list[Change]:
    """Return the changes that make a device what its decoded spec says."""
    link = observation.links.get(resource.name)
    if link is not None and link["kind"] == "tun" and link["data"].get("type") != mode:
        raise HostError(
            resource.key,
            f"a {mode}, or no device of this name",
            f"a {link['data'].get('type')}",
            f"give {resource.key} another name, or delete the device",
        )
    fixed: dict[str, Any] = {}
    if wanted.multi_queue is not None:
        fixed["multi-queue"] = wanted.multi_queue
    # Whoever attaches says anew whether frames carry the header: a guest's word is no drift.
    if getattr(wanted, "vnet_hdr", None) is not None and not (link and link["running"]):
        fixed["vnet-hdr"] = wanted.vnet_hdr
    mutable: dict[str, Any] = {}
    for word, find in (("owner", _user), ("group", _group)):
        if getattr(wanted, word) is not None:
            mutable[word] = find(resource, getattr(wanted, word))
    return diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel="tun",
        fixed=fixed,
        mutable=mutable,
        now=_now(link["data"]) if link else {},
    )


def _user(resource: Resource, name: str) -> int:
    if name.isdigit():
        return int(name)
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise _unknown(resource, "owner", "user", name) from None


def _group(resource: Resource, name: str) -> int:
    if name.isdigit():
        return int(name)
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise _unknown(resource, "group", "group", name) from None


def _unknown(resource: Resource, what: str, sort: str, name: str) -> HostError:
    return HostError(
        resource.key,
        f"the {sort} {name}",
        f"the host has no such {sort}",
        f"name a {sort} of the host, or its number",
        what,
    )


def apply(system: System, change: Change, mode: str) -> None:
    """Carry out one change."""
    from fleet.host.links import link_apply

    if change.action == CREATE:
        _attach(system, change, change.after, mode)
        if link_apply.named(change):
            link_apply.set_link(system, change, **link_apply.named(change))
    elif change.what in ("owner", "group"):
        _attach(system, change, {change.what: change.after}, mode)
    else:
        link_apply.apply(system, change)


def _attach(system: System, change: Change, words: dict[str, Any], mode: str) -> None:
    """Open a device, which makes it where there is none, set what is named and let go of it."""
    import fcntl
    import struct

    name = change.touches[0]
    told = words if change.action == CREATE else {**_standing(system, name), **words}
    flags = (IFF_TAP if mode == "tap" else IFF_TUN) | IFF_NO_PI
    flags |= IFF_MULTI_QUEUE if told.get("multi-queue") else 0
    flags |= IFF_VNET_HDR if told.get("vnet-hdr") else 0
    try:
        with system.enter():
            descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
            try:
                request = struct.pack("16sH14x", name.encode(), flags)
                fcntl.ioctl(descriptor, TUNSETIFF, request)
                if "owner" in words:
                    fcntl.ioctl(descriptor, TUNSETOWNER, words["owner"])
                if "group" in words:
                    fcntl.ioctl(descriptor, TUNSETGROUP, words["group"])
                fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise HostError(
            change.key,
            f"{mode} {name}",
            f"the kernel refuses: {error.strerror}",
            "a device that a process holds cannot get another owner" if change.what else "",
            change.what,
        ) from error


def _standing(system: System, name: str) -> dict[str, Any]:
    """Return what a device is now: whoever attaches must ask for the same queues again."""
    from fleet.host.kernel.observation import Observation

    return _now(Observation(system).links[name]["data"])
