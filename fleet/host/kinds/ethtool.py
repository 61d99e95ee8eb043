"""What ethtool(8) sets on a device: features, channels, rings, coalescing, pause, private flags.

A resource is a device's settings; what it does not name is left alone. Features go by the kernel's
names, by ethtool's for several of them (``tcp-segmentation-offload``), or by netplan's.
"""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

if not ON_HOST:
    from fleet.host.fields import DeviceName, FeatureName, FlagName, Uint32

    #: What a resource is called.
    NAME = DeviceName


@spec
class Channels:
    """How many queues the driver has of each sort."""

    rx: Uint32 | None = None
    tx: Uint32 | None = None
    other: Uint32 | None = None
    combined: Uint32 | None = None


@spec
class Rings:
    """How many descriptors a queue has."""

    rx: Uint32 | None = None
    rx_mini: Uint32 | None = None
    rx_jumbo: Uint32 | None = None
    tx: Uint32 | None = None


@spec
class Coalesce:
    """How long, in microseconds, or for how many frames an interrupt waits."""

    rx_usecs: Uint32 | None = None
    rx_frames: Uint32 | None = None
    rx_usecs_irq: Uint32 | None = None
    rx_frames_irq: Uint32 | None = None
    tx_usecs: Uint32 | None = None
    tx_frames: Uint32 | None = None
    tx_usecs_irq: Uint32 | None = None
    tx_frames_irq: Uint32 | None = None
    stats_block_usecs: Uint32 | None = None
    adaptive_rx: bool | None = None
    adaptive_tx: bool | None = None


@spec
class Pause:
    """Ethernet flow control (IEEE 802.3, annex 31B)."""

    autoneg: bool | None = None
    rx: bool | None = None
    tx: bool | None = None


@spec
class Settings:
    """The settings of one device."""

    features: dict[FeatureName, bool] | None = None
    channels: Channels | None = None
    rings: Rings | None = None
    coalesce: Coalesce | None = None
    pause: Pause | None = None
    private_flags: dict[FlagName, bool] | None = None


SPEC = Settings

#: In this order: a driver may tie rings, coalescing and features to its queues.
PARTS = ("channels", "rings", "coalesce", "pause", "private-flags", "features")
#: A driver may stop the queues, or negotiate the link anew.
_BLIP = ("features", "channels", "rings", "pause", "private-flags")
#: Seconds for a link that is negotiated anew.
SETTLE = 10.0

_TSO = (
    "tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
    "tx-tcp-accecn-segmentation", "tx-tcp6-segmentation",
)  # fmt: skip
_TX_CHECKSUM = (
    "tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6", "tx-checksum-fcoe-crc",
    "tx-checksum-sctp",
)  # fmt: skip
#: What ethtool, and netplan after it, call one feature or several (ethtool's off_flag_def).
GROUPS = {
    "rx-checksumming": ("rx-checksum",),
    "receive-checksum-offload": ("rx-checksum",),
    "tx-checksumming": _TX_CHECKSUM,
    "transmit-checksum-offload": _TX_CHECKSUM,
    "scatter-gather": ("tx-scatter-gather", "tx-scatter-gather-fraglist"),
    "tcp-segmentation-offload": _TSO,
    "tcp6-segmentation-offload": ("tx-tcp6-segmentation",),
    "generic-segmentation-offload": ("tx-generic-segmentation",),
    "generic-receive-offload": ("rx-gro",),
    "large-receive-offload": ("rx-lro",),
    "rx-vlan-offload": ("rx-vlan-hw-parse",),
    "tx-vlan-offload": ("tx-vlan-hw-insert",),
    "ntuple-filters": ("rx-ntuple-filter",),
    "receive-hashing": ("rx-hashing",),
}


def names(observation: Observation) -> list[str]:
    """Return the NICs: whatever else has settings says little by them."""
    return sorted(
        name for name, link in observation.links.items() if name != "lo" and not link["kind"]
    )


def observe(observation: Observation, name: str) -> Words | None:
    """Return a device's settings as intent would write them, with the features it can change."""
    from fleet.host.kernel.ethtool import read

    try:
        found = read(observation.system, name)
    except OSError:
        return None  # Linux before 5.6, or a device that has gone
    form: Words = {part: found[part] for part in PARTS if part != "features" and part in found}
    features = found.get("features") or {}
    form["features"] = {n: said["active"] for n, said in features.items() if said["changeable"]}
    return {part: values for part, values in form.items() if values} or None


def lean(form: Words, observation: Observation, name: str) -> Words | None:
    """Return None: no driver says what its defaults are."""
    return None


def original(resource: Resource, observation: Observation) -> Words | None:
    """Return what a device had before fleet adopted it, of what the intent names."""
    device = device_of(observation, resource.name)
    if device not in observation.links:
        return None
    have, before = _have(resource, device, observation), {}
    for part, wanted in _named(resource).items():
        if part == "features":
            single = [each for word in wanted for each in GROUPS.get(word, (word,))]
            told = have.get(part) or {}
            before[part] = {
                each: told[each]["active"]
                for each in single
                if each in told and told[each]["changeable"]
            }
        else:
            told = have.get(part) or {}
            before[part] = {word: told[word] for word in wanted if word in told}
    return before


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return one change for each part that is not as its spec says; raises HostError for what the
    driver does not take."""
    device = device_of(observation, resource.name)
    steps = Steps(resource, device)
    have = _have(resource, device, observation) if device in observation.links else None
    for part, wanted in _named(resource).items():
        if have is None:
            _step(steps, part, None, wanted)
            continue
        now = _now(resource, device, part, wanted, have)
        changed = {word: value for word, value in wanted.items() if now[word] != value}
        if changed:
            _step(steps, part, {word: now[word] for word in changed}, changed)
    return steps.changes


def _have(resource: Resource | Entry, device: str, observation: Observation) -> Words:
    """Return a device's settings as ``kernel.ethtool`` reads them, asked once."""
    from fleet.host.kernel.ethtool import read

    try:
        found: Words = observation.once(f"ethtool {device}", lambda system: read(system, device))
    except OSError as error:
        raise HostError(
            resource.key,
            "a kernel that tells these settings over netlink (Linux 5.6)",
            str(error.strerror or error),
            f"take {resource.key} away, or boot a newer kernel",
        ) from error
    return found


