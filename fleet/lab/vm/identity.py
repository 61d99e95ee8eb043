"""What makes a guest the host it is: a few files, packed for its initrd or for its agent."""

from __future__ import annotations

import gzip
import io
import ipaddress
import tarfile
import uuid
from collections.abc import Mapping
from typing import Any

#: Run in a clone of the golden host once it has its files: what is in memory follows them.
SETTLE = """\
set -e
touch /etc/fleet-lab
hostname -F /etc/hostname
udevadm control --reload
ovs-vsctl --no-wait set Open_vSwitch . external-ids:system-id="$(cat /etc/machine-id)" \
    external-ids:hostname="$(hostname)"
systemctl restart --no-block ssh
"""
#: Run once the NICs are plugged in: await their names, then what the boot would have done.
PLUGGED = """\
udevadm settle
for nic in "$@"; do
    tries=0
    until [ -e "/sys/class/net/$nic" ]; do
        tries=$((tries + 1)); [ $tries -lt 300 ] || { echo "no NIC $nic" >&2; exit 1; }
        sleep 0.1
    done
done
ifup -a
"""


def files(host: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return path → (mode, text) of what is a host's own, below its root."""
    machine = f"{uuid.uuid5(uuid.NAMESPACE_DNS, host['name']).hex}\n"
    return {
        **{path: (0o644, text) for path, text in plain_files(host).items()},
        "etc/machine-id": (0o444, machine),
        "etc/ssh/sshd_config.d/lab.conf": (0o644, f"Port {host['port']}\n"),
        "etc/ssh/ssh_host_ed25519_key": (0o600, host["host_key"]),
        "root/.ssh/authorized_keys": (0o600, host["authorized_key"]),
    }


def plain_files(host: Mapping[str, Any]) -> dict[str, str]:
    """Return path → text of what says a host's name, its NICs' names and its addresses."""
    name = host["name"]
    rules = [
        # Only a NIC has a parent device: what is made over it may have its address too.
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{nic["mac"]}", '
        f'NAME="{nic["name"]}"\n'
        for nic in host["nics"]
    ]
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n",
        "etc/network/interfaces": _interfaces(host),
        "etc/udev/rules.d/70-lab-nics.rules": "".join(rules),
    }


def _interfaces(host: Mapping[str, Any]) -> str:
    """Return what Debian's installer leaves for a host with a fixed address (interfaces(5))."""
    text = "auto lo\niface lo inet loopback\n"
    for nic in host["nics"]:
        for number, address in enumerate(nic["addresses"]):
            interface = ipaddress.ip_interface(address)
            family = "inet" if interface.version == 4 else "inet6"
            text += f"\nauto {nic['name']}\n" if number == 0 else ""
            text += f"iface {nic['name']} {family} static\n    address {address}\n"
            if nic["gateway"] and interface.network.prefixlen == interface.max_prefixlen:
                text += f"    up ip route add default via {nic['gateway']} dev $IFACE onlink\n"
            elif nic["gateway"]:
                text += f"    gateway {nic['gateway']}\n"
    return text


def archive(host: Mapping[str, Any]) -> bytes:
    """Return a tar of a host's files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, (mode, text) in files(host).items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), mode
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def initrd(host: Mapping[str, Any]) -> bytes:
    """Return a compressed cpio to follow the image's initrd, the files below ``identity/``.

    The format is newc (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    entries: dict[str, tuple[int, bytes]] = {"identity": (0o40755, b"")}
    for path, (mode, text) in files(host).items():
        folder = "identity"
        for part in path.split("/")[:-1]:
            folder += f"/{part}"
            # Folders that the image has keep its modes: cp -a would set these.
            private = part == ".ssh" or folder == "identity/root"
            entries.setdefault(folder, (0o40700 if private else 0o40755, b""))
        entries[f"identity/{path}"] = (0o100000 | mode, text.encode())
    packed = b"".join(
        _entry(number, path, mode, data)
        for number, (path, (mode, data)) in enumerate(entries.items(), 1)
    )
    return gzip.compress(packed + _entry(0, "TRAILER!!!", 0, b""), mtime=0)


def _entry(number: int, path: str, mode: int, data: bytes) -> bytes:
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
