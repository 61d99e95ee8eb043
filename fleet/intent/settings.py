"""The ``fleet:`` settings: how a host is reached, checked and rolled out."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fleet.host.fields import Bound, Check, DeviceName, IPAddress, NamePattern, Text
from fleet.host.spec import spec


def _task(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is not a task's name: a file of tasks/ without .py")
    return value


def _target(value: str) -> str:
    import ipaddress

    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", value)
    if match is None or not 0 < int(match[2] or match[4]) < 65536:
        raise ValueError(f"{value!r} is not ADDRESS:PORT, such as 192.0.2.1:22 or [2001:db8::1]:22")
    ipaddress.ip_address(match[1] or match[3])
    return value


def _share(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,6}|([1-9][0-9]?|100)%", value):
        raise ValueError(f"{value!r} is not a number of hosts, or a share such as 20%")
    return value


#: What may be allowed by name: an impact, what is others', or a resource's key.
ALLOWED = re.compile(r"drain|reboot|foreign|([^:/]+:)?[a-z]+/\S.*")


def _allowed(value: str) -> str:
    if not ALLOWED.fullmatch(value):
        raise ValueError(f"{value!r} is not drain, reboot, foreign, or a resource such as veth/vm7")
    return value


def _record(value: str) -> str:
    scheme, colon, _ = value.partition("://")
    if colon and scheme.partition("+")[0] not in ("sqlite", "postgres", "postgresql"):
        raise ValueError(f"{scheme}:// keeps no record; write a file, sqlite:// or postgresql://")
    return value


TaskName = Annotated[str, Check(_task)]
Target = Annotated[str, Check(_target)]
Share = Annotated[str, Check(_share)]
Allowed = Annotated[str, Check(_allowed)]
RecordURL = Annotated[Text, Check(_record)]
Count = Annotated[int, Bound(0, 1_000_000)]
#: The watchdog's deadline is never less than what applying, settling and three connects take.
Deadline = Annotated[float, Bound(1, 86400)]


@spec
class ManagementSettings:
    """How operators reach the host: the device and the addresses, without prefix lengths.

    Without ``address`` it is ``hostname``, where that is an address.
    """

    interface: DeviceName | None = None
    address: tuple[IPAddress, ...] | None = None


@spec
class ProbeSettings:
    """What must answer before and after a change: the default gateway, and TCP ports."""

    gateway: bool = True
    targets: tuple[Target, ...] = ()


@spec
class RolloutSettings:
    """What ``fleet rollout`` does where its options do not say otherwise."""

    canary: Count | None = None
    wave: Share | None = None
    soak: Annotated[float, Bound(0, 86400)] | None = None
    max_failures: Count | None = None
    allow: tuple[Allowed, ...] = ()
    #: Tasks run after each wave's confirms, on the hosts of the wave.
    fleet_gates: tuple[TaskName, ...] = ()


NicModel = Literal["virtio-net-pci", "igb", "e1000e"]


@spec
class LabSettings:
    """Hints for the lab: the NIC that starts with the management address, and further NICs."""

    interface: DeviceName | None = None
    gateway: IPAddress | None = None
    nics: tuple[DeviceName, ...] = ()
    #: What a virtual machine's NICs are, as QEMU names them; others are virtio-net-pci.
    nic_models: dict[DeviceName, NicModel] | None = None


@spec
class Settings:
    """All settings of a host; ``record`` counts in defaults.yaml only."""

    management: ManagementSettings = ManagementSettings()
    ignore: tuple[NamePattern, ...] = ()
    gates: tuple[TaskName, ...] = ()
    probes: ProbeSettings = ProbeSettings()
    drain: TaskName | None = None
    #: Seconds in which the drain task has to end.
    drain_timeout: Deadline = 3600
    on_failure: Literal["stop", "revert"] = "stop"
    confirm_timeout: Deadline = 120
    rollout: RolloutSettings = RolloutSettings()
    manager: Literal["none", "netplan", "networkd"] = "none"
    record: RecordURL | None = None
    lab: LabSettings = LabSettings()
