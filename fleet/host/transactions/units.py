"""systemd: the transient timer beside the watchdogs, and the units of the boot.

Both run a staged copy of the helper: one archive of its sources, named by content, so that a
Python upgrade between commit and boot cannot break it (compiled code would be refused).
"""

from __future__ import annotations

import os

from fleet.host import wire
from fleet.host.spec import encode, spec
from fleet.host.transactions import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.system import System
    from fleet.host.transactions.files import Paths

#: sd_booted(3): systemd is PID 1 exactly where this directory is.
BOOTED = "/run/systemd/system"
FOLDER = "/etc/systemd/system"
PYTHON = "/usr/bin/python3"
#: Seconds by which the timer leaves the watchdogs, which are faster, the first go.
BEHIND = 1.0

_MAIN = """\
import sys
from fleet.host.helper import unit_main
sys.exit(unit_main(sys.argv[1:]))
"""

_UNIT = """\
[Unit]
{unit}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={python} -I -S -B {archive} {arguments}
TimeoutStartSec={seconds}

[Install]
WantedBy={wanted_by}
"""


@spec
class BootUnit:
    """One unit of the boot: its [Unit] section, what the helper is told, and what wants it."""

    unit: str = ""
    arguments: str = ""
    seconds: int = 120
    wanted_by: str = ""


RECOVER = """\
Description=fleet: put back what was not confirmed before the host went down
DefaultDependencies=no
RequiresMountsFor=/var/lib/fleet /etc
After=local-fs.target systemd-remount-fs.service
Before=systemd-sysctl.service network-pre.target systemd-networkd.service NetworkManager.service
Before=networking.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionDirectoryNotEmpty=/var/lib/fleet/journal"""

RECOVER_OVS = """\
Description=fleet: put back what was not confirmed in the database of Open vSwitch
DefaultDependencies=no
After=fleet-recover.service ovsdb-server.service
Before=ovs-vswitchd.service shutdown.target
Conflicts=shutdown.target
ConditionDirectoryNotEmpty=/var/lib/fleet/journal"""

RECOVER_LIBVIRT = """\
Description=fleet: put back what was not confirmed of libvirt's definitions
After=fleet-recover.service fleet-recover-ovs.service
Before=libvirtd.service virtqemud.service virtnetworkd.service virtnwfilterd.service
ConditionDirectoryNotEmpty=/var/lib/fleet/journal"""

APPLY_EARLY = """\
Description=fleet: kernel parameters of the committed state, before the network
DefaultDependencies=no
RequiresMountsFor=/var/lib/fleet
After=local-fs.target systemd-modules-load.service systemd-sysctl.service fleet-recover.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExists=/var/lib/fleet/state.json"""

APPLY_SWITCH = """\
Description=fleet: flows of the committed state, whenever Open vSwitch starts
RequiresMountsFor=/var/lib/fleet
DefaultDependencies=no
After=ovs-vswitchd.service
PartOf=ovs-vswitchd.service
Before=openvswitch-switch.service shutdown.target
Conflicts=shutdown.target
ConditionPathExists=/var/lib/fleet/state.json"""

APPLY = """\
Description=fleet: the committed state, before libvirt and its guests
RequiresMountsFor=/var/lib/fleet
After=network.target systemd-networkd.service fleet-apply-early.service ovs-vswitchd.service
Before=libvirtd.service virtqemud.service virtnetworkd.service libvirt-guests.service
ConditionPathExists=/var/lib/fleet/state.json"""

PROVE = """\
Description=fleet: the first boot after a commit reaches what it has to, or goes back
RequiresMountsFor=/var/lib/fleet
After=network.target systemd-networkd.service fleet-apply.service ovs-vswitchd.service
Before=libvirtd.service virtqemud.service virtnetworkd.service libvirt-guests.service
ConditionPathExists=/var/lib/fleet/unproven.json"""

UNITS = {
    "fleet-recover.service": BootUnit(RECOVER, "recover --at files", 120, "sysinit.target"),
    "fleet-recover-ovs.service": BootUnit(
        RECOVER_OVS, "recover --at ovs", 120, "ovs-vswitchd.service"
    ),
    "fleet-recover-libvirt.service": BootUnit(
        RECOVER_LIBVIRT, "recover --at libvirt", 120, "multi-user.target"
    ),
    "fleet-apply-early.service": BootUnit(APPLY_EARLY, "boot early", 60, "sysinit.target"),
    "fleet-apply-switch.service": BootUnit(APPLY_SWITCH, "boot switch", 60, "ovs-vswitchd.service"),
    "fleet-apply.service": BootUnit(APPLY, "boot late", 120, "multi-user.target"),
    "fleet-prove.service": BootUnit(PROVE, "boot prove", 300, "multi-user.target"),
}


def unit_texts(archive: str, python: str = PYTHON) -> dict[str, str]:
    """Return the boot units by name, running that archive."""
    return {
        name: _UNIT.format(python=python, archive=archive, **encode(each))
        for name, each in UNITS.items()
    }


def booted(system: System) -> bool:
    """Whether systemd is PID 1 here."""
    return os.path.isdir(system.root + BOOTED)


def timer_name(transaction: str) -> str:
    """Return the transient unit's name without suffix."""
    return f"fleet-deadman-{files.valid_name(transaction)}"


