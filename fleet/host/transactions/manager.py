"""The host's own network manager tries a commit's files out before anybody confirms them.

They go into its directory under /run, which no boot finds again, and it reads them anew: what is
verified and confirmed then is what it makes of them. The commit renames the staged ones into /etc.
"""

from __future__ import annotations

import os
import stat
import sys
import time

from fleet.host import wire
from fleet.host.transactions import files, units
from fleet.host.transactions.lasting import NETPLAN, NETWORKD, PREFIX, netplan_generator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.transactions.transaction import Transaction

    #: Path under /run (without the root) → the text and the mode of the file there.
    Files = dict[str, list[Any]]
    Entry = dict[str, Any]

RUN_NETPLAN, RUN_NETWORKD = "/run/netplan/", "/run/systemd/network/"
_RULES = "/run/udev/rules.d/"
#: A file of /etc goes before one of /run that has its name, so while it is tried out it has
#: another one, which comes before.
TRIED = "04-fleet-"
#: What hides fleet's netplan file of /etc: there the one in /run goes first.
_NOTHING = (
    "# Written by fleet: this hides the file of the same name in /etc/netplan.\nnetwork: {}\n"
)
#: Seconds for networkd to configure its links, on the way there and on the way back, and how long
#: nothing may move before that counts as done (it answers a reload before it is through with it).
BUDGET, BACK, STILL = 20.0, 6.0, 0.7
#: Seconds that a verification gives the manager beyond that, and a deadline for all of it.
SETTLE, DEADLINE = 3.5, 12.0
_LINKS = "/run/systemd/netif/links"
_DONE = ("configured", "unmanaged", "linger")
_DOWN = ("no-carrier", "off", "dormant", "missing")


def concerned(entries: list[Entry]) -> list[Entry]:
    """Return those of a transaction's files that the manager reads."""
    return [entry for entry in entries if entry["path"].startswith((NETPLAN, NETWORKD))]


def running(system: System, root: str) -> bool:
    """Whether systemd-networkd runs here; netplan's files end with it, too."""
    from fleet.host.kernel.system import CommandError

    if not os.path.isdir(root + units.BOOTED):
        return False
    argv = ["systemctl", "is-active", "--quiet", "systemd-networkd.service"]
    try:
        return system.run(argv, check=False, timeout=20).code == 0
    except CommandError:
        return False  # a systemd that does not answer starts no timer either: nothing is armed


def look(root: str) -> Files:
    """Return what the manager has under /run."""
    found: Files = {}
    for folder in (RUN_NETPLAN, RUN_NETWORKD, _RULES):
        try:
            names = os.listdir(root + folder)
        except OSError:
            continue
        for name in names:
            if folder == _RULES and "netplan" not in name:
                continue
            path = f"{root}{folder}{name}"
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    text = file.read().decode("utf-8", "surrogateescape")
                owner = [stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid]
                found[folder + name] = [text, *owner]
    return found


def remember(live: str, root: str, system: System, entries: list[Entry]) -> None:
    """Keep what the manager has under /run for the way back, where there is anything to try."""
    if concerned(entries) and running(system, root):
        before = look(root)
        files.create(f"{live}/manager", files.seal(wire.dumps(before)), sync=False)


def remembered(transaction: Transaction) -> Files | None:
    """Return what the manager had under /run when it was armed; None where it was not asked."""
    try:
        text = files.unseal(files.read(f"{transaction.live}/manager"))
    except (OSError, ValueError):
        return None
    found: Files = wire.loads(text)
    return found


def try_out(
    transaction: Transaction, system: System, entries: list[Entry], check: Callable[[], None]
) -> list[dict[str, str]]:
    """Give the manager a commit's files to read, and wait until it is through with them.

    ``check`` raises where the transaction has no more time. Returns problems.
    """
    root, mine = transaction.paths.root, concerned(entries)
    expected = {}
    for entry in mine:
        path, text = _tried(root, entry)
        if not text:
            continue  # the device itself has gone, or udev has named it long ago
        _write(root + path, text, 0o600 if path.startswith(RUN_NETPLAN) else 0o644)
        if path.endswith(".network") and entry["after"] is not None:
            expected[_name_in(text)] = path
    expected.pop("", None)
    if any(entry["path"].startswith(NETPLAN) for entry in mine):
        generate(system, root)
    system.run(["networkctl", "reload"], timeout=20)
    _announce(system, root)
    left = await_links(root, BUDGET, check, expected)
    return [_problem(words) for words in left]


def _announce(system: System, root: str) -> None:
    """Have the kernel say again which of networkd's devices there are.

    networkd joins a port to a bridge that it did not make itself once it has heard of the bridge
    after reading its file (netdev_enter_ready()). do_setlink() announces a device that is given its
    group, the one that it is in already.
    """
    names = set()
    for path, (text, *_) in look(root).items():
        if path.endswith(".netdev"):
            names.add(_name_in(text, "[NetDev]"))
    for name in sorted(names):
        try:
            with open(f"{root}/sys/class/net/{name}/ifindex", encoding="ascii") as file:
                index = int(file.read())
            with open(f"{root}/sys/class/net/{name}/netdev_group", encoding="ascii") as file:
                group = int(file.read())
        except (OSError, ValueError):
            continue  # networkd is about to make it
        system.route.link("set", index=index, group=group)


