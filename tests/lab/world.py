"""A small fleet for acceptance tests: a project, its lab, the program, and oracles to judge it by.

The program is the real one, in a process of its own. What a host is comes from ip, bridge and
ping inside it, never from fleet.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fleet.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = "198.18.7.254"
DEFAULTS: dict[str, Any] = {
    "username": "root",
    "data": {
        "fleet": {
            "management": {"interface": "eno1"},
            "probes": {"gateway": True},
        },
        "network": {
            "version": 2,
            "ethernets": {
                "eno1": {
                    "addresses": ["{{ host.hostname }}/24"],
                    "routes": [{"to": "default", "via": GATEWAY}],
                },
                "eno2": {},
            },
        },
    },
}
HOSTS = {"hv1": "198.18.7.11", "hv2": "198.18.7.12"}
#: A bridge for guests, with nothing in it that has to settle.
BRIDGE = {
    "interfaces": ["eno2"],
    "mtu": 1400,
    "addresses": ["10.7.0.1/24"],
    "parameters": {"stp": False, "forward-delay": 0, "ageing-time": 120},
    "ports": {"eno2": {"isolated": True}},
}


#: "vm" for hosts with a kernel of their own; there every wait may take as much longer.
BACKEND = os.environ.get("FLEET_LAB_BACKEND", "netns")
SLOWER = 1 if BACKEND == "netns" else 8


class Ran:
    """What a program did."""

    def __init__(self, argv: tuple[str, ...], code: int, out: str, err: str) -> None:
        self.argv, self.code, self.out, self.err = argv, code, out, err

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"{' '.join(self.argv)} exited {self.code}\n{self.out}\n{self.err}"


class World:
    """A project and its lab."""

    def __init__(self, project: Path, hosts: dict[str, str] = HOSTS) -> None:
        self.project = project
        self.name = f"t{uuid.uuid4().hex[:10]}"
        self.addresses = hosts
        self.defaults = copy.deepcopy(DEFAULTS)
        self.hosts: dict[str, Any] = {
            name: {"hostname": address, "data": {}} for name, address in hosts.items()
        }
        (project / "inventory").mkdir(parents=True, exist_ok=True)
        self.write()
        self.lab = Lab(self.name, project)

    def up(self, hosts: list[str] | None = None) -> None:
        """Bring hosts up, of the kind that the environment names."""
        self.lab.up(hosts, backend=BACKEND)

    # The intent

    def write(self) -> None:
        """Write the inventory's files."""
        folder = self.project / "inventory"
        (folder / "defaults.yaml").write_text(yaml.safe_dump(self.defaults))
        (folder / "hosts.yaml").write_text(yaml.safe_dump(self.hosts))

    def intend(self, host: str, **network: Any) -> None:
        """Say what a host's network is, besides what all hosts have: sections of ``network``."""
        self.hosts[host]["data"] = {"network": network} if network else {}
        self.write()

    # The program

    def environment(self) -> dict[str, str]:
        """The environment of the program: only what it needs."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.project),
            "FLEET_LAB": self.name,
            "FLEET_LAB_BACKEND": BACKEND,
            "FLEET_PROJECT": str(self.project),
            "NO_COLOR": "1",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the program and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "fleet.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.environment(),
        )

    def fleet(self, *words: str, expect: int | None = 0) -> Ran:
        """Run the program to its end; the test fails for another exit code than expected."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=100 * SLOWER)
        done = Ran(("fleet", *words), process.returncode, out, err)
        assert expect is None or done.code == expect, done
        return done

    def roll(self, *words: str, expect: int = 0) -> Ran:
        """Roll out without asking, with a short deadline."""
        deadline = str(15 if SLOWER == 1 else 60)
        return self.fleet("rollout", "--yes", "--confirm-timeout", deadline, *words, expect=expect)

    def changes(self, host: str) -> list[str]:
        """Return the changes that a plan has for a host: "action kind/name attribute"."""
        planned = self.fleet("plan", "--host", host, "--json", expect=None)
        assert planned.code in (0, 3), planned
        found = planned.json["hosts"][host]
        assert found.get("problems") == [], planned
        return [f"{c['action']} {c['resource']} {c['attribute']}".strip() for c in found["changes"]]

    def outcomes(self, ran: Ran) -> dict[str, str]:
        """Return each host's outcome of a rollout with --json."""
        return {name: about["outcome"] for name, about in ran.json["hosts"].items()}

    # The oracles

    def run(self, host: str, *argv: str, check: bool = True) -> str:
        """Run a command inside a host."""
        return self.lab.run(host, *argv, check=check)

    def ip(self, host: str, words: str) -> Any:
        """Return what ``ip -j -d`` says inside a host."""
        return json.loads(self.run(host, "ip", "-j", "-d", *words.split()) or "[]")

    def links(self, host: str) -> dict[str, Any]:
        """Return a host's links by name."""
        return {link["ifname"]: link for link in self.ip(host, "link show")}

    def held(self, host: str, device: str) -> list[str]:
        """Return a device's IPv4 addresses."""
        found = self.ip(host, f"-4 addr show dev {device}")
        return [f"{a['local']}/{a['prefixlen']}" for link in found for a in link["addr_info"]]

    def routes(self, host: str) -> list[tuple[str, str, str]]:
        """Return (to, via, dev) of a host's routes, without the kernel's."""
        found = self.ip(host, "-4 route show")
        return sorted(
            (r["dst"], r.get("gateway", ""), r["dev"]) for r in found if r["protocol"] != "kernel"
        )

    def port(self, host: str, device: str) -> Any:
        """Return what ``bridge -j -d`` says of a port."""
        return json.loads(self.run(host, "bridge", "-j", "-d", "link", "show", "dev", device))[0]

    def picture(self, host: str) -> Any:
        """Return all that a change could leave behind: links, addresses, routes, rules, ports."""
        links = self.ip(host, "addr show")
        for link in links:
            # A device that was up once has another queue for nothing (net/sched/sch_generic.c).
            for key in ("ifindex", "operstate", "qdisc"):
                link.pop(key, None)
            link["linkinfo"] = {
                key: value
                for key, value in link.get("linkinfo", {}).items()
                if key not in ("info_data", "info_slave_data")
            }
            link["addr_info"] = [a["local"] for a in link["addr_info"] if a["scope"] != "link"]
        ports = self.run(host, "bridge", "-j", "link", "show")
        rules = self.run(host, "ip", "-j", "rule", "show")
        return links, self.routes(host), json.loads(rules), [p["ifname"] for p in json.loads(ports)]

    def reaches(self, address: str) -> bool:
        """Say whether a ping from where the controller stands is answered."""
        argv = [*self.lab.controller_prefix(), "ping", "-n", "-c", "1", "-W", "1", address]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def logs_in(self, host: str) -> bool:
        """Say whether a new ssh login from where the controller stands works."""
        config = str(self.lab.folder / "ssh_config")
        argv = [*self.lab.controller_prefix(), "ssh", "-F", config, "-o", "ConnectTimeout=3"]
        done = subprocess.run(
            [*argv, "-o", "BatchMode=yes", host, "hostname"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stdout.strip() == host


@contextmanager
def opened(folder: Path, hosts: dict[str, str] = HOSTS) -> Iterator[World]:
    """Make a world whose lab is taken down at the end, whether it was brought up or not."""
    made = World(folder / "project", hosts)
    try:
        yield made
    finally:
        made.lab.down()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until a condition holds and return what it returned; the test fails otherwise."""
    end = time.monotonic() + seconds * SLOWER
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(marker: str) -> list[int]:
    """Return the pids of processes whose command line has a marker."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(marker.encode() in word for word in words) and int(name) != os.getpid():
                found.append(int(name))
    return found
