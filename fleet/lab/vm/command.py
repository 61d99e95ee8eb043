"""QEMU's command line for a lab host. Pure: from plain data to words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What a guest sees of the folders that QEMU is given: its image, its disk, its sockets and log.
IMAGE, DISK, GUEST, GOLDEN = "/run/image", "/run/disk", "/run/guest", "/run/golden"
#: Root ports, so that NICs can be plugged in and pulled; each takes one.
PORTS = 8
#: Queues of a virtio NIC; the emulated Intel ones use one of a tap's.
QUEUES = 4
AGENT = "org.qemu.guest_agent.0"
KERNEL = "root=/dev/vda rw console=ttyS0 intel_iommu=on iommu=pt mitigations=off fsck.mode=skip"
_ACCELERATORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    # la57: a fifth level of page tables only makes every walk of an emulated MMU longer.
    # The cache of translated code is the largest part of an idle guest otherwise.
    "tcg": ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,la57=off"],
}


def command(accelerator: str, memory: int, disk: str) -> list[str]:
    """Return the words that start a guest without NICs, which stops before its first instruction.

    ``memory`` is in MiB; ``disk`` the path of a qcow2, as QEMU sees it. A snapshot's RAM only fits
    a guest that was started with the same words.
    """
    words = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S",
        "-M", "q35", *_ACCELERATORS[accelerator], "-smp", "2", "-m", str(memory),
        # Before any other device, or their DMA would not be translated.
        "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",
        "-kernel", f"{IMAGE}/vmlinuz", "-initrd", f"{GUEST}/initrd", "-append", KERNEL,
        "-blockdev", f"driver=qcow2,node-name=disk,cache.no-flush=on,"
        f"file.driver=file,file.filename={disk}",
        "-device", "virtio-blk-pci,drive=disk,addr=4",
        "-device", "virtio-rng-pci,rng=random,addr=5",
        "-object", "rng-random,id=random,filename=/dev/urandom",
        "-device", "virtio-serial-pci,addr=6",
        "-chardev", f"socket,id=agent,path={GUEST}/agent,server=on,wait=off",
        "-device", f"virtserialport,chardev=agent,name={AGENT}",
        "-chardev", f"file,id=serial,path={GUEST}/serial.log,append=on",
        "-serial", "chardev:serial",
        "-qmp", f"unix:{GUEST}/qmp,server=on,wait=off",
    ]  # fmt: skip
    for number in range(PORTS):
        words += ["-device", f"pcie-root-port,id=port{number},chassis={number},addr={8 + number}"]
    return words


def taps(nics: Sequence[Mapping[str, Any]], descriptors: Sequence[Sequence[int]]) -> list[str]:
    """Return the words for the host's side of NICs, each an open tap with one or more queues."""
    words = []
    for number, (_, queues) in enumerate(zip(nics, descriptors, strict=True)):
        fds = ":".join(map(str, queues))
        words += ["-netdev", f"tap,id=tap{number},fds={fds},vhost=off"]
    return words


def device(number: int, nic: Mapping[str, Any]) -> dict[str, Any]:
    """Return what QMP's device_add takes for a NIC in the root port of its number."""
    common = {
        "driver": nic["model"],
        "id": f"nic{number}",
        "netdev": f"tap{number}",
        "mac": nic["mac"],
        "bus": f"port{number}",
    }
    if nic["model"] == "virtio-net-pci":
        # One vector for each direction of each queue, one for control, one for configuration.
        return {**common, "mq": True, "vectors": 2 * QUEUES + 2}
    return common
