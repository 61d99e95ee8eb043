"""netplan's own word on the file that a commit would leave: one it refuses is never put in place.

netplan reads all of its files as one; where it stumbles over any, the host boots without a network.
"""

from __future__ import annotations

import os

from fleet.host.preflight import problem
from fleet.host.refusal import Refused
from fleet.host.transactions import files
from fleet.host.transactions.lasting import NETPLAN, netplan_generator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System
    from fleet.host.transactions.files import Paths
    from fleet.host.transactions.lasting import Wanted

#: netplan(5): where its files are, the later ones over the earlier ones of the same name.
_FOLDERS = ("/lib/netplan", "/etc/netplan", "/run/netplan")


def check(system: System, paths: Paths, wanted: Wanted) -> None:
    """Have netplan read the host's files with those of a commit among them, in a directory apart.

    Raises Refused with netplan's reason. Does nothing where no netplan file is wanted.
    """
    ours = {path: wanted[path][0] for path in wanted if path.startswith(NETPLAN)}
    generator = netplan_generator(paths.root)
    if not any(ours.values()) or not generator:
        return
    root = f"{paths.run}/netplan"
    _remove(root)
    try:
        for folder in _FOLDERS:
            os.makedirs(root + folder, 0o700)
            for path, text in {**_present(paths.root, folder), **ours}.items():
                if text is not None and os.path.dirname(path) == folder:
                    files.create(root + path, text.encode("utf-8", "surrogateescape"), sync=False)
        done = system.run([generator, "--root-dir", root], check=False, timeout=20)
    finally:
        _remove(root)
    if done.code:
        said = " ".join(done.err.replace(root, "").split())[:400]
        raise Refused(
            "refused",
            "netplan would refuse its files at the next boot; nothing was changed",
            [
                problem(
                    "netplan",
                    "files that netplan reads",
                    said or f"exit code {done.code}",
                    "correct what it names, or leave the key out of the intent",
                )
            ],
        )


def _present(root: str, folder: str) -> dict[str, str]:
    found = {}
    try:
        names = os.listdir(root + folder)
    except OSError:
        return {}
    for name in names:
        if name.endswith(".yaml"):
            with open(f"{root}{folder}/{name}", errors="surrogateescape") as file:
                found[f"{folder}/{name}"] = file.read()
    return found


def _remove(root: str) -> None:
    for folder, names, plain in os.walk(root, topdown=False):
        for name in plain:
            os.unlink(f"{folder}/{name}")
        for name in names:
            path = f"{folder}/{name}"
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    if os.path.isdir(root):
        os.rmdir(root)