def timer_argv(transaction: str, archive: str, seconds: float, python: str = PYTHON) -> list[str]:
    """Return the systemd-run command that starts a transaction's timer (systemd-run(1))."""
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={timer_name(transaction)}",
        "--slice=system.slice",
        f"--description=fleet: revert {transaction} unless it is confirmed",
        f"--on-active={seconds + BEHIND:.3f}s",
        "--timer-property=AccuracySec=100ms",
        "--property=Restart=on-failure",
        "--property=RestartSec=1s",
        "--property=StartLimitIntervalSec=0",
        "--property=OOMScoreAdjust=-1000",
        "--property=KillMode=process",
        python,
        "-I",
        "-S",
        "-B",
        archive,
        "recover",
        files.valid_name(transaction),
    ]


def start_timer(system: System, transaction: str, archive: str, seconds: float) -> str:
    """Start the timer and read it back; return its name, empty where systemd is not PID 1.

    Raises OSError or CommandError where systemd is there and the timer is not.
    """
    if not booted(system):
        return ""
    install(system, archive)
    system.run(timer_argv(transaction, archive, seconds))
    name = f"{timer_name(transaction)}.timer"
    shown = system.run(["systemctl", "show", "--property=ActiveState,SubState", name]).out
    if "ActiveState=active" not in shown or "SubState=waiting" not in shown:
        raise OSError(f"{name} does not run: {' '.join(shown.split())}")
    return name


def stop_timer(system: System, name: str) -> None:
    """Stop a timer; one that is left finds its transaction settled."""
    if not name:
        return
    from fleet.host.kernel.system import CommandError

    try:
        system.run(["systemctl", "stop", "--no-block", name], timeout=5, check=False)
    except CommandError:
        pass


def install(system: System, archive: str) -> None:
    """Install and enable the boot units where they are not as they should be; raises OSError."""
    changed = False
    for name, text in unit_texts(archive).items():
        path = f"{system.root}{FOLDER}/{name}"
        changed |= _install_file(path, text)
        link = f"{system.root}{FOLDER}/{UNITS[name].wanted_by}.wants/{name}"
        os.makedirs(os.path.dirname(link), 0o755, exist_ok=True)
        if not os.path.islink(link):
            os.symlink(f"{FOLDER}/{name}", link)
            changed = True
    if changed:
        system.run(["systemctl", "daemon-reload"])


def _install_file(path: str, text: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return False
    except FileNotFoundError:
        pass
    files.replace(path, text.encode(), mode=0o644)
    return True


def stage_helper(paths: Paths) -> str:
    """Write the helper's sources as one archive and return its path; once per content."""
    texts = _texts(paths)
    path = _archive_path(paths, texts)
    files.make_private(os.path.dirname(path))
    try:
        files.read(path)
    except FileNotFoundError:
        files.replace(path, _archive(texts))
    return path


def own_archive(paths: Paths) -> str:
    """Return where the archive of this very helper is, or would be; empty without its sources."""
    running = helper_folder().removesuffix("/fleet/host")
    if os.path.isfile(running):
        return running  # a unit runs the archive itself
    try:
        return _archive_path(paths, _texts(paths))
    except (OSError, ValueError):
        return ""


def _texts(paths: Paths) -> dict[str, str]:
    return {**_pyroute2(paths), **sources()}


def _archive_path(paths: Paths, texts: dict[str, str]) -> str:
    digest = files.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)))
    return f"{paths.state}/boot/fleet-{digest[:16]}.pyz"


def helper_folder() -> str:
    """Return where the running helper was loaded from, for the journal."""
    import fleet.host

    return _pushed() or str(next(iter(fleet.host.__path__), ""))


def _pushed() -> str:
    """Return the folder of the archive that a controller pushed and this helper runs from."""
    import fleet.host

    # A loader of source files has a path too; only the pushed one's names this Python's code.
    path = getattr(getattr(fleet.host, "__loader__", None), "path", None)
    if isinstance(path, str) and os.path.basename(path).startswith("code-"):
        return os.path.dirname(path)
    return ""


def sources() -> dict[str, str]:
    """Return the running helper's sources by their path below ``fleet/``'s parent.

    Raises OSError where they are not on this host.
    """
    import fleet.host

    if _pushed():
        return _unpack(f"{_pushed()}/source")
    texts = {"fleet/__init__.py": ""}
    for top in fleet.host.__path__:
        for folder, _, names in os.walk(top):
            for name in names:
                if name.endswith(".py"):
                    where = f"fleet/host{folder[len(top) :]}/{name}"
                    with open(f"{folder}/{name}", encoding="utf-8") as file:
                        texts[where] = file.read()
    if len(texts) == 1:
        raise OSError("the helper's sources are not on this host")
    return texts


def _unpack(path: str) -> dict[str, str]:
    """Return a pushed archive's files: it is compressed JSON, {module: source}, and a package's
    name ends in a dot.
    """
    import bz2

    modules = wire.loads(bz2.decompress(files.read(path)).decode("utf-8"))
    return {
        name.replace(".", "/") + ("__init__.py" if name.endswith(".") else ".py"): text
        for name, text in modules.items()
        if name.strip(".")  # not the loader, which a boot does not need, and the core's names
    }


def _pyroute2(paths: Paths) -> dict[str, str]:
    """Return the pyroute2 that was pushed to this host: what applies at boot imports it."""
    folder = f"{paths.state}/helper"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}
    for name in names:
        try:
            found = _unpack(f"{folder}/{name}/source")
        except (OSError, ValueError):
            continue
        if "pyroute2/__init__.py" in found:
            return found
    return {}


def _archive(texts: dict[str, str]) -> bytes:
    """A zip that Python runs (zipapp), the same bytes for the same sources."""
    import io
    import zipfile

    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in sorted({**texts, "__main__.py": _MAIN}):
            text = _MAIN if name == "__main__.py" else texts[name]
            archive.writestr(zipfile.ZipInfo(name), text)
    return memory.getvalue()
