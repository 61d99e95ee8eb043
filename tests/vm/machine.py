"""One hypervisor with a kernel and a systemd of its own, and the program against it.

A QEMU guest of the built image stands on two switches inside a network namespace, from where the
controller works. What the host is comes from ip, bridge and the files on its disk, never from
fleet.
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

ROOT = Path(__file__).resolve().parents[2]
ADDRESS, GATEWAY = "198.18.7.11", "198.18.7.254"
NETWORKD = "/etc/systemd/network/20-site.network"
NETPLAN = "/etc/netplan/50-site.yaml"
#: What the host has before fleet comes: an address, and the manager that gives it.
FILES = {
    "etc/hostname": "hv1\n",
    NETWORKD[1:]: f"[Match]\nName=eth0\n\n[Network]\nAddress={ADDRESS}/24\nGateway={GATEWAY}\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n",
}
DATA: dict[str, Any] = {
    "fleet": {"management": {"interface": "eth0"}, "manager": "networkd"},
    "network": {
        "ethernets": {
            "eth0": {
                "addresses": [f"{ADDRESS}/24"],
                "routes": [{"to": "default", "via": GATEWAY}],
            },
            "eth1": {},
        },
    },
}
#: Seconds from power on to ssh, without KVM on a machine that others use as well.
BOOT = 400.0
#: Seconds to confirm in: emulated, on a machine that does other things too, changes take long.
DEADLINE = 240
#: Run on the host: waits for a state in the journal of a new transaction, then acts.
WATCH = """\
import glob, os, signal, subprocess, sys, time
word, count, action = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3]
old = set(glob.glob("/var/lib/fleet/journal/*/log"))
os.nice(-10)
open("/run/watching", "w").close()
path = ""
while True:
    new = set(glob.glob("/var/lib/fleet/journal/*/log")) - old
    if not new:
        time.sleep(0.002)
        continue
    with open(new.pop(), "rb") as file:
        if file.read().count(b'"' + word + b'"') >= count:
            break
if action == "reset":
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("b")
# Nobody can confirm, and whoever would put the host back in time is dead.
rules = "add table inet cut; add chain inet cut in { type filter hook input priority -200; }; "
subprocess.run(["nft", rules + "add rule inet cut in tcp dport 22 drop"], check=True)
for name in os.listdir("/proc"):
    if not name.isdigit() or int(name) == os.getpid():
        continue
    try:
        comm = open(f"/proc/{name}/comm").read().strip()
        words = open(f"/proc/{name}/cmdline", "rb").read().split(b"\\0")
    except OSError:
        continue
    if comm == "fleet-deadman" or (words[0].endswith(b"python3") and b"-I" in words):
        os.kill(int(name), signal.SIGKILL)
