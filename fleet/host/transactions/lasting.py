"""What a committed state leaves in files, and whether it is there: what the next boot will find.

The kernel's state is gone after a boot. What brings it back is in files: the manager's, sysctl.d's,
and the committed state itself, which fleet's own units apply. A plan counts what differs in them as
changes of the kind ``file``: nothing happens now, so their impact is none, and no step applies
them; the commit renames them all.
"""

from __future__ import annotations

import posix
from _stat import S_IMODE, S_ISLNK, S_ISREG

from fleet.host import wire
from fleet.host.change import CREATE, DELETE, FILE, UPDATE, Change, Problem
from fleet.host.planning import ledger
from fleet.host.spec import encode
from fleet.host.transactions import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Plan, Resource
    from fleet.host.state import State
    from fleet.host.transactions.files import Paths

    #: Path (without the root) → its text, None where it should not be there, and its mode.
    Wanted = dict[str, tuple[str | None, int]]

SYSCTL = "/etc/sysctl.d/90-fleet.conf"
STATE = "state.json"
#: Where the text the controller rendered may go; anything else is refused.
NETPLAN, NETWORKD = "/etc/netplan/", "/etc/systemd/network/"
#: How fleet's own files there are named, and begin: where the intent names another manager, these
#: go, and nobody else's. networkd takes the first file that matches a device, so ours come before
#: what a site keeps; netplan merges its files, so there ours come last.
PREFIX = "05-fleet-"
_OURS, _HEADER = ("90-fleet", PREFIX), b"# Written by fleet"
HEADER = "# Written by fleet; the next commit replaces it.\n"
#: fleet.host.transactions.units installs them: what applies the committed state.
_UNITS = (
    "fleet-recover",
    "fleet-recover-ovs",
    "fleet-recover-libvirt",
    "fleet-apply-early",
    "fleet-apply-switch",
    "fleet-apply",
    "fleet-prove",
)
_UNIT_FOLDER = "/etc/systemd/system"
#: netplan's systemd generator, by where releases have put it.
GENERATORS = ("/usr/libexec/netplan/generate", "/usr/lib/netplan/generate")
#: What starts networkd at boot is here: its [Install], and what netplan's generator makes.
_ENABLED = (
    "/etc/systemd/system/multi-user.target.wants",
    "/usr/lib/systemd/system/multi-user.target.wants",
    "/run/systemd/generator.late/multi-user.target.wants",
)
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
#: Lines of a difference that are shown.
_LINES = 20


def sysctl_text(resources: Any) -> str | None:
    """Return the sysctl.d(5) file for a state's keys, None where it names none."""
    lines = sorted(_sysctl_line(each) for each in resources if _is_sysctl(each))
    if not lines:
        return None
    return "# Written by fleet; the next commit replaces it.\n" + "".join(lines)


def _is_sysctl(resource: Resource) -> bool:
    return resource.kind == "sysctl" and not resource.namespace


def _sysctl_line(resource: Resource) -> str:
    value = str((resource.spec or {}).get("value", ""))
    if "\n" in value or "\n" in resource.name:
        raise ValueError(f"sysctl/{resource.name}: a value cannot have more than one line")
    return f"{resource.name} = {value}\n"


def check_path(path: str) -> str:
    """Return a path the manager's text may be written to; raises ValueError for any other."""
    folder, _, name = path.rpartition("/")
    if (
        f"{folder}/" not in (NETPLAN, NETWORKD)
        or name.startswith(".")
        or not name.replace("-", "").replace("_", "").replace(".", "").replace("@", "").isalnum()
    ):
        raise ValueError(f"{path!r} is no file of the host's network manager")
    return path


def wanted(
    paths: Paths, state: State, manager: dict[str, Any], entries: dict[str, ledger.Entry]
) -> Wanted:
    """Return the files outside of fleet's own directory that a commit of a state leaves.

    ``manager`` is {"files": {path: text}} as the controller sends it. Raises ValueError.
    """
    found: Wanted = {path: (None, _mode(path)) for path in _ours(paths.root)}
    for path, text in (manager.get("files") or {}).items():
        found[check_path(path)] = (with_macs(text, paths.root), _mode(path))
    text = sysctl_text(state.resources)
    if text is not None and not _exists(paths.root + SYSCTL) and _host_says(paths.root, state):
        return found
    if text is not None or any(_is_sysctl(entry) for entry in entries.values()):  # type: ignore[arg-type]
        found[SYSCTL] = (text, 0o644)
    return found


