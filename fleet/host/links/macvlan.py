"""What macvlans and macvtaps share: the kernel has one driver for both (drivers/net/macvlan.c)."""

from __future__ import annotations

from fleet.host.change import CREATE
from fleet.host.links.link_diff import device_of, observe_link
from fleet.host.links.virtual import diff_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry


def observe(observation: Observation, name: str, kernel: str) -> dict[str, Any] | None:
    """Return a device as intent would write it; one whose NIC is in another namespace is absent."""
    link = observation.links.get(name)
    if link is None or link["kind"] != kernel or not isinstance(link["link"], str):
        return None
    lower, mode = link["link"], link["data"].get("mode")
    return {"link": lower, "mode": mode, **observe_link(observation, name)}


def lean(form: dict[str, Any], observation: Observation, name: str) -> dict[str, Any]:
    """Return a form without defaults: the MTU is the lower device's."""
    from fleet.host.planning.lean import without

    lower = observation.links.get(form["link"])
    return without(form, {"mtu": lower["mtu"] if lower else 1500})


def diff(
    resource: Resource,
    entry: Entry | None,
    observation: Observation,
    wanted: Any,
    kernel: str,
) -> list[Change]:
    """Return the changes that make a device what its decoded spec says."""
    lower = device_of(observation, wanted.link)
    now = observe(observation, resource.name, kernel) or {}
    # macvlan_changelink(): passthru cannot be entered or left.
    passing = "passthru" in (wanted.mode, now.get("mode", wanted.mode))
    mode = {"mode": wanted.mode}
    return diff_virtual(
        resource,
        entry,
        observation,
        wanted,
        kernel=kernel,
        fixed={"link": lower, **(mode if passing else {})},
        mutable={} if passing else mode,
        now=now,
        lower=lower,
    )


def apply(system: System, change: Change, kernel: str) -> None:
    """Carry out one change."""
    from fleet.host.links import link_apply

    if change.action == CREATE:
        lower = link_apply.index_of(system, change.after["link"])
        mode = {f"{kernel}_mode": change.after["mode"]}
        link_apply.make(system, change, kernel, link=lower, **mode)
        if change.after["mode"] == "passthru" and change.after.get("macaddress"):
            # macvlan_common_newlink(): a new passthru device has its lower device's, whatever
            # it was given.
            link_apply.set_link(system, change, address=change.after["macaddress"])
    elif change.what == "mode":
        link_apply.set_link(system, change, kind=kernel, **{f"{kernel}_mode": change.after})
    else:
        link_apply.apply(system, change)
