"""Who holds a device: a process with an open tun, tap or macvtap is a guest's.

A guest is known by what is held, never by a name. A tun or tap descriptor names its device in
``/proc/PID/fdinfo`` (``iff:``, drivers/net/tun.c); a macvtap's is an open ``/dev/tapN``, where N is
the device's index.
"""

from __future__ import annotations

import os

from fleet.host.kernel.system import path_of_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

    Words = dict[str, Any]


#: It holds the internal ports of its own bridges, which are no guests'.
SWITCH = "ovs-vswitchd"


def holders(system: System, links: dict[str, Words]) -> dict[str, list[Words]]:
    """Return who holds each device, as ``{"pid", "command", "guest"}`` for each process.

    ``guest`` is the name QEMU was started with, else the command. One pass over /proc, and none
    where no device of this namespace can be held; processes that end meanwhile are no error.
    """
    taps = {name: link for name, link in links.items() if link["kind"] == "tun"}
    indexes = {link["index"]: name for name, link in links.items() if link["kind"] == "macvtap"}
    found: dict[str, list[Words]] = {}
    if not taps and not indexes:
        return found
    here = _own_namespace(system)
    proc = system.root + "/proc"
    for pid in sorted(os.listdir(proc)):
        if not pid.isdigit():
            continue
        held = _held_by(f"{proc}/{pid}", taps, indexes)
        if not held:
            continue
        words = _words(proc, pid)
        if words["command"] == SWITCH:
            continue
        near = _link(f"{proc}/{pid}/ns/net") == here
        for device in sorted(held):
            # Two namespaces may have a tap of one name. A device without carrier has no holder
            # elsewhere: the kernel takes it off with the last descriptor.
            if near or links[device]["carrier"]:
                found.setdefault(device, []).append(words)
    return found


def files_held(system: System, start: str) -> dict[str, list[Words]]:
    """Return who has the files open whose paths start so, by path, in words as ``holders`` has.

    ``drives`` says that a process has a device of vfio's, not only the way to one.
    """
    proc = system.root + "/proc"
    found: dict[str, list[Words]] = {}
    for pid in sorted(os.listdir(proc)):
        if not pid.isdigit():
            continue
        try:
            descriptors = os.listdir(f"{proc}/{pid}/fd")
        except OSError:
            continue  # it has ended meanwhile
        targets = {_link(f"{proc}/{pid}/fd/{descriptor}") for descriptor in descriptors}
        held = sorted(target for target in targets if target.startswith(start))
        if held:
            drives = "anon_inode:[vfio-device]" in targets or any("/devices/" in t for t in held)
            words = {**_words(proc, pid), "drives": drives}
            for target in held:
                found.setdefault(target, []).append(words)
    return found


def inhabitants(system: System) -> list[str]:
    """Return the processes that run in a namespace as ``command (pid)``; none where it is gone."""
    try:
        own = os.stat(path_of_namespace(system.namespace)).st_ino
    except OSError:
        return []
    proc, found = system.root + "/proc", []
    for pid in sorted(os.listdir(proc)):
        if not pid.isdigit():
            continue
        try:
            if os.stat(f"{proc}/{pid}/ns/net").st_ino == own:
                found.append(f"{_words(proc, pid)['command']} ({pid})")
        except OSError:
            continue  # it has ended meanwhile
    return found


def _own_namespace(system: System) -> str:
    with system.enter():
        return _link("/proc/thread-self/ns/net")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _held_by(process: str, taps: dict[str, Words], indexes: dict[int, str]) -> set[str]:
    held: set[str] = set()
    try:
        descriptors = os.listdir(process + "/fd")
    except OSError:
        return held
    for descriptor in descriptors:
        target = _link(f"{process}/fd/{descriptor}")
        if not target.startswith("/dev/"):
            continue
        if "/net/tun" in target:
            name = _interface(f"{process}/fdinfo/{descriptor}")
            if name in taps:
                held.add(name)
        elif target.startswith("/dev/tap"):
            number = target[8:].partition(" ")[0]
            if number.isdigit() and int(number) in indexes:
                held.add(indexes[int(number)])
    return held


def _interface(path: str) -> str:
    for line in _bytes(path).split(b"\n"):
        if line.startswith(b"iff:"):
            return line[4:].strip().decode("utf-8", "surrogateescape")
    return ""


def _bytes(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _words(proc: str, pid: str) -> Words:
    command = _bytes(f"{proc}/{pid}/comm").strip().decode("utf-8", "replace")
    arguments = _bytes(f"{proc}/{pid}/cmdline").decode("utf-8", "replace").split("\0")
    return {"pid": int(pid), "command": command, "guest": guest_name(arguments) or command}


def guest_name(arguments: list[str]) -> str:
    """Return the name in QEMU's ``-name guest=NAME,...`` or ``-name NAME``, empty without one."""
    for flag, value in zip(arguments, arguments[1:]):
        if flag not in ("-name", "--name"):
            continue
        # QEMU's option syntax: a comma of a value is doubled.
        parts = value.replace(",,", "\0").split(",")
        for part in parts:
            if part.startswith("guest="):
                return part[6:].replace("\0", ",")
        return parts[0].replace("\0", ",")
    return ""
