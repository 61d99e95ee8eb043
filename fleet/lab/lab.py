"""A lab as the rest of fleet sees it: up, down, status, exec, and how ssh reaches its hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.lab import cgroups, entry, inside, linux, listening, machine, warden
from fleet.lab.entry import ssh_config
from fleet.lab.folder import LABS, lock_lab, lock_labs
from fleet.lab.keys import new_key
from fleet.lab.orders import ask, end
from fleet.lab.topology import LabError, read_topology
from fleet.lab.vm.machine import keep_logs, virtual_machine
from fleet.lab.vm.wire import Monitor

if TYPE_CHECKING:
    from fleet.lab.topology import Topology

NETNS, VM = "netns", "vm"
BACKENDS = (NETNS, VM)
#: What the machine's limits were before a large lab raised them.
_LIMITS = Path("/run/fleet-lab.limits")


class Lab:
    """The lab of one name, made from a project's inventory. All of it needs root.

    Its files are in /run/fleet-lab/NAME, for root only: the warden's pid, each host's, the key
    that opens all of them and the known_hosts that knows them.
    """

    def __init__(self, name: str, project_path: Path | str = ".") -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
            raise LabError(f"{name!r} cannot be a lab's name: letters a-z, digits and - only")
        self.name = name
        self.project = Path(project_path).resolve()
        self.folder = LABS / name

    # Up and down

    def up(
        self,
        hosts: Sequence[str] | None = None,
        sshd_only: bool = False,
        backend: str = "",
    ) -> list[str]:
        """Bring up the inventory's hosts, or some of them; return the names of those now up.

        Hosts that are up stay as they are. ``sshd_only`` leaves out what hosts do not need to be
        planned and audited: a cgroup each. ``backend`` is "netns" or "vm"; a lab that is up
        keeps its own. Raises LabError, with nothing left behind where the lab was not up before.
        """
        _need_root()
        _need_programs()
        topology = read_topology(self.project)
        wanted = self._chosen(topology, hosts)
        with self._locked():
            new = not self._warden()
            if new:
                self._clear()
            with lock_labs():
                machine.make_room(len(wanted), _LIMITS)
                if new:
                    self.folder.mkdir(0o700)
            if new:
                try:
                    self._make(topology, wanted, sshd_only, backend or NETNS)
                except BaseException as error:
                    kept = keep_logs(self.folder, self.name)
                    self._end()
                    if kept and isinstance(error, LabError):
                        raise LabError(f"{error}; the consoles are kept in {kept}") from error
                    raise
            else:
                running = self._facts().get("backend")
                if backend and backend != running:
                    raise LabError(f"lab {self.name} is up with the backend {running}")
                self._add(topology, wanted)
        return self.hosts()

    def down(self) -> None:
        """End all of the lab's processes and leave nothing of it, whatever state it is in."""
        _need_root()
        with self._locked():
            self._end()

    def hosts(self) -> list[str]:
        """Return the names of the lab's hosts, in the inventory's order; none when it is down."""
        return list(self._facts()["hosts"]) if self._warden() else []

    def status(self) -> dict[str, dict[str, Any]]:
        """Return each host's {"state", "address", "pid", "nics"}; none when down.

        The state is ``up``, ``no sshd`` where none listens (``exec`` enters it all the same), or
        ``ended``.
        """
        if not self._warden():
            return {}
        found = {}
        for name, about in self._facts()["hosts"].items():
            pid = warden.running(f"{self.folder}/hosts/{name}")
            well = "up" if self._listens(name, pid, about) else "no sshd"
            found[name] = {
                "state": well if pid else "ended",
                "address": about["address"],
                "pid": pid,
                "nics": " ".join(about["nics"]),
            }
        return found

    # Hosts

    def exec(self, host: str, argv: Sequence[str]) -> int:
        """Run a command inside a host, on this process's terminal; return its exit code."""
        pid, guest = self.pid(host), self._guest(host)
        if guest:
            return entry.execute_in_guest(guest, argv)
        words = [*entry.namespaces_prefix(pid), *argv]
        return subprocess.run(words, env=entry.environment(), check=False).returncode

    def run(
        self, host: str, *argv: str, check: bool = True, text: str = "", timeout: float = 30
    ) -> str:
        """Run a command inside a host with ``text`` on its stdin; return its stdout.

        It takes no network of the host's. Raises LabError with its stderr where it fails.
        """
        pid, guest = self.pid(host), self._guest(host)
        if guest:
            code, out, err = entry.run_in_guest(guest, argv, text, timeout)
        else:
            code, out, err = entry.run_in_namespaces(pid, argv, text, timeout)
        if check and code:
            raise LabError(f"{host}: {' '.join(argv)}: {(err or out).strip()}")
        return out

    def prefix(self, host: str) -> list[str]:
        """Return the argv prefix that runs a command inside a host of namespaces."""
        if self._guest(host):
            raise LabError(f"{host} is a virtual machine: no command is run in its namespaces")
        return entry.namespaces_prefix(self.pid(host))

    def pid(self, host: str) -> int:
        """Return the pid of a host's init; raises LabError where it does not run."""
        known = self._facts()["hosts"] if self._warden() else None
        if known is None:
            raise LabError(
                f"lab {self.name} is not up; fleet lab up --lab {self.name} brings it up"
            )
        if host not in known:
            raise LabError(f"lab {self.name} has no host {host!r}; it has {', '.join(known)}")
        pid = warden.running(f"{self.folder}/hosts/{host}")
        if not pid:
            raise LabError(f"{host} has ended; it can be booted again")
        return pid

    def kill(self, host: str) -> None:
        """End a host at once, as a power cut would; its disk stays."""
        end(self.pid(host))
        # The kernel takes a dead namespace's devices away when it has time; a cable goes at once.
        self._order({"op": "unplug", "hosts": [host]})

    def boot(self, host: str) -> None:
        """Boot a host that has ended: its disk as it was, everything else new."""
        self._order({"op": "boot", "hosts": [host]})

    def reset(self, host: str) -> None:
        """Reset a host without warning, as its button would: what it had not written is lost.

        A virtual machine boots on its own from then on; a host of namespaces is up again at once.
        """
        if self._guest(host):
            with self.monitor(host) as monitor:
                monitor.ask("system_reset")
        else:
            self.kill(host)
            self.boot(host)

    def cable(self, host: str, nic: str, plugged: bool) -> None:
        """Pull the cable of a NIC, or plug it in again: the host sees its carrier go and come."""
        self.pid(host)
        nics = self._facts()["hosts"][host]["nics"]
        if nic not in nics:
            raise LabError(f"{host} has no NIC {nic!r}; it has {', '.join(nics)}")
        if self._guest(host):
            with self.monitor(host) as monitor:
                monitor.ask("set_link", name=f"nic{nics.index(nic)}", up=plugged)
        else:
            self._order({"op": "cable", "host": host, "nic": nic, "up": plugged})

    @contextmanager
    def monitor(self, host: str) -> Iterator[Monitor]:
        """Yield a QMP connection to a virtual machine; it serves one at a time."""
        self.pid(host)
        guest = self._guest(host)
        if not guest:
            raise LabError(f"{host} is no virtual machine: it has no monitor")
        monitor = Monitor(f"{guest}/qmp")
        try:
            yield monitor
        finally:
            monitor.close()

    # The controller's side

    def enter(self) -> None:
        """Move this process to where the lab's controller stands; before it starts threads.

        The inventory's addresses are then the lab's; unix sockets work as before, other networks
        are out of reach.
        """
        linux.enter(f"/proc/{self._need_warden()}/ns/net", linux.NEWNET)

    def controller_prefix(self) -> list[str]:
        """Return the argv prefix that runs a command where the lab's controller stands."""
        return ["nsenter", f"--net=/proc/{self._need_warden()}/ns/net", "--"]

    def router_prefix(self) -> list[str]:
        """Return the argv prefix that runs a command in the network of the lab's router."""
        descriptor = (self.folder / "router").read_text()
        return ["nsenter", f"--net=/proc/{self._need_warden()}/fd/{descriptor}", "--"]

    def ssh_overrides(self, host: str) -> dict[str, Any]:
        """Return how ssh reaches a host: hostname, port, username, client_keys, known_hosts."""
        self._need_warden()
        about = self._facts()["hosts"].get(host)
        if about is None:
            raise LabError(f"lab {self.name} has no host {host!r}; bring it up with fleet lab up")
        return {
            "hostname": about["address"],
            "port": about["port"],
            "username": about["username"],
            "client_keys": [str(self.folder / "id_ed25519")],
            "known_hosts": str(self.folder / "known_hosts"),
        }

    # What is behind it

    def _listens(self, host: str, pid: int, about: dict[str, Any]) -> bool:
        if self._guest(host):
            return bool(pid) and listening.greets(self._warden(), about["address"], about["port"])
        return listening.listens(pid, about["port"])

    def _guest(self, host: str) -> str:
        """Return the folder of a virtual machine's sockets, an empty string for other hosts."""
        number = self._facts()["hosts"].get(host, {}).get("guest", 0)
        return f"{self.folder}/guests/{number}" if number else ""

    def _warden(self) -> int:
        return warden.running(f"{self.folder}/warden")

    def _need_warden(self) -> int:
        _need_root()
        pid = self._warden()
        if not pid:
            raise LabError(
                f"lab {self.name} is not up; fleet lab up --lab {self.name} brings it up"
            )
        return pid

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.folder / "lab.json").read_text())
        except FileNotFoundError:
            return {"hosts": {}}
        return facts

    def _chosen(self, topology: Topology, hosts: Sequence[str] | None) -> list[str]:
        for name in hosts or ():
            if name not in topology.hosts:
                raise LabError(f"the inventory has no host {name!r}")
        return [name for name in topology.hosts if hosts is None or name in hosts]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold this lab's lock; the last lab's end gives back what labs had of the machine."""
        with lock_lab(self.name):
            try:
                yield
            finally:
                with lock_labs():
                    if not any(LABS.iterdir()):
                        machine.give_back(_LIMITS)
                        LABS.rmdir()

    def _make(self, topology: Topology, wanted: list[str], sshd_only: bool, backend: str) -> None:
        machine = {} if backend == NETNS else virtual_machine()
        for folder in ("hosts", "disk", "guests"):
            (self.folder / folder).mkdir(0o700)
        connection = warden.start(str(self.folder))
        private, public = new_key()
        warden.write(f"{self.folder}/id_ed25519", private)
        warden.write(f"{self.folder}/id_ed25519.pub", f"{public} fleet-lab-{self.name}\n")
        root = "" if sshd_only else cgroups.root()
        facts = {
            "project": str(self.project),
            "backend": backend,
            "machine": machine,
            "cgroups": f"{root}/fleet-lab-{self.name}" if root else "",
            "hosts": {},
        }
        warden.write(f"{self.folder}/lab.json", json.dumps(facts))
        with connection:
            self._send(connection, topology, wanted, facts)

    def _add(self, topology: Topology, wanted: list[str]) -> None:
        facts = self._facts()
        missing = [name for name in wanted if name not in facts["hosts"]]
        ended = [name for name, about in self.status().items() if not about["pid"]]
        if missing:
            with self._connected() as connection:
                self._send(connection, topology, missing, facts)
        again = [name for name in ended if name in wanted]
        if again:
            self._order({"op": "boot", "hosts": again})

    def _send(
        self, connection: socket.socket, topology: Topology, names: list[str], facts: dict[str, Any]
    ) -> None:
        """Have hosts made, and write down how to reach them."""
        authorized = (self.folder / "id_ed25519.pub").read_text()
        hosts, known = [], []
        for name in names:
            host = topology.hosts[name]
            private, public = new_key()
            cgroup = f"{facts['cgroups']}/{name}" if facts["cgroups"] else ""
            if cgroup:
                os.makedirs(cgroup, exist_ok=True)
            keys = {"host_key": private, "authorized_key": authorized, "cgroup": cgroup}
            hosts.append({**asdict(host), **keys, "machine": facts["machine"]})
            facts["hosts"][name] = {
                "address": host.address,
                "port": host.port,
                "username": host.username,
                "nics": [nic.name for nic in host.nics],
                # The warden counts its hosts in the same way.
                "guest": len(facts["hosts"]) + 1 if facts["machine"] else 0,
            }
            where = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
            known.append(f"{where} {public}\n")
        with open(self.folder / "known_hosts", "a") as file:
            file.writelines(known)
        used = {nic.network for name in names for nic in topology.hosts[name].nics}
        networks = [
            {"name": network.name, "gateways": sorted(network.gateways)}
            for network in topology.networks.values()
            if network.name in used
        ]
        order = {"op": "add", "hosts": hosts, "networks": networks}
        link = {"controller": topology.controller, "router": topology.router}
        ask(connection, {**order, **link})
        warden.write(f"{self.folder}/lab.json", json.dumps(facts))
        warden.write(f"{self.folder}/ssh_config", ssh_config(str(self.folder), facts["hosts"]))

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        self._need_warden()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{self.folder}/control")
            yield connection

    def _order(self, order: dict[str, Any]) -> None:
        with self._connected() as connection:
            ask(connection, order)

    def _end(self) -> None:
        pid = self._warden()
        if pid:
            end(pid)
        self._clear()

    def _clear(self) -> None:
        """Remove what a lab without processes has left."""
        made = self._facts().get("cgroups")
        if made:
            cgroups.remove(made)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes namespaces; run fleet with sudo")


def _need_programs() -> None:
    for program, package in ((inside.SSHD, "openssh-server"), ("/usr/bin/nsenter", "util-linux")):
        if not os.path.exists(program):
            raise LabError(f"a lab needs {program}: apt-get install {package}")
