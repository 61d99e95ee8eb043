"""Real test hosts on this machine: namespaces, or virtual machines of one image."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from fleet.lab.folder import LABS
from fleet.lab.lab import Lab
from fleet.lab.topology import LabError

__all__ = ["Lab", "LabError", "open_lab"]


def open_lab(name: str, project: Path, backend: str = "") -> Lab:
    """Return the lab of a name; a backend says what it is to be where it is not up."""
    with suppress(OSError, ValueError):
        backend = json.loads((LABS / name / "lab.json").read_text()).get("backend") or backend
    if backend == "vagrant":
        from fleet.lab.vagrant import VagrantLab

        return VagrantLab(name, project)
    return Lab(name, project)
