"""Real test hosts on this machine: namespaces, each with its own sshd."""

from __future__ import annotations

from fleet.lab.lab import Lab
from fleet.lab.topology import LabError

__all__ = ["Lab", "LabError"]