time.sleep(float(sys.argv[4]))
subprocess.run(["nft", "delete table inet cut"], check=True)
"""


def image() -> Path | None:
    """Return the folder of the image that was built last, None where it has not been built."""
    cache = Path(os.environ.get("FLEET_CACHE", "/var/cache/fleet"))
    built = sorted(cache.glob("image/*/complete"), key=lambda each: each.stat().st_mtime)
    return built[-1].parent if built else None


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition holds and return what it returned; the test fails otherwise."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not happen in {seconds:g} s: {what}"
        time.sleep(0.5)
    return found


class Machine:
    """The hypervisor, its wires, and a project with its intent."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.folder, self.image = folder, built
        self.space = f"vm{uuid.uuid4().hex[:10]}"
        self.project = folder / "project"
        self.data = copy.deepcopy(DATA)
        self._qemu: subprocess.Popen[bytes] | None = None

    # The host

    def up(self) -> None:
        """Make wires, a disk and an identity; boot."""
        self._wires()
        self._identity()
        self._chroot("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/image/image.qcow2",
                     "-F", "qcow2", "/lab/disk.qcow2").wait()  # fmt: skip
        self.power_on()
        self.await_ssh()

    def down(self) -> None:
        """Cut the power and take everything away."""
        self.power_off()
        subprocess.run(["ip", "netns", "delete", self.space], check=False, capture_output=True)
        for name in ("disk.qcow2", "initrd"):
            (self.folder / name).unlink(missing_ok=True)

    def power_on(self) -> None:
        """Start QEMU on the disk as it is."""
        words = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-M", "q35",
            "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off",
            "-smp", "2", "-m", "1024", "-kernel", "/image/vmlinuz", "-initrd", "/lab/initrd",
            "-append", "root=/dev/vda console=ttyS0 net.ifnames=0 mitigations=off",
            "-drive", "file=/lab/disk.qcow2,if=none,id=disk,format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk", "-serial", "file:/lab/serial.log",
        ]  # fmt: skip
        for number in (0, 1):
            words += ["-netdev", f"tap,id=n{number},ifname=t{number},script=no,downscript=no"]
            mac = f"52:54:00:07:00:0{number + 1}"
            words += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac}"]
        self._qemu = self._chroot(*words)

    def power_off(self) -> None:
        """Cut the power: what the host had not written is gone."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def await_ssh(self) -> None:
        """Wait until a login works."""
        until(lambda: self.ssh("true", timeout=15) is not None, BOOT, "a login")

    def await_boot(self, before: str, seconds: float = BOOT) -> None:
        """Wait until the host has booted again and every unit of the boot has ended."""
        until(lambda: self._another_boot(before), seconds, "another boot")
        until(
            lambda: (
                (self.ssh("systemctl is-system-running || true", timeout=30) or "").strip()
                in ("running", "degraded")
            ),
            BOOT,
            "the end of the boot",
        )

    def _another_boot(self, before: str) -> bool:
        now = self.ssh("cat /proc/sys/kernel/random/boot_id", timeout=15)
        return now is not None and now.strip() != before

    def reboot(self) -> None:
        """Boot again in good order, and wait."""
        before = self.boot_id()
        self.ssh("systemctl --no-block reboot")
        self.await_boot(before)

    def boot_id(self) -> str:
        """Return the id of this boot."""
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def _wires(self) -> None:
        inside = ["ip", "-n", self.space]
        commands = [["ip", "netns", "add", self.space], [*inside, "link", "set", "lo", "up"]]
        for number, address in ((0, f"{GATEWAY}/24"), (1, "10.7.0.254/24")):
            tap = ["ip", "netns", "exec", self.space, "ip", "tuntap", "add", f"t{number}"]
            commands += [
                [*inside, "link", "add", f"sw{number}", "type", "bridge", "stp_state", "0"],
                [*tap, "mode", "tap"],
                [*inside, "link", "set", f"t{number}", "master", f"sw{number}", "up"],
                [*inside, "link", "set", f"sw{number}", "up"],
                [*inside, "addr", "add", address, "dev", f"sw{number}"],
            ]
        for argv in commands:
            subprocess.run(argv, check=True)

    def _identity(self) -> None:
        """Give the host its keys and files, by what its initrd copies at the first boot."""
        tree = self.folder / "tree" / "identity"
        for name in ("key", "host"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(argv, check=True)
        host = (self.folder / "host").read_text()
        own = {**FILES, "etc/ssh/ssh_host_ed25519_key": host}
        own["root/.ssh/authorized_keys"] = (self.folder / "key.pub").read_text()
        for name, text in own.items():
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o600 if "ssh" in name else 0o644)
        wanted = tree / "etc/systemd/system/multi-user.target.wants"
        wanted.mkdir(parents=True)
        (wanted / "systemd-networkd.service").symlink_to(
            "/lib/systemd/system/systemd-networkd.service"
        )
        names = [
            str(each.relative_to(self.folder / "tree"))
            for each in sorted((self.folder / "tree").rglob("*"))
        ]
        packed = subprocess.run(
            [str(self.image / "qemu/bin/busybox"), "cpio", "-o", "-H", "newc"],
            input="\n".join(names).encode(),
            cwd=self.folder / "tree",
            check=True,
            capture_output=True,
        ).stdout
        (self.folder / "initrd").write_bytes((self.image / "initrd").read_bytes() + packed)
        key = (self.folder / "host.pub").read_text().split()[:2]
        ssh = self.project / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        (ssh / "known_hosts").write_text(f"{ADDRESS} {' '.join(key)}\n")
        (ssh / "config").write_text(
            f"Host *\n  User root\n  IdentityFile {self.folder}/key\n"
            f"  UserKnownHostsFile {ssh}/known_hosts\n"
        )

    def _chroot(self, *words: str) -> subprocess.Popen[bytes]:
        """Run a program of the image's QEMU root with the image and this folder in it."""
        root = self.image / "qemu"
        script = (
            f"mkdir -p {root}/proc {root}/dev {root}/lab {root}/image && "
            f"mount --make-rprivate / && mount -t proc proc {root}/proc && "
            f"mount --rbind /dev {root}/dev && mount --bind {self.folder} {root}/lab && "
            f'mount --bind {self.image} {root}/image && exec chroot {root} "$@"'
        )
        inside = ["ip", "netns", "exec", self.space] if words[0] != "qemu-img" else []
        argv = ["nice", *inside, "unshare", "-m", "sh", "-c", script, "sh", *words]
        with open(self.folder / "qemu.log", "ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    # The oracles

    def ssh(self, command: str, timeout: float = 60, text: str = "") -> str | None:
        """Run a command on the host; None where the host cannot be reached or it fails."""
        argv = ["ip", "netns", "exec", self.space, "ssh", "-q", "-F", str(self.config)]
        argv += ["-o", "ConnectTimeout=10", "-o", "BatchMode=yes", ADDRESS, command]
        try:
            done = subprocess.run(
                argv, input=text, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    @property
    def config(self) -> Path:
        """The ssh configuration that leads to the host."""
        return self.project / ".ssh" / "config"

    def run(self, command: str, text: str = "") -> str:
        """Run a command on the host; the test fails where it does."""
        out = self.ssh(command, text=text)
        assert out is not None, f"on the host: {command}"
        return out.strip()

    def ip(self, words: str) -> Any:
        """Return what ``ip -j -d`` says."""
        return json.loads(self.run(f"ip -j -d {words}") or "[]")

    def picture(self) -> Any:
        """Return what a boot has to bring back: links, addresses, routes, rules, port flags.

        Without indexes, timers, counters and MACs that the kernel makes up.
        """
        links = {}
        for link in self.ip("addr show"):
            info = link.get("linkinfo", {})
            data = info.get("info_data", {})
            links[link["ifname"]] = {
                "kind": info.get("info_kind"),
                "master": link.get("master"),
                "mtu": link["mtu"],
                "up": "UP" in link["flags"],
                "addresses": sorted(a["local"] for a in link["addr_info"] if a["scope"] != "link"),
                "data": {key: data.get(key) for key in _KEPT if key in data},
            }
        ports = {
            port["ifname"]: {key: port.get(key) for key in ("isolated", "cost", "priority")}
            for port in json.loads(self.run("bridge -j -d link show"))
        }
        routes = sorted(
            (r["dst"], r.get("gateway", ""), r.get("dev", ""), str(r.get("table", "")))
            for r in self.ip("-4 route show table all")
            if r["protocol"] != "kernel"
        )
        rules = sorted(
            (r["priority"], r.get("src", ""), str(r.get("table"))) for r in self.ip("rule show")
        )
        return {"links": links, "ports": ports, "routes": routes, "rules": rules}

    def mac(self, device: str) -> str:
        """Return a device's MAC."""
        return self.run(f"cat /sys/class/net/{device}/address")

    def unit_log(self, unit: str) -> str:
        """Return what a unit has written in this boot."""
        return self.run(f"journalctl -b -o cat --no-pager -u '{unit}'")

    def watch(self, state: str, count: int, action: str, seconds: float = 0) -> None:
        """Have the host itself act once a new transaction's journal has a state."""
        self.run("rm -f /run/watching; cat > /root/watch.py", WATCH)
        unit = f"systemd-run -q --collect python3 /root/watch.py {state} {count} {action} {seconds}"
        self.run(f"echo 1 > /proc/sys/kernel/sysrq; {unit}")
        until(lambda: self.ssh("test -e /run/watching") is not None, 60, "the watch")

    @contextmanager
    def listener(self, port: int) -> Iterator[None]:
        """Accept connections where the gateway is."""
        argv = ["ip", "netns", "exec", self.space, sys.executable, "-m", "http.server", str(port)]
        argv += ["--bind", GATEWAY, "--directory", str(self.folder / "tree")]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, stdout=quiet, stderr=quiet) as server:
            try:
                ask = ["ip", "netns", "exec", self.space, "ss", "-Hltn", f"sport = {port}"]
                until(lambda: subprocess.run(ask, capture_output=True, check=True).stdout, 20, "it")
                yield
            finally:
                server.kill()

    # The program

    def intend(self, network: dict[str, Any] | None = None, **settings: Any) -> None:
        """Say what the host's network is besides its NICs, and what fleet's settings are."""
        data = copy.deepcopy(self.data)
        data["fleet"].update(settings)
        for section, devices in (network or {}).items():
            data["network"].setdefault(section, {}).update(devices)
        folder = self.project / "inventory"
        folder.mkdir(parents=True, exist_ok=True)
        hosts = {"hv1": {"hostname": ADDRESS, "username": "root", "data": data}}
        (folder / "hosts.yaml").write_text(yaml.safe_dump(hosts))
        (folder / "defaults.yaml").write_text("{}\n")

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the program and leave it running."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.space, sys.executable, "-m", "fleet.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.project),
                "FLEET_PROJECT": str(self.project),
                "NO_COLOR": "1",
            },
        )

    def fleet(self, *words: str, expect: int | None = 0) -> str:
        """Run the program to its end and return its stdout; the test fails for another code."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=400)
        assert expect is None or process.returncode == expect, (words, process.returncode, out, err)
        return out

    def roll(self, expect: int | None = 0, deadline: int = DEADLINE) -> str:
        """Roll out without asking."""
        return self.fleet("rollout", "--yes", "--confirm-timeout", str(deadline), expect=expect)

    def drift(self) -> list[tuple[str, str, str]]:
        """Return (resource, attribute, when) of what an audit finds."""
        out = self.fleet("audit", "--host", "hv1", "--json", expect=None)
        found = json.loads(out)["hosts"]["hv1"]["drift"]
        return [(each["resource"], each["attribute"], each["when"]) for each in found]

    def transactions(self) -> list[dict[str, Any]]:
        """Return the host's transactions as ``fleet status`` has them, oldest first."""
        out = self.fleet("status", "--host", "hv1", "--json", expect=None)
        found: list[dict[str, Any]] = json.loads(out)["hosts"]["hv1"]["transactions"]
        return found


#: Of the attributes of a kind, those that somebody sets.
_KEPT = (
    "forward_delay", "stp_state", "ageing_time", "priority", "vlan_filtering", "mode", "id", "port",
    "remote", "local", "type", "persist", "protocol",
)  # fmt: skip


def missing() -> str:
    """Say why no machine can be had here, empty where one can."""
    if os.geteuid() != 0:
        return "needs root: it makes namespaces"
    return "" if image() else "the test host image is not built: sudo vagrant/box/build"
