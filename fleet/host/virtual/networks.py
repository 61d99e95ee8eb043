"""libvirt's networks: what virsh(1) reads and changes, what runs and what is defined apart.

A book is ``{"defined", "running", "autostart"}``: two documents, each empty where there is none.
"""

from __future__ import annotations

import posix
import time

from fleet.host.change import HostError
from fleet.host.kernel.system import LATE, CommandError, exists
from fleet.host.virtual import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import Completed, System

    Book = dict[str, Any]
    Tree = dict[str, Any]

VIRSH = "virsh"
URI = "qemu:///system"
#: Seconds for each call: a libvirtd that hangs never answers, and its own keepalive takes 30.
TIMEOUT, STARTING = 8.0, 30.0
#: And seconds after one that was waited for in vain in which no other is.
QUIET = 5.0
#: libvirt's own normalisation, inside virsh: no daemon is asked and nothing is kept.
_SCRATCH = "test:///default"
_EMPTY_SCRATCH = "net-destroy default; net-undefine default; "
#: What ``net-update`` changes in a running network, by section, as the path to its elements.
LIVE = {
    "ip-dhcp-range": ("ip", "dhcp", "range"),
    "ip-dhcp-host": ("ip", "dhcp", "host"),
    "portgroup": ("portgroup",),
    "dns-host": ("dns", "host"),
    "dns-txt": ("dns", "txt"),
    "dns-srv": ("dns", "srv"),
}
#: Flags of a bridge's port that are lost when it leaves the bridge (net/bridge/br_sysfs_if.c).
_PORT_FLAGS = ("isolated", "hairpin_mode", "learning", "unicast_flood", "path_cost", "priority")


def virsh(
    system: System, *words: str, input: str | None = None, timeout: float = TIMEOUT, uri: str = URI
) -> str:
    """Return what virsh prints; raises CommandError with libvirt's own reason."""
    return ask(system, *words, input=input, timeout=timeout, uri=uri).out


#: Until when nobody waits for libvirtd again, and why.
_quiet: tuple[float, CommandError] | None = None


def ask(
    system: System,
    *words: str,
    input: str | None = None,
    timeout: float = TIMEOUT,
    uri: str = URI,
    check: bool = True,
) -> Completed:
    """Return what a call of virsh did; one that follows a wait in vain fails at once.

    A way back looks some twenty times in a round, and the rest of it waits for none of them.
    """
    global _quiet
    if _quiet is not None and time.monotonic() < _quiet[0]:
        raise _quiet[1]
    try:
        return system.run([VIRSH, "-q", "-c", uri, *words], input, timeout, check)
    except CommandError as error:
        if error.completed.code == LATE:
            _quiet = time.monotonic() + QUIET, error
        raise


def listing(system: System) -> dict[str, Book]:
    """Return the books of all networks by name, without their documents; raises CommandError."""
    found: dict[str, Book] = {}
    for line in virsh(system, "net-list", "--all").splitlines():
        name, state, autostart, persistent = line.rsplit(None, 3)
        found[name.strip()] = {
            "active": state == "active",
            "autostart": autostart == "yes",
            "persistent": persistent == "yes",
        }
    return found


def read(system: System, name: str, known: dict[str, Book] | None = None) -> Book | None:
    """Return the book of a network, None where there is none; raises CommandError."""
    here = (listing(system) if known is None else known).get(name)
    if here is None:
        return None
    defined = running = ""
    if here["persistent"]:
        defined = virsh(system, "net-dumpxml", "--inactive", "--network", name)
    if here["active"]:
        running = virsh(system, "net-dumpxml", "--network", name)
    return {"defined": defined, "running": running, "autostart": here["autostart"]}


def normal(system: System, text: str) -> Tree:
    """Return a definition as libvirt itself understands it; raises CommandError with its reason.

    It is checked against libvirt's own schema too, where the machine has that.
    """
    system.run([VIRSH, "-q", "-c", _SCRATCH, _EMPTY_SCRATCH + "version"], timeout=TIMEOUT)
    name = name_of(text)
    options = "--validate " if exists("/usr/share/libvirt/schemas/network.rng") else ""
    commands = f"{_EMPTY_SCRATCH}net-define {options}/dev/stdin; net-dumpxml --network {name}"
    out = system.run([VIRSH, "-q", "-c", _SCRATCH, commands], text, timeout=TIMEOUT).out
    return tree.parse(out[out.index("<network") :])


def name_of(text: str) -> str:
    """Return the name in a definition, empty where it has none; raises ValueError."""
    found = tree.child(tree.parse(text), "name")
    return str(found["text"]) if found else ""


