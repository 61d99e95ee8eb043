"""The routing table of a VRF, where routes and rules of intent name none.

netplan gives it to the VRF's own routes and rules (netplan-yaml(5), ``vrfs``), systemd-networkd to
its members' routes (systemd.network(5), ``Table=``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fleet.errors import IntentError
from fleet.host.spec import encode
from fleet.intent.device import Device, named_rule

if TYPE_CHECKING:
    from collections.abc import Iterator


def fill_tables(devices: dict[str, Device]) -> Iterator[IntentError]:
    """Fill in the tables of all VRFs of a network; yield what names another one."""
    for vrf in [device for device in devices.values() if device.kind == "vrf"]:
        table = vrf.spec.table
        for index, route in enumerate(vrf.spec.routes or ()):
            if route.table not in (None, table):
                node, where = vrf.node_at("routes", index, "table")
                message = f"{route.table} is not the table of {vrf.name}, which is {table}"
                yield IntentError(message, node.place, where)
        rules = tuple(
            rule if rule.data.get("table") else named_rule({**rule.data, "table": table}, rule.node)
            for rule in vrf.rules
        )
        devices[vrf.name] = dataclasses.replace(_filled(vrf, table), rules=rules)
        for name in vrf.spec.interfaces or ():
            if name in devices:
                devices[name] = _filled(devices[name], table)


def _filled(device: Device, table: int) -> Device:
    """Return a device whose routes without a table are in this one."""
    if not device.spec.routes:
        return device
    routes = tuple(
        dataclasses.replace(route, table=table) if route.table is None else route
        for route in device.spec.routes
    )
    spec = dataclasses.replace(device.spec, routes=routes)
    return dataclasses.replace(device, spec=spec, data=encode(spec))