def _tried(root: str, entry: Entry) -> tuple[str, str]:
    """Return where a file is tried out, and its text there, empty where there need be none."""
    folder, _, name = entry["path"].rpartition("/")
    text = ""
    if entry["after"] is not None:
        with open(f"{root}{entry['staged']}", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    if f"{folder}/" == NETPLAN:
        return RUN_NETPLAN + name, text or _NOTHING
    device, _, suffix = name[len(PREFIX) :].rpartition(".")
    if not text and suffix == "network":
        # A device that is intended no more is left as it is.
        text = f"[Match]\nName={device}\n\n[Link]\nUnmanaged=yes\n"
    return RUN_NETWORKD + tried_name(name), text


def tried_name(name: str) -> str:
    """Return the name in /run of a file that has this one in /etc."""
    return TRIED + (name[len(PREFIX) :] if name.startswith(PREFIX) else name)


def _name_in(text: str, section: str = "[Match]") -> str:
    here = False
    for line in text.splitlines():
        if line.startswith("["):
            here = line == section
        elif here and line.startswith("Name="):
            return line.partition("=")[2]
    return ""


def _write(path: str, text: str, mode: int) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755, exist_ok=True)
        os.chmod(folder, 0o755)  # networkd is not root, and this process has root's umask
    files.replace(path, text.encode("utf-8", "surrogateescape"), mode, sync=False)


def generate(system: System, root: str = "") -> None:
    """Have netplan write networkd's files; raises CommandError."""
    generator = netplan_generator(root)
    if generator:
        system.run([generator, *(["--root-dir", root] if root else [])], timeout=30)


def generate_again(system: System, root: str, entries: list[Entry]) -> None:
    """Have netplan write networkd's files once more, where a boot has changed what it reads.

    Its generator ran before any unit did. What it says goes to the unit's log.
    """
    from fleet.host.kernel.system import CommandError

    if any(entry["path"].startswith(NETPLAN) for entry in entries) and os.path.isdir(
        root + units.BOOTED
    ):
        try:
            generate(system, root)
        except CommandError as error:
            sys.stderr.write(f"fleet: {error}\n")


def await_links(
    root: str,
    budget: float,
    check: Callable[[], None],
    expected: dict[str, str] | None = None,
) -> list[str]:
    """Wait until networkd has configured its links; return what it did not do.

    ``expected`` says by which file a link is to be configured.
    """
    end = time.monotonic() + budget
    since, before = time.monotonic(), None
    while True:
        now = links(root)
        left = _left(now, expected or {})
        if now != before:
            since, before = time.monotonic(), now
        still = time.monotonic() - since >= STILL
        if (not left and still) or time.monotonic() >= end:
            return left
        check()
        time.sleep(0.1)


def links(root: str) -> dict[str, dict[str, str]]:
    """Return what networkd says of each link, by its name."""
    found = {}
    for name in os.listdir(f"{root}/sys/class/net"):
        try:
            with open(f"{root}/sys/class/net/{name}/ifindex", encoding="ascii") as file:
                index = file.read().strip()
            with open(f"{root}{_LINKS}/{index}", encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError:
            continue  # no link any more, or none that networkd has looked at
        words = dict(line.partition("=")[::2] for line in lines)
        found[name] = {
            key: words.get(key, "") for key in ("ADMIN_STATE", "OPER_STATE", "NETWORK_FILE")
        }
    return found


def _left(now: dict[str, dict[str, str]], expected: dict[str, str]) -> list[str]:
    left = []
    for name, path in sorted(expected.items()):
        used = now.get(name, {}).get("NETWORK_FILE", "")
        if name in now and used != path:
            left.append(f"{name}: configured by {used or 'no file'}, which goes before fleet's")
    for name, link in sorted(now.items()):
        state = link["ADMIN_STATE"]
        if not link["NETWORK_FILE"] or state in _DONE:
            continue
        if state == "failed":
            left.append(f"{name}: networkd failed to configure it, see journalctl")
        elif link["OPER_STATE"] not in _DOWN:
            left.append(f"{name}: networkd is not through with it ({state})")
    return left


def _problem(words: str) -> dict[str, str]:
    name, _, rest = words.partition(": ")
    return {
        "resource": f"link {name}",
        "what": "systemd-networkd",
        "expected": "configured by the file that the commit would leave",
        "actual": rest,
        "remedy": "networkctl status says more; take away what stands in the way, or manager: none",
    }


def take_back(system: System, root: str, before: Files) -> list[str]:
    """Put back what the manager had under /run, and have it read that; return what is left to do.

    It goes before the kernel's own way back, which mends what the manager did meanwhile; so a
    manager that does not answer holds nothing up.
    """
    from fleet.host.kernel.system import CommandError

    now, left = look(root), []
    if now == before:
        return []
    for path in now:
        if path not in before:
            files.remove(root + path)
    for path, (text, mode, user, group) in before.items():
        if now.get(path) == before[path]:
            continue
        try:
            _write(root + path, text, mode)
            os.chown(root + path, user, group)
        except OSError as error:
            left.append(f"{path}: {error.strerror}")
    try:
        system.run(["networkctl", "reload"], timeout=10)
    except CommandError as error:
        left.append(f"systemd-networkd: {error}")
        return left
    await_links(root, BACK, lambda: None)
    return left


def drop(root: str, entries: list[Entry]) -> None:
    """Remove what was tried out, once it is in /etc under its own name."""
    for entry in concerned(entries):
        name = entry["path"].rpartition("/")[2]
        if entry["path"].startswith(NETPLAN):
            files.remove(f"{root}{RUN_NETPLAN}{name}")
        else:
            files.remove(f"{root}{RUN_NETWORKD}{tried_name(name)}")