def completed(wanted: Tree, now: Tree | None) -> Tree:
    """Return a wanted form with what libvirt made up when it first defined the network."""
    if now is None:
        return wanted
    done: Tree = {**wanted, "children": [dict(each) for each in wanted["children"]]}
    for tag in ("uuid", "mac"):
        made = tree.child(now, tag)
        given = tree.child(done, tag)
        if made is not None and (given is None or tag == "uuid"):
            rest = [each for each in done["children"] if each["tag"] != tag]
            done["children"] = [*rest, made]
    bridge, made = tree.child(done, "bridge"), tree.child(now, "bridge")
    if bridge is not None and made is not None and "name" not in bridge["attributes"]:
        name = made["attributes"].get("name")
        if name:
            bridge["attributes"] = {"name": name, **bridge["attributes"]}
    return done


def meaning(now: Tree, wanted: Tree) -> Tree:
    """Return a form without what libvirt writes into it by itself, unless it is wanted."""
    found: Tree = {**now, "children": [dict(each) for each in now["children"]]}
    _drop(found, "connections")
    forward, asked = tree.child(found, "forward"), tree.child(wanted, "forward")
    if forward is not None and asked is not None:
        tags = {each["tag"] for each in asked["children"]}
        # A running NAT says which ports it takes, and a pool which of its devices it found.
        own = [t for t in ("nat", "interface", "address") if t not in tags]
        keep = [each for each in forward["children"] if each["tag"] not in own]
        forward["children"] = keep
        if "dev" not in asked["attributes"]:
            attributes = forward["attributes"]
            forward["attributes"] = {k: v for k, v in attributes.items() if k != "dev"}
    return found


def _drop(node: Tree, name: str) -> None:
    node["attributes"] = {k: v for k, v in node["attributes"].items() if k != name}
    node["children"] = [dict(each) for each in node["children"]]
    for each in node["children"]:
        _drop(each, name)


def differing(text: str, wanted: Tree) -> list[tuple[str, Any, Any]]:
    """Return where a document of libvirt's differs from what is wanted, by path."""
    now = tree.parse(text)
    full = completed(wanted, now)
    return tree.differences(meaning(now, full), full)


def updates(text: str, wanted: Tree) -> list[list[str]] | None:
    """Return the ``net-update`` commands that make a running network what is wanted; None where
    only a new start does."""
    now = tree.parse(text)
    full = completed(wanted, now)
    now = meaning(now, full)
    found: list[list[str]] = []
    for section, path in LIVE.items():
        pairs = [(-1, now, full)]
        if path[0] == "ip":
            parents = zip(_children(now, "ip"), _children(full, "ip"))
            pairs = [(number, one, other) for number, (one, other) in enumerate(parents)]
        for number, one, other in pairs:
            inner = path[1:] if number >= 0 else path
            have, want = _elements(one, inner), _elements(other, inner)
            where = ["--parent-index", str(number)] if number >= 0 else []
            for action, these in (
                ("delete", tree.missing(have, want)),
                ("add-last", tree.missing(want, have)),
            ):
                for each in these:
                    found.append([action, section, "--xml", tree.write(each), *where])
    skeletons = (_skeleton(now), _skeleton(full))
    return found if tree.equal(*skeletons) else None


def _children(node: Tree, tag: str) -> list[Tree]:
    return [each for each in node["children"] if each["tag"] == tag]


def _elements(node: Tree, path: tuple[str, ...]) -> list[Tree]:
    if len(path) == 1:
        return _children(node, path[0])
    inner = tree.child(node, path[0])
    return _elements(inner, path[1:]) if inner is not None else []


def _skeleton(node: Tree, at: tuple[str, ...] = ()) -> Tree:
    """Return a form without what ``net-update`` can change."""
    kept = [
        _skeleton(each, (*at, each["tag"]))
        for each in node["children"]
        if (*at, each["tag"]) not in LIVE.values()
    ]
    return {**node, "children": kept}


def bridge_of(text: str) -> str:
    """Return the device of a network's bridge, empty where it has none."""
    return tree.attribute(tree.parse(text), "bridge", "name") if text else ""


def define(system: System, wanted: Tree, now: str) -> None:
    """Define a network anew, with the identity it had."""
    full = completed(wanted, tree.parse(now) if now else None)
    virsh(system, "net-define", "/dev/stdin", input=tree.write(full))


