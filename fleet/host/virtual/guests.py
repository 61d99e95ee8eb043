"""libvirt's guests: their interfaces and pins, as they run and as they will start.

fleet makes and deletes no guest. Of a guest's definition it reads and writes its *parts* only, as
``{"interfaces": [text, ...], "cputune": text, "numatune": text}``; every other byte stays. A book
is ``{"live", "config"}``: the whole documents, each empty where there is none.
"""

from __future__ import annotations

from fleet.host.kernel.system import CommandError
from fleet.host.virtual import overlay, pins, tree
from fleet.host.virtual.networks import VIRSH, ask, virsh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Book = dict[str, str]
    Parts = dict[str, Any]
    Tree = dict[str, Any]

#: QEMU takes a device off when the guest's own system lets go of it: seconds that it is given.
UNPLUGGING = 4.0
#: The alias of an interface that fleet plugged in: libvirt keeps those with this start.
OURS = "ua-fleet-"
_INTERFACE, _CPUTUNE, _NUMATUNE = ("devices", "interface"), ("cputune",), ("numatune",)
_NO_SUCH = ("failed to get domain", "Domain not found")


def read(system: System, name: str) -> Book | None:
    """Return the book of a guest, None where there is none; raises CommandError."""
    commands = f"dominfo --domain {name}; dumpxml --domain {name}; dumpxml --inactive {name}"
    done = ask(system, commands, check=False)
    about, *documents = done.out.split("<domain ")
    if done.code or len(documents) != 2:
        if any(words in done.err for words in _NO_SUCH):
            return None
        raise CommandError(done, done.err.strip() or "it is not known what runs")
    texts = [f"<domain {text.strip()}" for text in documents]
    runs = "id" in tree.parse(texts[0])["attributes"]
    lasts = any(line.split() == ["Persistent:", "yes"] for line in about.splitlines())
    return {"live": texts[0] if runs else "", "config": texts[1] if lasts else ""}


def parts(text: str, every: str = "") -> Parts | None:
    """Return what fleet reads and writes of a guest's document, None where there is none.

    ``free`` says where threads run that are not pinned: on ``every`` CPU, if nothing says less.
    """
    if not text:
        return None
    spans = tree.spans(text)
    data = text.encode()

    def of(path: tuple[str, ...]) -> list[str]:
        return [data[start:end].decode() for at, start, end in spans if at == path]

    return {
        "free": tree.attribute(tree.parse(text), "vcpu", "cpuset") or every,
        "interfaces": of(_INTERFACE),
        "cputune": "".join(of(_CPUTUNE)),
        "numatune": "".join(of(_NUMATUNE)),
    }


def with_parts(text: str, wanted: Parts) -> str:
    """Return a guest's document with other parts; what is between them stays, byte for byte."""
    data, spans = text.encode(), tree.spans(text)
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for path, start, end in spans:
        places.setdefault(path, []).append((start, end))
    _, end_of_devices = places[("devices",)][0]
    after_cpus = places[("vcpu",)][0][1]
    devices_close = data.rindex(b"</devices", 0, end_of_devices)
    edits: list[tuple[int, int, bytes]] = []
    for path, texts, default in (
        (_INTERFACE, wanted["interfaces"], devices_close),
        (_CPUTUNE, [wanted["cputune"]], after_cpus),
        (_NUMATUNE, [wanted["numatune"]], after_cpus),
    ):
        found = places.get(path) or [(default, default)]
        edits.append((*found[0], "\n".join(texts).encode()))
        edits += [(start, end, b"") for start, end in found[1:]]
    for start, end, fresh in sorted(edits, reverse=True):
        data = data[:start] + fresh + data[end:]
    return data.decode()


def mac_of(interface: Tree) -> str:
    """Return an interface's MAC address."""
    return tree.attribute(interface, "mac", "address").lower()


def interfaces(text: str) -> dict[str, Tree]:
    """Return the interfaces of a guest's document by their MAC addresses, as trees."""
    found = parts(text)
    trees = [tree.parse(each) for each in found["interfaces"]] if found else []
    return {mac_of(each): each for each in trees}


