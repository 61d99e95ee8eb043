"""netplan's offload keys of a NIC: features among what ethtool sets on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fleet.errors import IntentError
from fleet.host.change import Resource
from fleet.host.spec import dashed, encode, spec
from fleet.intent.convert import convert
from fleet.intent.tree import Mapping, path_text, words

if TYPE_CHECKING:
    from fleet.intent.device import Device


@spec
class Offloads:
    """The keys (netplan-yaml.5); unset ones are left as the driver has them."""

    receive_checksum_offload: bool | None = None
    transmit_checksum_offload: bool | None = None
    tcp_segmentation_offload: bool | None = None
    tcp6_segmentation_offload: bool | None = None
    generic_segmentation_offload: bool | None = None
    generic_receive_offload: bool | None = None
    large_receive_offload: bool | None = None


KEYS = tuple(dashed(field.name) for field in dataclasses.fields(Offloads))


def read_offloads(node: Mapping, path: tuple[str | int, ...]) -> dict[str, bool]:
    """Return what a device's node says of them; raises IntentError."""
    said = {key: words(value) for key, value in node.entries.items() if key in KEYS}
    if not said:
        return {}
    return {dashed(key): on for key, on in encode(convert(Offloads, said, node, path)).items()}


def with_offloads(
    resources: Iterable[Resource], devices: Iterable[Device], namespace: str
) -> Iterator[Resource]:
    """Yield resources with the devices' offloads put into what ethtool sets on each.

    Raises IntentError where both say something of one feature.
    """
    wanted = {device.name: device for device in devices if device.offloads}
    for resource in resources:
        mine = resource.kind == "ethtool" and resource.namespace == namespace
        device = wanted.pop(resource.name, None) if mine else None
        if device is None:
            yield resource
            continue
        features = (resource.spec or {}).get("features") or {}
        twice = sorted(features.keys() & device.offloads)
        if twice:
            raise IntentError(
                f"{twice[0]} is also among ethtool's features of {device.name}",
                device.node.entries[twice[0]].key_place,
                path_text((*device.path, twice[0])),
                remedy="write it in one place",
            )
        spec = {**(resource.spec or {}), "features": {**features, **device.offloads}}
        yield dataclasses.replace(resource, spec=spec)
    for device in wanted.values():
        yield Resource(namespace, "ethtool", device.name, {"features": device.offloads})
