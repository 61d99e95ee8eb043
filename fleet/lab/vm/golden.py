"""The golden host: booted once, its RAM kept, so that others start where it stood.

Emulated, a host takes some eighty seconds of a processor to boot; a clone takes a few.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet.lab.keys import new_key
from fleet.lab.topology import LabError
from fleet.lab.vm import command, guest
from fleet.lab.vm.image import CACHE, Image
from fleet.lab.vm.wire import Monitor, agent_of

#: Until the golden host has started everything that it has to.
_SETTLED = """\
systemctl is-system-running --wait >/dev/null 2>&1
systemctl --no-legend --state=failed list-units
sync
echo 3 >/proc/sys/vm/drop_caches
"""
#: Seconds for the kernel alone to boot under an accelerator that works.
_PROBE = 15.0


def accelerator(image: Image) -> str:
    """Return "kvm" where it boots a guest on this machine, else "tcg"; found by trying, once."""
    if not os.path.exists("/dev/kvm"):
        return "tcg"
    with open("/proc/sys/kernel/random/boot_id") as file:
        known = CACHE / "accelerator" / f"{image.key}-{file.read().strip()}"
    if not known.exists():
        known.parent.mkdir(parents=True, exist_ok=True)
        found = "kvm" if _boots(image) else "tcg"
        known.write_text(found)
    return known.read_text()


def _boots(image: Image) -> bool:
    with _workspace() as work:
        machine = _machine(image, "kvm", work)
        shutil.copy(image.folder / "initrd", work / "guest" / "initrd")
        words = command.command("kvm", 256, f"{command.IMAGE}/image.qcow2")
        # No disk is touched: the initrd says that it runs, and powers off.
        words = [word for word in words if word != "-S"]
        words[words.index("-append") + 1] = "console=ttyS0 fleet.probe"
        words[words.index("-blockdev") + 1] += ",read-only=on"
        words[words.index("virtio-blk-pci,drive=disk,addr=4")] = "virtio-balloon-pci,addr=4"
        pid = guest.start(words, machine, str(work / "disk"))
        _wait(pid, _PROBE)
        with suppress(FileNotFoundError):
            return "fleet probe: booted" in (work / "guest" / "serial.log").read_text("latin-1")
    return False


def golden_host(image: Image, accelerated: str, memory: int) -> str:
    """Return the folder with a golden host's ``ram`` and ``disk.qcow2``, made if it is not there.

    An empty string where guests boot fast enough without. Raises LabError.
    """
    if accelerated != "tcg":
        return ""
    words = command.command(accelerated, memory, "")
    key = hashlib.sha256("\n".join([image.key, *words]).encode()).hexdigest()[:16]
    folder = CACHE / "golden" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "golden" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _boot_golden(image, accelerated, memory, folder)
    return str(folder)


def _boot_golden(image: Image, accelerated: str, memory: int, folder: Path) -> None:
    print(
        "lab: booting the golden host that others are cloned from; once, a few minutes", flush=True
    )
    with _workspace() as work:
        machine = _machine(image, accelerated, work)
        # A key that nobody keeps: without one sshd fails, and would stay failed in the clones.
        host = {"name": "golden", "nics": [], "port": 22, "host_key": new_key()[0]}
        host["authorized_key"] = ""
        guest.write_disk(str(work / "disk"), {**host, "machine": machine})
        words = command.command(accelerated, memory, f"{command.DISK}/disk.qcow2")
        pid = guest.start(words, machine, str(work / "disk"))
        try:
            _snapshot(str(work / "guest"))
        except Exception as error:
            log = CACHE / "golden" / "failed.log"
            with suppress(FileNotFoundError):
                shutil.copy(work / "guest" / "serial.log", log)
            raise LabError(
                f"the golden host did not come up: {error}; its console: {log}"
            ) from error
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        made = work / "made"
        made.mkdir()
        os.rename(work / "disk" / "disk.qcow2", made / "disk.qcow2")
        os.rename(work / "guest" / "ram", made / "ram")
        os.rename(made, folder)


def _snapshot(folder: str) -> None:
    monitor = Monitor(f"{folder}/qmp")
    monitor.ask("cont")
    with agent_of(folder, guest.PATIENCE) as agent:
        agent.run(["sh", "-s"], _SETTLED.encode(), guest.PATIENCE)
        # The agent has said all; a moment for what it wrote to be through its port.
        agent.ask("guest-ping")
    monitor.ask("stop")
    monitor.ask("migrate", uri=f"file:{command.GUEST}/ram")
    while (state := monitor.ask("query-migrate")["status"]) != "completed":
        if state in ("failed", "cancelled"):
            raise RuntimeError(f"its RAM could not be saved: {state}")
        time.sleep(0.05)  # an event for it would be another capability of the snapshot's
    monitor.close()


@contextmanager
def _workspace() -> Iterator[Path]:
    """Yield a folder of the cache's with a guest's folder in it, and remove it.

    One that was left by a process that was killed goes too.
    """
    for left in CACHE.glob(".work.*"):
        if not os.path.exists(f"/proc/{left.suffix[1:]}"):
            shutil.rmtree(left, ignore_errors=True)
    work = CACHE / f".work.{os.getpid()}"
    (work / "guest").mkdir(parents=True, mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work)


def _machine(image: Image, accelerated: str, work: Path) -> dict[str, Any]:
    (work / "disk").mkdir(exist_ok=True)
    return {
        "image": str(image.folder),
        "golden": "",
        "accelerator": accelerated,
        "guest": str(work / "guest"),
    }


def _wait(pid: int, patience: float) -> None:
    """Wait for a child of ours to end, and end it when time is up."""
    end = time.monotonic() + patience
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.05)