def find(book: Book, key: str) -> str:
    """Return the MAC address of the interface that a MAC address or an alias names."""
    if ":" in key:
        return key.lower()
    for text in (book["live"], book["config"]):
        for mac, each in interfaces(text).items():
            if tree.attribute(each, "alias", "name") == key:
                return mac
    return ""


def ours(interface: Tree) -> bool:
    """Say whether fleet plugged an interface in."""
    return tree.attribute(interface, "alias", "name").startswith(OURS)


def define(system: System, name: str, wanted: Parts) -> None:
    """Make the parts of what a guest starts with what they shall be; raises CommandError.

    What libvirt keeps secret is read with the rest and goes back as it is; it is kept nowhere.
    """
    text = virsh(system, "dumpxml", "--inactive", "--security-info", "--domain", name)
    virsh(system, "define", "/dev/stdin", input=with_parts(text, wanted))


def update(system: System, name: str, interface: Tree) -> None:
    """Change an interface of a running guest in place; raises CommandError."""
    text = tree.write(overlay.given(interface))
    virsh(system, "update-device", name, "/dev/stdin", "--live", input=text)


def plug(system: System, name: str, interface: Tree) -> None:
    """Give a running guest one more interface; raises CommandError."""
    text = tree.write(overlay.given(interface))
    virsh(system, "attach-device", name, "/dev/stdin", "--live", input=text)


def unplug(system: System, name: str, mac: str) -> bool:
    """Ask a running guest to let go of an interface, and say whether it did."""
    import time

    book = read(system, name)
    have = interfaces(book["live"]).get(mac) if book else None
    if have is None:
        return True
    try:
        virsh(system, "detach-device", name, "/dev/stdin", "--live", input=tree.write(have))
    except CommandError as error:
        if "already in the process of unplug" not in error.completed.err:
            raise
    limit = system.boottime() + UNPLUGGING
    while system.boottime() < limit:
        book = read(system, name)
        if book is None or mac not in interfaces(book["live"]):
            return True
        time.sleep(0.1)
    return False


def same(one: Parts | None, other: Parts | None) -> bool:
    """Say whether the parts of two documents mean the same."""
    if one is None or other is None:
        return one is other
    return not _changed(one, other) and pins.effective(one) == pins.effective(other)


def _changed(one: Parts, other: Parts) -> list[str]:
    these, those = _plain(one), _plain(other)
    macs = dict.fromkeys((*these, *those))
    return [
        mac
        for mac in macs
        if mac not in these or mac not in those or not tree.equal(these[mac], those[mac])
    ]


def _plain(wanted: Parts) -> dict[str, Tree]:
    """Return interfaces by MAC, without the number that each turn in a network gets anew."""
    found: dict[str, Tree] = {}
    for text in wanted["interfaces"]:
        each = tree.parse(text)
        source = tree.child(each, "source")
        if source is not None:
            source["attributes"].pop("portid", None)
        found[mac_of(each)] = each
    return found


def put(system: System, name: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Make the parts of a guest what they were, as it runs and as it will start.

    Raises CommandError: also where a guest does not let go of what was plugged in.
    """
    if then["config"] and now["config"] and not same(then["config"], now["config"]):
        define(system, name, then["config"])
    if not (then["live"] and now["live"]):
        return  # it was shut down or started meanwhile, with the definition it had then
    these = {mac_of(t): t for t in map(tree.parse, then["live"]["interfaces"])}
    those = {mac_of(t): t for t in map(tree.parse, now["live"]["interfaces"])}
    for mac in _changed(then["live"], now["live"]):
        if mac not in those:
            plug(system, name, these[mac])
        elif mac in these:
            update(system, name, these[mac])
        elif not unplug(system, name, mac):
            from fleet.host.kernel.system import Completed

            said = f"{name} does not let go of the interface {mac}"
            raise CommandError(Completed([VIRSH, "detach-device"], 1, "", said), said)
    pins.put(system, name, then["live"], now["live"])
