"""A guest's interface in plain words, and the part of libvirt's XML that they are."""

from __future__ import annotations

from fleet.host.spec import ON_HOST, spec
from fleet.host.virtual import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = dict[str, Any]

if not ON_HOST:
    from typing import Annotated, Literal

    from fleet.host.fields import (
        MTU,
        Block,
        Bound,
        DeviceName,
        LibvirtName,
        Uint32,
        VlanId,
        Word,
    )


@spec
class Source:
    """Where an interface is plugged in: a network, a bridge, or straight to a device."""

    network: LibvirtName | None = None
    portgroup: Word | None = None
    bridge: DeviceName | None = None
    dev: DeviceName | None = None
    mode: Literal["vepa", "bridge", "private", "passthrough"] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no one place; the controller alone comes here."""
        if sum(map(bool, (self.network, self.bridge, self.dev))) != 1:
            raise ValueError("name one of network, bridge and dev")
        if self.portgroup and not self.network:
            raise ValueError("a portgroup is a network's")
        if self.mode and not self.dev:
            raise ValueError("a mode is that of a dev")


@spec
class Driver:
    """What carries the frames: vhost in the kernel or QEMU itself, its queues and their sizes."""

    name: Literal["vhost", "qemu"] | None = None
    queues: Annotated[int, Bound(1, 256)] | None = None
    rx_queue_size: Literal[256, 512, 1024] | None = None
    tx_queue_size: Literal[256, 512, 1024] | None = None


@spec
class Tune:
    """Bytes that may be on their way out of a guest at once; 0 for no bound."""

    sndbuf: Uint32 | None = None


@spec
class FilterReference:
    """The filter that an interface goes through, with what it is told; ``{}`` for none."""

    filter: LibvirtName | None = None
    parameters: dict[Word, Word] | None = None

    def __post_init__(self) -> None:
        """Refuse parameters of no filter; the controller alone comes here."""
        if self.parameters and not self.filter:
            raise ValueError("name the filter that the parameters are for")


@spec
class VirtualPort:
    """The switch's port that an interface is; ``{}`` for none."""

    type: Literal["openvswitch", "802.1Qbg", "802.1Qbh", "midonet"] | None = None
    parameters: dict[Word, Word] | None = None


@spec
class Tags:
    """The VLANs of an interface; ``{}`` for none."""

    tags: tuple[VlanId, ...] | None = None
    trunk: bool | None = None
    native: VlanId | None = None

    def __post_init__(self) -> None:
        """Refuse what libvirt would; the controller alone comes here."""
        if self.native is not None and self.native not in (self.tags or ()):
            raise ValueError("the native VLAN is one of the tags")
        if self.trunk and not self.tags:
            raise ValueError("a trunk names its tags")


@spec
class Traffic:
    """A rate in libvirt's units: KiB a second, and KiB that may pass at once."""

    average: Uint32 | None = None
    peak: Uint32 | None = None
    burst: Uint32 | None = None
    floor: Uint32 | None = None


@spec
class Bandwidth:
    """The rates to and from a guest; ``{}`` for no limit."""

    inbound: Traffic | None = None
    outbound: Traffic | None = None


@spec
class Interface:
    """A guest's interface: what is not named stays as it is."""

    source: Source | None = None
    model: Word | None = None
    driver: Driver | None = None
    tune: Tune | None = None
    filterref: FilterReference | None = None
    virtualport: VirtualPort | None = None
    vlan: Tags | None = None
    isolated: bool | None = None
    link: Literal["up", "down"] | None = None
    bandwidth: Bandwidth | None = None
    mtu: MTU | None = None
    #: Instead of the words above: a part of libvirt's own <interface>.
    xml: Block | None = None

    def __post_init__(self) -> None:
        """Refuse XML that is no interface, or beside words; the controller alone comes here."""
        if self.xml is None:
            return
        tree.expect(self.xml, "interface")
        if any(getattr(self, name) is not None for name in _WORDS):
            raise ValueError("xml and words: name the interface one way")


_WORDS = (
    "source", "model", "driver", "tune", "filterref", "virtualport", "vlan", "isolated", "link",
    "bandwidth", "mtu",
)  # fmt: skip


def as_tree(words: Interface) -> Tree:
    """Return the part of libvirt's <interface> that the words are."""
    if words.xml is not None:
        return tree.parse(words.xml)
    found: list[Tree] = []
    if words.source:
        found.append(_element("source", **_given(words.source)))
    if words.virtualport:
        port = words.virtualport
        inner = [_element("parameters", **port.parameters)] if port.parameters else []
        found.append(_with("virtualport", {"type": port.type} if port.type else {}, inner))
    if words.vlan:
        found.append(_vlan(words.vlan))
    if words.filterref:
        each = words.filterref
        told = (each.parameters or {}).items()
        inner = [_element("parameter", name=name, value=value) for name, value in told]
        found.append(_with("filterref", {"filter": each.filter} if each.filter else {}, inner))
    if words.bandwidth:
        rates = [(side, getattr(words.bandwidth, side)) for side in ("inbound", "outbound")]
        inner = [_element(side, **_given(rate)) for side, rate in rates if rate]
        found.append(_with("bandwidth", {}, inner))
    if words.tune and words.tune.sndbuf is not None:
        found.append(_with("tune", {}, [_text("sndbuf", str(words.tune.sndbuf))]))
    if words.driver:
        found.append(_element("driver", **_given(words.driver)))
    for tag, name, value in (
        ("model", "type", words.model),
        ("link", "state", words.link),
        ("mtu", "size", words.mtu),
        ("port", "isolated", None if words.isolated is None else words.isolated),
    ):
        if value is not None:
            found.append(_element(tag, **{name: _said(value)}))
    return _with("interface", {}, found)


def _vlan(words: Tags) -> Tree:
    inner = []
    for number in words.tags or ():
        native = {"nativeMode": "untagged"} if number == words.native else {}
        inner.append(_element("tag", id=str(number), **native))
    return _with("vlan", {"trunk": "yes"} if words.trunk or len(inner) > 1 else {}, inner)


def _given(words: Any) -> dict[str, str]:
    names = type(words).__spec_fields__
    values = ((name, getattr(words, name)) for name in names)
    return {name: _said(value) for name, value in values if value is not None}


def _said(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _element(tag: str, **attributes: str) -> Tree:
    return _with(tag, attributes, [])


def _text(tag: str, text: str) -> Tree:
    return {**_with(tag, {}, []), "text": text}


def _with(tag: str, attributes: dict[str, str], children: list[Tree]) -> Tree:
    return {"tag": tag, "attributes": attributes, "text": "", "children": children}
