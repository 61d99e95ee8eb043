"""Passes over a plan's changes: what a port's coming and going means for its bridge."""

from __future__ import annotations

from fleet.host.change import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.planning.draft import Draft


def merge_ports(draft: Draft) -> None:
    """A port that leaves one bridge for another moves in one step."""
    joining = draft.joining()
    for change in draft.of("interfaces"):
        if change.after is None and change.touches[1] in joining:
            draft.drop(change)


def pin_mac(draft: Draft) -> None:
    """A bridge that takes the management NIC gets its MAC: else the next port may change it."""
    nics = {item["dev"] for item in draft.observation.management}
    for port, bridge in draft.joining().items():
        if port not in nics or draft.spec_of(bridge).get("macaddress"):
            continue
        if draft.by_device[bridge].kind == "vrf":
            continue  # a MAC of its own is never sent
        mac = draft.observation.links[port]["mac"]
        reason = f"takes the MAC of {port}, which carries management"
        created = next((c for c in draft.changes if _creates(c, bridge)), None)
        if created is not None:
            draft.amend(created, after={**created.after, "macaddress": mac}, reason=reason)
        elif draft.observation.links[bridge]["mac"] != mac:
            resource = draft.by_device[bridge]
            draft.changes.append(
                Change(
                    draft.namespace, resource.kind, resource.name, "update", "macaddress",
                    draft.observation.links[bridge]["mac"], mac, "blip", (), reason,
                    (draft.token("mac", bridge),), (draft.token("device", bridge),), (bridge,),
                )
            )  # fmt: skip


def _creates(change: Change, device: str) -> bool:
    return change.action == "create" and change.touches[:1] == (device,)


def keep_mtu(draft: Draft) -> None:
    """br_mtu_auto_adjust(): a bridge whose MTU nobody set follows its ports; set it after them."""
    observation = draft.observation
    set_already = {change.touches[0] for change in draft.of("mtu")}
    joining = draft.joining()
    leaving = {c.touches[1]: c.touches[0] for c in draft.of("interfaces") if c.after is None}
    for device, resource in draft.by_device.items():
        wanted, link = draft.spec_of(device).get("mtu"), observation.links.get(device)
        if resource.kind != "bridge" or not wanted or link is None or device in set_already:
            continue
        ports = {p for p, other in observation.links.items() if other["master"] == device}
        changed = sorted(
            [port for port in ports if port in set_already]
            + [port for port, bridge in joining.items() if bridge == device]
        )
        left = sorted(port for port, bridge in leaving.items() if bridge == device)
        if not changed and not left:
            continue
        needs = [draft.token("device", device), *(draft.token("unport", port) for port in left)]
        for port in changed:
            needs += [
                draft.token("mtu-raised", port),
                draft.token("mtu-lowered", port),
                draft.token("port", f"{device}/{port}"),
            ]
        draft.changes.append(
            Change(
                draft.namespace, resource.kind, resource.name, "update", "mtu", wanted, wanted,
                "none", (), f"stays when {', '.join([*changed, *left])} would change it",
                (), tuple(needs), (device,),
            )
        )  # fmt: skip


def wait_for_bridges(draft: Draft) -> None:
    """A forwarding entry, or a group, of a device that joins a bridge comes after it has joined."""
    joining = draft.joining()
    for change in list(draft.changes) if joining else ():
        if change.kind not in ("fdb", "mdb") or change.after is None:
            continue
        ports = [device for device in change.touches if device in joining]
        if ports:
            needs = (draft.token("port", f"{joining[port]}/{port}") for port in ports)
            draft.amend(change, requires=(*change.requires, *needs))
