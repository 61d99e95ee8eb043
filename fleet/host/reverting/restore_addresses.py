"""Put addresses back in their order.

The kernel keeps IPv4 addresses of one scope in the order they were added, the first of a subnet
being its primary (net/ipv4/devinet.c, __inet_insert_ifa), and IPv6 addresses newest first
(net/ipv6/addrconf.c, ipv6_link_dev_addr). So what was added after the first difference is taken
off and added again.
"""

from __future__ import annotations

from _struct import Struct

from fleet.host.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, pack, pack_u32
from fleet.host.kernel.raw import packed
from fleet.host.reverting import differences as diff
from fleet.host.reverting.snapshot_parts import FOREVER, read_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.reverting.restore_step import Step

    Record = dict[str, Any]

NEWADDR, DELADDR = 20, 21
_header = Struct("=BBBBi")
_cacheinfo = Struct("=IIII")


def restore_addresses(step: Step) -> None:
    """Make the addresses of every device, and their order, what they were."""
    seconds = diff.elapsed(step.then, step.now)
    for device in sorted({*step.then["addresses"], *step.now["addresses"]}):
        if device not in step.indexes or step.then["links"].get(device) is None:
            continue
        missing, extra = diff.address_differences(step.then, step.now, device)
        orders = diff.address_orders(step.then, step.now, device)
        if not missing and not extra and orders[0] == orders[1]:
            continue
        _change(step, device, missing, extra, seconds)
        wanted = [i for i in step.then["addresses"].get(device, []) if diff.alive(i, seconds)]
        own = [item for item in wanted if not item.get("theirs")]
        for family, scope in sorted({(i["family"], i["scope"]) for i in own}):
            group = [i for i in own if (i["family"], i["scope"]) == (family, scope)]
            _in_order(step, device, group, seconds)
        for item in wanted:
            # What others added goes where the kernel puts it, once the rest is in order.
            if item.get("theirs"):
                _in_order(step, device, [item], seconds)


def _change(
    step: Step, device: str, missing: list[Record], extra: list[Record], seconds: float
) -> None:
    """Take off what is too much; what differs in its life or flags alone is replaced."""
    wanted = {diff.address_key(item): item for item in missing}
    for item in extra:
        other = wanted.get(diff.address_key(item))
        if other is not None and other["attributes"] == item["attributes"]:
            message = _message(step, device, other, seconds)
            if step.ask("addresses", device, NEWADDR, NLM_F_REPLACE, bytes, message):
                continue
        message = _message(step, device, item)
        step.ask("addresses", device, DELADDR, 0, bytes, message)


def _in_order(step: Step, device: str, wanted: list[Record], seconds: float) -> None:
    """Add the addresses of one family and scope that are missing, so that the order is right."""
    if wanted and wanted[0]["family"] == 10:
        wanted = wanted[::-1]
    keys = [diff.address_key(item) for item in wanted]
    # Taking a primary off may take its secondaries along: look after each step.
    for _ in range(3 * len(wanted) + 3):
        have = [key for key in _present(step, device, wanted[0]["family"]) if key in keys]
        if have == keys:
            return
        same = 0
        while same < min(len(have), len(keys)) and have[same] == keys[same]:
            same += 1
        if len(have) > same:
            item = wanted[keys.index(have[-1])]
            message = _message(step, device, item)
            done = step.ask("addresses", device, DELADDR, 0, bytes, message)
        else:
            message = _message(step, device, wanted[same], seconds)
            flags = NLM_F_CREATE | NLM_F_EXCL
            done = step.ask("addresses", device, NEWADDR, flags, bytes, message)
        if not done:
            # One that the kernel refuses must not keep the rest away.
            wanted = [item for item in wanted if diff.address_key(item) != keys[same]]
            keys = [diff.address_key(item) for item in wanted]
            if not wanted:
                return


def _present(step: Step, device: str, family: int) -> list[str]:
    names = {index: name for name, index in step.indexes.items()}
    items = read_addresses(step.netlink, names, {device}).get(device, [])
    keys = [diff.address_key(item) for item in items if item["family"] == family]
    return keys[::-1] if family == 10 else keys


def _message(step: Step, device: str, item: Record, seconds: float = 0) -> bytes:
    index = step.indexes[device]
    head = _header.pack(item["family"], item["length"], 0, item["scope"], index)
    message = head + packed(item["attributes"], {}) + pack_u32(8, item["flags"])
    if not item["permanent"] or item["preferred"] != FOREVER:
        valid = FOREVER if item["permanent"] else max(1, int(item["valid"] - seconds))
        preferred = item["preferred"]
        if preferred not in (0, FOREVER):
            preferred = max(0, int(preferred - seconds))
        message += pack(6, _cacheinfo.pack(preferred, valid, 0, 0))
    return message