def run(system: System, name: str, wanted: Tree, running: str) -> None:
    """Make a running network what is wanted, in place where libvirt can, else by a new start.

    A new start takes the bridge away: every port it had comes back with its flags.
    """
    commands = updates(running, wanted)
    if commands is not None:
        for command in commands:
            virsh(system, "net-update", name, *command, "--live")
        return
    bridge = bridge_of(running)
    ports = _ports(system, bridge) if bridge else {}
    virsh(system, "net-destroy", name, timeout=STARTING)
    virsh(system, "net-start", name, timeout=STARTING)
    _put_ports(system, bridge_of(virsh(system, "net-dumpxml", name)) or bridge, ports)


def _put_ports(system: System, bridge: str, ports: dict[str, dict[str, str]]) -> None:
    for port, flags in ports.items():
        system.run(["ip", "link", "set", port, "master", bridge])
        for flag, value in flags.items():
            system.write(f"/sys/class/net/{port}/brport/{flag}", value)


def _ports(system: System, bridge: str) -> dict[str, dict[str, str]]:
    try:
        names = posix.listdir(f"{system.root}/sys/class/net/{bridge}/brif")
    except OSError:
        return {}
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        place = f"/sys/class/net/{name}/brport/"
        values = ((flag, system.read(place + flag)) for flag in _PORT_FLAGS)
        found[name] = {flag: value.strip() for flag, value in values if value is not None}
    return found


def take_away(system: System, name: str, now: Book) -> None:
    """End a network and forget its definition."""
    if now["running"]:
        virsh(system, "net-destroy", name, timeout=STARTING)
    if now["defined"]:
        virsh(system, "net-undefine", name)


def put(system: System, name: str, then: Book | None, now: Book | None) -> None:
    """Make a network what a book says."""
    if then is None:
        if now is not None:
            take_away(system, name, now)
        return
    if now is not None and _uuid(now) != _uuid(then):
        take_away(system, name, now)
        now = None
    now = now or {"defined": "", "running": "", "autostart": False}
    if now["running"] and not then["running"]:
        virsh(system, "net-destroy", name, timeout=STARTING)
    elif then["running"] and not same(then["running"], now["running"]):
        _run_again(system, name, then["running"], now["running"])
    if then["defined"]:
        virsh(system, "net-define", "/dev/stdin", input=then["defined"])
        flag = [] if then["autostart"] else ["--disable"]
        virsh(system, "net-autostart", name, *flag)
    elif now["defined"]:
        virsh(system, "net-undefine", name)


def _run_again(system: System, name: str, then: str, now: str) -> None:
    """Start with the form that ran: what is defined may be another one."""
    wanted = meaning(tree.parse(then), tree.parse(then))
    virsh(system, "net-define", "/dev/stdin", input=tree.write(wanted))
    if now:
        run(system, name, wanted, now)
        return
    bridge = bridge_of(then)
    ports = _ports(system, bridge) if bridge else {}
    if bridge and tree.attribute(wanted, "forward", "mode") != "bridge":
        clear(system, name, bridge)
    virsh(system, "net-start", name, timeout=STARTING)
    _put_ports(system, bridge, ports)


def clear(system: System, name: str, bridge: str) -> None:
    """Take away what a libvirtd that was killed while it started or ended a network left of it.

    It knows nothing of that any more, and starts no network while its bridge is there.
    """
    pid = (system.read(f"/run/libvirt/network/{name}.pid") or "").strip()
    words = (system.read(f"/proc/{pid}/cmdline") or "").split("\0") if pid.isdigit() else []
    if any(word.endswith(f"/dnsmasq/{name}.conf") for word in words):
        system.run(["kill", pid], check=False)
    if system.read(f"/sys/class/net/{bridge}/bridge/bridge_id") is not None:
        system.run(["ip", "link", "delete", bridge, "type", "bridge"])


def _uuid(book: Book) -> str:
    found = tree.child(tree.parse(book["defined"] or book["running"]), "uuid")
    return str(found["text"]) if found else ""


def same(one: str, other: str) -> bool:
    """Say whether two documents mean the same; empty ones do."""
    if not one or not other:
        return one == other
    trees = [tree.parse(text) for text in (one, other)]
    for each in trees:
        _drop(each, "connections")
    return tree.equal(*trees)


def reason_of(error: CommandError) -> str:
    """Return libvirt's own reason of a refusal, in one line."""
    text = error.completed.err or str(error)
    lines = [line.partition("error: ")[2] or line for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line.startswith("failed to get network"):
            del lines[number:]  # only what follows from a definition that was refused
            break
    return "; ".join(line for line in lines if "/dev/stdin" not in line)[:600]


def silent(key: str, error: CommandError) -> HostError:
    """Return what a resource is told of where libvirt does not answer."""
    return HostError(
        key,
        "libvirt to answer",
        reason_of(error),
        "start libvirtd, or install libvirt-daemon-system and libvirt-clients",
    )
