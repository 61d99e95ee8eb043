"""The test host image that ``make image`` has built, and what is kept beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleet.lab.topology import LabError

#: Where the build keeps what it makes; vagrant/box/build reads the same variable.
CACHE = Path(os.environ.get("FLEET_CACHE", "/var/cache/fleet"))


@dataclass(frozen=True)
class Image:
    """A built image: ``image.qcow2``, ``vmlinuz``, ``initrd`` and ``qemu/`` in one folder."""

    folder: Path

    @property
    def key(self) -> str:
        """The hash of what it was built from."""
        return self.folder.name

    @property
    def root(self) -> Path:
        """The root that QEMU runs in."""
        return self.folder / "qemu"


def find_image() -> Image:
    """Return the image that was built, or asked for, last; raises LabError where there is none."""
    built = [path.parent for path in CACHE.glob("image/*/complete")]
    if not built:
        raise LabError(f"no test host image in {CACHE}/image: make image builds it (about 2 min)")
    return Image(max(built, key=lambda folder: (folder / "complete").stat().st_mtime))