def mac_of(device: str) -> str:
    """Return what stands in a manager's file for the MAC of a NIC, which only its host knows."""
    return f"{_MAC[0]}{device}{_MAC[1]}"


#: No name of a device has these around it, and no manager's word.
_MAC = ("<mac of ", ">")


def with_macs(text: str, root: str = "") -> str:
    """Return a manager's file with the MACs of this host's NICs filled in.

    Where the host lacks the NIC, ``none``: a plan has a problem with that NIC anyway.
    """
    parts = text.split(_MAC[0])
    for number, part in enumerate(parts[1:], 1):
        device, _, rest = part.partition(_MAC[1])
        try:
            with open(f"{root}/sys/class/net/{device}/address", encoding="ascii") as file:
                parts[number] = file.read().strip() + rest
        except OSError:
            parts[number] = "none" + rest
    return "".join(parts)


def _host_says(root: str, state: State) -> bool:
    """Say whether the host's own files give every key of a state its value: an adopted host is
    somebody's who keeps it by such files.
    """
    from fleet.host.kernel.sysctl_files import written

    own = written(root)
    return all(
        own.get(each.name) == (each.spec or {}).get("value")
        for each in state.resources
        if _is_sysctl(each)
    )


def _mode(path: str) -> int:
    # netplan(5) warns about files others can read, for they may hold secrets.
    return 0o600 if path.startswith(NETPLAN) else 0o644


def _ours(root: str) -> list[str]:
    """Return the manager's files that an earlier commit left, by their name and first line."""
    found = []
    for folder in (NETPLAN, NETWORKD):
        try:
            names = posix.listdir(root + folder)
        except OSError:
            continue
        for name in names:
            if name.startswith(_OURS) and _begins_as_ours(f"{root}{folder}{name}"):
                found.append(folder + name)
    return found


def _begins_as_ours(path: str) -> bool:
    try:
        descriptor = posix.open(path, _READ)
    except OSError:
        return False
    try:
        return posix.read(descriptor, len(_HEADER)) == _HEADER
    finally:
        posix.close(descriptor)


def with_files(
    plan: Plan,
    paths: Paths,
    state: State,
    manager: dict[str, Any],
    entries: dict[str, ledger.Entry],
) -> Plan:
    """Return a plan with what differs in files as its last changes, bound by its digest.

    That the committed state is another counts only where nothing else changes: a commit of
    anything writes it anew. Raises ValueError for a path that is not the manager's.
    """
    expected = wanted(paths, state, manager, entries)
    changes: list[Change] = []
    bound: list[Any] = [plan.digest]
    for path in sorted(expected):
        text, mode = expected[path]
        found = look(paths.root + path)
        differences = _difference(path, found, text, mode)
        changes += differences
        bound += [[encode(each) for each in differences], found, text] if differences else []
    changes += _missing_units(paths.root) if entries else []
    if not changes and not plan.changes:
        changes += _committed(paths, state, entries)
    problems = _unready(paths.root, manager)
    if not changes and not problems:
        return plan
    bound += encode((changes, problems))
    return type(plan)(
        (*plan.changes, *changes),
        files.sha256(wire.dumps(bound)),
        (*plan.problems, *problems),
        plan.unmanaged,
        plan.settle,
    )


def _unready(root: str, manager: dict[str, Any]) -> list[Problem]:
    """Return why the host's manager would not read its files at the next boot."""
    paths = list(manager.get("files") or ())
    if any(path.startswith(NETPLAN) for path in paths) and not netplan_generator(root):
        remedy = "install the package netplan.io, or write fleet: {manager: none}"
        return [Problem("host", "netplan", GENERATORS[0], "no such program", remedy)]
    booted = _exists(f"{root}/run/systemd/system/")
    if not booted or not any(path.startswith(NETWORKD) for path in paths):
        return []
    if any(_exists(f"{root}{folder}/systemd-networkd.service") for folder in _ENABLED):
        return []
    remedy = "systemctl enable --now systemd-networkd, or write fleet: {manager: none}"
    return [Problem("host", "systemd-networkd", "to start at boot", "it is not enabled", remedy)]


