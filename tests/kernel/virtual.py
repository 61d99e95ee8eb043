"""A host with libvirt: a libvirtd of its own, whose books, sockets and networks go with it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypervisor import Hypervisor, hypervisor, until

MISSING = [name for name in ("libvirtd", "virsh", "dnsmasq") if not shutil.which(name)]

#: Nothing of the machine's libvirt is seen. /dev/kvm is masked: where it opens and does not work,
#: libvirt tries QEMU with it for seconds on every call, as it does where what masks it can be
#: written (virQEMUCapsIsValid, src/qemu/qemu_capabilities.c).
START = """
set -e
if [ -e /dev/kvm ]; then
    : > /run/no-kvm
    mount --bind /run/no-kvm /dev/kvm
    mount -o remount,bind,ro /dev/kvm
fi
mkdir -p /etc/libvirt /var/cache/libvirt
mount -t tmpfs -o mode=755 tmpfs /etc/libvirt
mount -t tmpfs -o mode=755 tmpfs /var/cache/libvirt
mkdir -p /etc/libvirt/qemu/networks/autostart /etc/libvirt/nwfilter /run/libvirt /var/lib/libvirt
cat > /etc/libvirt/libvirtd.conf <<END
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "3:file:/run/libvirt/libvirtd.log"
END
cat > /etc/libvirt/qemu.conf <<END
cgroup_controllers = [ ]
namespaces = [ ]
security_driver = "none"
user = "root"
group = "root"
stdio_handler = "file"
END
cat > /etc/libvirt/network.conf </dev/null
"""
DAEMON = "libvirtd -d -f /etc/libvirt/libvirtd.conf"


class LibvirtHost(Hypervisor):
    """A host, and virsh to judge it by."""

    def start(self) -> None:
        self.sh("sh", "-c", START)
        self.run_daemon()

    def run_daemon(self) -> None:
        self.sh("sh", "-c", DAEMON)
        until(lambda: (self.root / "run/libvirt/libvirt-sock").is_socket())

    @property
    def daemon(self) -> int:
        return int((self.root / "run/libvirtd.pid").read_text())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.daemon, number)

    def virsh(self, *words: str, check: bool = True) -> str:
        return self.sh("virsh", "-q", "-c", "qemu:///system", *words, check=check)

    def networks(self) -> list[str]:
        return sorted(self.virsh("net-list", "--all", "--name").split())

    def dump(self, name: str) -> str:
        return self.virsh("net-dumpxml", "--inactive", name)

    def books(self) -> list[str]:
        """All that libvirt has of networks: definitions, what runs, what starts by itself."""
        found = []
        for name in self.networks():
            running = self.virsh("net-dumpxml", name)
            known = self.virsh("net-info", name)
            found += [name, self.dump(name), running, known]
        return found

    def place(self, path: str) -> Path:
        return self.root / path.lstrip("/")


@contextmanager
def libvirt_host() -> Iterator[LibvirtHost]:
    with hypervisor() as plain:
        host = LibvirtHost(plain.keeper)
        host.helpers = plain.helpers
        host.start()
        yield host