def _step(steps: Steps, part: str, before: Words | None, after: Words) -> None:
    steps.add(part, before, after, impact="blip" if part in _BLIP else "none")


def _named(resource: Resource | Entry) -> dict[str, Words]:
    """Return what a spec names, by part and by ethtool's word, in the order to apply it."""
    data = encode(decode(Settings, resource.spec or {}))
    found = {}
    for part in PARTS:
        words = data.get(part.replace("-", "_")) or {}
        plain = part in ("features", "private-flags")
        named = {w if plain else dashed(w): v for w, v in words.items() if v is not None}
        if named:
            found[part] = named
    return found


def _now(resource: Resource, device: str, part: str, wanted: Words, have: Words) -> Words:
    """Return what the device has of what is wanted; raises HostError for what it cannot have."""
    told = have.get(part) or {}
    if part == "features":
        return {word: _feature(resource, device, word, on, told) for word, on in wanted.items()}
    for word, value in wanted.items():
        if word not in told:
            sort = {"private-flags": "flags"}.get(part, part)
            raise HostError(
                resource.key,
                f"a driver of {device} with {word} among its {sort}",
                f"only {', '.join(told)}" if told else "the driver has none",
                f"take {word} away, or look at {_SHOWN[part]} {device}",
                part,
            )
        most = have["most"].get(part, {}).get(word)
        if most is not None and value > most:
            raise HostError(
                resource.key,
                f"{part}: {word} {value}",
                f"the driver of {device} takes at most {most}",
                f"name at most {most}",
                part,
            )
    return {word: told[word] for word in wanted}


#: How ethtool shows a part.
_SHOWN = {
    "channels": "ethtool -l", "rings": "ethtool -g", "coalesce": "ethtool -c",
    "pause": "ethtool -a", "private-flags": "ethtool --show-priv-flags",
    "features": "ethtool -k",
}  # fmt: skip


def _feature(resource: Resource, device: str, word: str, on: bool, told: Words) -> bool:
    known = [each for each in GROUPS.get(word, (word,)) if each in told]
    if not known:
        raise HostError(
            resource.key,
            "a feature that the host's kernel has",
            f"none is called {word}",
            f"look at ethtool -k {device}",
            "features",
        )
    active = [each for each in known if told[each]["active"]]
    fixed = [each for each in (active if not on else known) if not told[each]["changeable"]]
    if bool(active) != on and fixed and (not on or len(fixed) == len(known)):
        raise HostError(
            resource.key,
            f"{word} {'on' if on else 'off'}",
            f"the driver of {device} keeps {', '.join(fixed)} {'off' if on else 'on'}",
            f"take {word} away: ethtool -k {device} calls it fixed",
            "features",
        )
    return bool(active)


def single(told: Words, word: str, on: bool) -> dict[str, bool]:
    """Return the kernel's features that a word of intent sets on or off on a device."""
    members = [each for each in GROUPS.get(word, (word,)) if each in told]
    return {each: on for each in members if told[each]["changeable"]}


def settle(resource: Resource, observation: Observation) -> float:
    """Return the seconds that a link may need after its driver started it anew."""
    return SETTLE if set(_named(resource)) & set(_BLIP) else 0.0


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the changes that give a device what it had before fleet set it."""
    device = device_of(observation, entry.name)
    steps = Steps(entry, device)
    if device not in observation.links or not entry.before:
        return []
    have = _have(entry, device, observation)
    for part in PARTS:
        before = entry.before.get(part) or {}
        told = have.get(part) or {}
        now = {w: told[w]["active"] if part == "features" else told[w] for w in before if w in told}
        changed = {word: before[word] for word in now if now[word] != before[word]}
        if changed:
            _step(steps, part, {word: now[word] for word in changed}, changed)
    return steps.changes


def apply(system: System, change: Change) -> None:
    """Set one part; raises HostError where the driver or the kernel does not take it."""
    from fleet.host.kernel import ethtool

    device, values = change.touches[0], change.after
    told = ethtool.read(system, device).get("features") or {}
    if change.what == "features":
        values = {n: v for word, on in values.items() for n, v in single(told, word, on).items()}
    try:
        ethtool.write(system, device, change.what, values)
    except OSError as error:
        raise HostError(
            change.key,
            f"{device} to take {change.what} {_said(change.after)}",
            str(error.strerror or error),
            f"look at {_SHOWN[change.what]} {device}",
            change.what,
        ) from error
    if change.what != "features":
        return
    told = ethtool.read(system, device).get("features") or {}
    left = [name for name, on in values.items() if told[name]["active"] != on]
    if left and all(told[name]["wanted"] == values[name] for name in left):
        # netdev_fix_features(): asked for, and held back by what it depends on.
        raise HostError(
            change.key,
            f"{', '.join(left)} {'on' if values[left[0]] else 'off'} on {device}",
            "the kernel holds it back: it depends on another feature",
            "name that feature too, such as tx-checksumming and scatter-gather for segmentation",
            "features",
        )


def _said(values: Words) -> str:
    return ", ".join(f"{word} {value}" for word, value in values.items())