def netplan_generator(root: str) -> str:
    """Return the program by which netplan reads its files at boot, empty where there is none."""
    return next((path for path in GENERATORS if posix.access(root + path, posix.X_OK)), "")


def _difference(
    path: str, found: dict[str, Any] | None, text: str | None, mode: int
) -> list[Change]:
    if found is None or text is None:
        if found is None and text is None:
            return []
        action = DELETE if text is None else CREATE
        return [Change(kind=FILE, name=path, action=action)]
    if "text" not in found:
        is_now = f"a link to {found['link']}" if "link" in found else "no regular file"
        return [_change(path, "type", is_now, "a regular file")]
    changes = []
    if found["text"] != text:
        before, after = _lines(found["text"], text), _lines(text, found["text"])
        if before == after:
            before, after = ["the same lines in another order"], ["in their order"]
        changes.append(_change(path, "text", before, after))
    if not is_private_enough(found, mode):
        changes.append(_change(path, "mode", _owned(found), f"{mode:04o} root"))
    return changes


def is_private_enough(found: dict[str, Any], mode: int) -> bool:
    """Whether a file's mode and owner are as a commit leaves them."""
    return bool(found["mode"] == mode and found["uid"] == posix.geteuid())


def _owned(found: dict[str, Any]) -> str:
    owner = "root" if found["uid"] == 0 else f"uid {found['uid']}"
    return f"{found['mode']:04o} {owner}"


def _change(path: str, what: str, before: Any, after: Any) -> Change:
    return Change(kind=FILE, name=path, action=UPDATE, what=what, before=before, after=after)


def _lines(text: str, other: str) -> list[str]:
    """Return the lines of a text that another lacks, the first of them."""
    known = set(other.splitlines())
    return [line.strip() for line in text.splitlines() if line not in known][:_LINES]


def look(target: str) -> dict[str, Any] | None:
    """Return what is at a path: {"text", "mode", "uid", "gid"}, {"link"}, {} for anything else,
    None where there is nothing.
    """
    try:
        status = posix.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if S_ISLNK(status.st_mode):
        return {"link": posix.readlink(target)}
    if not S_ISREG(status.st_mode):
        return {}
    descriptor = posix.open(target, _READ)
    with open(descriptor, "rb") as file:
        text = file.read().decode("utf-8", "surrogateescape")
    mode = S_IMODE(status.st_mode)
    return {"text": text, "uid": status.st_uid, "gid": status.st_gid, "mode": mode}


def _missing_units(root: str) -> list[Change]:
    """Return the boot units that a host with systemd as PID 1 lacks; arming installs them."""
    if not _exists(f"{root}/run/systemd/system/"):
        return []
    units = [f"{_UNIT_FOLDER}/{name}.service" for name in _UNITS]
    missing = [unit for unit in units if not _exists(root + unit)]
    return [Change(kind=FILE, name=unit, action=CREATE) for unit in missing]


def _exists(path: str) -> bool:
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True


def _committed(paths: Paths, state: State, entries: dict[str, ledger.Entry]) -> list[Change]:
    """Return what is wrong with the committed state, from which fleet's units start at boot."""
    name = f"/var/lib/fleet/{STATE}"
    if not entries:
        # Nothing was ever committed: what is as intended was made, and is kept, by somebody else.
        return []
    try:
        files.unseal(files.read(f"{paths.state}/{STATE}"))
    except FileNotFoundError:
        return [Change(kind=FILE, name=name, action=CREATE)]
    except (OSError, ValueError) as error:
        return [_change(name, "text", f"damaged: {error}", "as it was committed")]
    before = {key: entry.spec or {} for key, entry in entries.items()}
    after = {resource.key: resource.spec or {} for resource in state.resources}
    other = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    if not other:
        return []
    was = [key for key in other if key in before][:_LINES]
    will = [key for key in other if key in after][:_LINES]
    return [_change(name, "resources", was, [f"{key}, as intended now" for key in will])]
