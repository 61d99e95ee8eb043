"""What all virtual machines of a lab have in common."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fleet.lab.vm.golden import accelerator, golden_host
from fleet.lab.vm.image import CACHE, find_image

#: MiB. A host with systemd, Open vSwitch and libvirtd takes 200, and DPDK wants hugepages.
MEMORY = 1024


def virtual_machine() -> dict[str, Any]:
    """Return {"image", "golden", "accelerator", "memory"}; the first call makes the golden host.

    Raises LabError.
    """
    image = find_image()
    accelerated = accelerator(image)
    return {
        "image": str(image.folder),
        "golden": golden_host(image, accelerated, MEMORY),
        "accelerator": accelerated,
        "memory": MEMORY,
    }


def keep_logs(lab: Path, name: str) -> str:
    """Copy what a lab's machines have said on their consoles; return the folder, "" for none."""
    logs = sorted(lab.glob("guests/*/*.log"))
    folder = CACHE / "logs" / name
    for log in logs:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        shutil.copy(log, folder / f"{log.parent.name}-{log.name}")
    return str(folder) if logs else ""
