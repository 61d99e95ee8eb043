"""A lab of Vagrant's machines: vagrant/Vagrantfile on a libvirt of the lab's own.

That libvirt is PID 1's of a new PID namespace, in a mount and a network namespace where the
controller stands too: the hosts are on its bridges. Killing that process ends all of it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.lab import listening, warden
from fleet.lab.entry import environment, ssh_config
from fleet.lab.keys import new_key
from fleet.lab.lab import Lab
from fleet.lab.plain import plain_topology, refuse_taken_names
from fleet.lab.topology import LabError
from fleet.lab.vm.golden import accelerator
from fleet.lab.vm.image import CACHE, find_image

if TYPE_CHECKING:
    from fleet.lab.topology import Topology

BACKEND = "vagrant"
_VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
_BOX = "fleet-test-host"
#: Seconds for libvirtd to answer, and for a host that Vagrant calls up to be logged in to.
_PATIENCE = 120.0
_PROGRAMS = {
    "vagrant": "vagrant vagrant-libvirt",
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "dnsmasq": "dnsmasq-base",
    "qemu-system-x86_64": "qemu-system-x86",
}


class VagrantLab(Lab):
    """The lab of one name, as Lab, with its machines' disks and Vagrant's home in the cache."""

    def status(self) -> dict[str, dict[str, Any]]:
        """Return as Lab does; the pid is that in the lab's own PID namespace."""
        inside, found = self._warden(), {}
        for name, about in (self._facts()["hosts"] if inside else {}).items():
            pid = 0
            with suppress(OSError, ValueError):
                pid = int(
                    Path(f"/proc/{inside}/root/run/libvirt/qemu/{_domain(name)}.pid").read_text()
                )
            well = listening.greets(inside, about["address"], about["port"])
            found[name] = {
                "state": ("up" if well else "no sshd") if pid else "ended",
                "address": about["address"],
                "pid": pid,
                "nics": " ".join(about["nics"]),
            }
        return found

    def vagrant(self, words: Sequence[str]) -> int:
        """Run Vagrant on the lab's machines, on this process's terminal; return its exit code."""
        inside = self._need_warden()
        argv = ["nsenter", f"--net=/proc/{inside}/ns/net", "-t", str(inside), "-m", "-p", "--"]
        return subprocess.run([*argv, "vagrant", *words], env=self._own(), check=False).returncode

    def exec(self, host: str, argv: Sequence[str]) -> int:
        """Run a command in a host, by ssh."""
        return subprocess.run(self._ssh(host, argv), env=environment(), check=False).returncode

    def run(
        self, host: str, *argv: str, check: bool = True, text: str = "", timeout: float = 60
    ) -> str:
        """Run a command in a host by ssh, as Lab does."""
        done = subprocess.run(
            self._ssh(host, argv),
            input=text, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            raise LabError(f"{host}: {' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def reset(self, host: str) -> None:
        """Reset a host without warning, as its button would."""
        self._virsh("reset", _domain(host))

    def kill(self, host: str) -> None:
        """Cut a host's power."""
        self._virsh("destroy", _domain(host))

    def boot(self, host: str) -> None:
        """Boot a host that has ended, and wait until it can be logged in to."""
        self._vagrant_up([host])

    def cable(self, host: str, nic: str, plugged: bool) -> None:
        """Pull the cable of a NIC, or plug it in again."""
        nics = self._facts()["hosts"].get(host, {}).get("nics", {})
        if nic not in nics:
            raise LabError(f"{host} has no NIC {nic!r}; it has {', '.join(nics)}")
        self._virsh("domif-setlink", _domain(host), nics[nic], "up" if plugged else "down")

    # What is behind it

    def _make(self, topology: Topology, wanted: list[str], sshd_only: bool, backend: str) -> None:
        _need(_VAGRANT)
        image = find_image()
        driver = {"tcg": "qemu"}.get(found := accelerator(image), found)
        state = CACHE / "vagrant" / self.name
        state.mkdir(0o700, parents=True)
        private, public = new_key()
        warden.write(f"{self.folder}/id_ed25519", private)
        # Not below /run: in the lab's mount namespace that is libvirt's alone.
        warden.write(f"{state}/key.pub", f"{public} fleet-lab-{self.name}\n")
        facts: dict[str, Any] = {
            "project": str(self.project), "backend": BACKEND, "driver": driver, "state": str(state),
            "hosts": {},
        }  # fmt: skip
        warden.write(f"{self.folder}/lab.json", json.dumps(facts))
        self._start_libvirt(state)
        add = ["box", "add", "--name", _BOX, str(image.folder / "fleet.box")]
        if self.vagrant(add):
            raise LabError("vagrant box add failed; what it said is above")
        self._bring_up(wanted)

    def _add(self, topology: Topology, wanted: list[str]) -> None:
        self._bring_up(wanted)

    def _bring_up(self, wanted: list[str]) -> None:
        topology = plain_topology(self.project)
        refuse_taken_names(topology, wanted)
        facts = self._facts()
        for name in wanted:
            host = topology["hosts"][name]
            facts["hosts"][name] = {
                "address": host["address"],
                "port": host["port"],
                "username": host["username"],
                "nics": {nic["name"]: nic["mac"] for nic in host["nics"]},
            }
        warden.write(f"{self.folder}/lab.json", json.dumps(facts))
        warden.write(f"{self.folder}/ssh_config", ssh_config(str(self.folder), facts["hosts"]))
        self._vagrant_up(wanted)
        self._know(wanted)

    def _vagrant_up(self, hosts: list[str]) -> None:
        if self.vagrant(["up", "--no-color", "--no-tty", *hosts]):
            raise LabError("vagrant up failed; what it said is above")
        end = time.monotonic() + _PATIENCE
        while late := [name for name in hosts if self.status()[name]["state"] != "up"]:
            if time.monotonic() > end:
                raise LabError(f"{', '.join(late)}: no ssh on the address that the inventory has")
            time.sleep(0.5)

    def _know(self, hosts: list[str]) -> None:
        """Write down the hosts' keys, as they are seen in a network that nobody else is in."""
        known = []
        for about in (self._facts()["hosts"][name] for name in hosts):
            words = ["ssh-keyscan", "-t", "ed25519", "-p", str(about["port"]), about["address"]]
            argv = [*self.controller_prefix(), *words]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            known.append(done.stdout)
        with open(self.folder / "known_hosts", "a") as file:
            file.writelines(known)

    def _start_libvirt(self, state: Path) -> None:
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
        with open(self.folder / "log", "ab") as log:
            starter = subprocess.Popen(
                [*words, str(_VAGRANT / "private-libvirt"), str(state)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/", env=self._own(),
            )  # fmt: skip
        end = time.monotonic() + _PATIENCE
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
        while not (state / "ready").exists():
            if not self._warden():
                with suppress(OSError, IndexError):
                    pid = int(children.read_text().split()[0])
                    warden.write(f"{self.folder}/warden", warden.identity(pid))
            if starter.poll() is not None or time.monotonic() > end:
                said = (self.folder / "log").read_text(errors="replace").strip()
                raise LabError(f"the lab's libvirt did not start: {said[-300:]}")
            time.sleep(0.05)

    def _own(self) -> dict[str, str]:
        facts = self._facts()
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            "HOME": f"{facts['state']}/home",
            "VAGRANT_CWD": str(_VAGRANT), "VAGRANT_DOTFILE_PATH": f"{facts['state']}/machines",
            "VAGRANT_DEFAULT_PROVIDER": "libvirt", "VAGRANT_CHECKPOINT_DISABLE": "1",
            "FLEET": str(_VAGRANT.parent / ".venv" / "bin" / "fleet"),
            "FLEET_PROJECT": facts["project"], "FLEET_DRIVER": facts["driver"],
            "FLEET_PUBLIC_KEY": f"{facts['state']}/key.pub",
        }  # fmt: skip

    def _ssh(self, host: str, argv: Sequence[str]) -> list[str]:
        words = ["ssh", "-q", "-F", f"{self.folder}/ssh_config", host, shlex.join(argv)]
        return [*self.controller_prefix(), *words]

    def _virsh(self, *words: str) -> None:
        inside = self._need_warden()
        argv = ["nsenter", "-t", str(inside), "-n", "-m", "-p", "--", "virsh", "-q"]
        done = subprocess.run(
            [*argv, "-c", "qemu:///system", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"virsh {' '.join(words)}: {done.stderr.strip()}")

    def _clear(self) -> None:
        state = CACHE / "vagrant" / self.name
        super()._clear()
        with suppress(FileNotFoundError):
            shutil.rmtree(state)


def _domain(host: str) -> str:
    return f"{_VAGRANT.name}_{host}"


def _need(folder: Path) -> None:
    if not (folder / "Vagrantfile").exists():
        raise LabError(f"{folder} is not there: the Vagrant lab is in fleet's repository only")
    missing = [packages for program, packages in _PROGRAMS.items() if not shutil.which(program)]
    if missing:
        raise LabError(f"the Vagrant lab needs apt-get install {' '.join(missing)}")
    if not os.access(folder.parent / ".venv/bin/fleet", os.X_OK):
        raise LabError(f"{folder.parent}/.venv/bin/fleet is not there: make setup")
