"""What a host must have before fleet works on it; looks, and changes nothing."""

from __future__ import annotations

import os
import sys

from fleet.host.transactions.files import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OLDEST = (3, 9)
#: Bytes that must be free where the journal goes.
SPACE = 4 << 20
#: Programs some kinds use; none is needed for links, addresses, routes and sysctls.
TOOLS = ("systemd-run", "netplan", "networkctl", "nft", "ovs-vsctl", "virsh", "ethtool", "tc")
_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")


def problem(what: str, expected: str, actual: str, remedy: str) -> dict[str, str]:
    """Return a Problem of the host itself as plain data."""
    return {
        "resource": "host",
        "what": what,
        "expected": expected,
        "actual": actual,
        "remedy": remedy,
    }


def tools() -> dict[str, str]:
    """Return where the optional programs are, by absolute path."""
    found = {}
    for tool in TOOLS:
        for folder in _FOLDERS:
            if os.access(f"{folder}/{tool}", os.X_OK):
                found[tool] = f"{folder}/{tool}"
                break
    return found


def check(paths: Paths) -> list[dict[str, str]]:
    """Return what keeps fleet from changing this host, one problem each; empty if nothing does."""
    found = []
    if sys.version_info < OLDEST:
        found.append(
            problem(
                "python",
                "Python 3.9 or newer",
                sys.version.split()[0],
                "install a newer python3 on the host",
            )
        )
    if os.geteuid() != 0:
        found.append(
            problem(
                "root",
                "to run as root",
                f"uid {os.geteuid()}",
                "log in as root, or allow sudo -n for this login",
            )
        )
    if not os.path.exists("/proc/self/stat"):
        found.append(problem("/proc", "proc mounted", "nothing there", "mount -t proc proc /proc"))
    for directory in (paths.state, paths.run):
        found += _check_directory(directory)
    return found


def _check_directory(directory: str) -> list[dict[str, str]]:
    existing = directory
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if os.path.islink(directory):
        return [
            problem(
                directory,
                "a directory of root's own",
                "a symbolic link",
                f"see who made it, then remove {directory}",
            )
        ]
    if not os.path.isdir(existing):
        return [problem(directory, "a directory", f"{existing} is none", f"remove {existing}")]
    status: Any = os.stat(existing)
    if status.st_uid != os.geteuid():
        return [
            problem(
                directory,
                "a directory of root's own",
                f"{existing} belongs to uid {status.st_uid}",
                f"chown root {existing}",
            )
        ]
    room = os.statvfs(existing)
    if room.f_flag & os.ST_RDONLY or not os.access(existing, os.W_OK):
        return [
            problem(
                directory,
                "a writable file system",
                f"{existing} is read-only",
                "remount it writable",
            )
        ]
    if directory.endswith("/lib/fleet") and room.f_bavail * room.f_frsize < SPACE:
        free = room.f_bavail * room.f_frsize
        return [problem(directory, f"{SPACE} bytes free", f"{free}", f"make room on {existing}")]
    return []
