"""Reviewed plans in a file: what ``plan --out`` writes and ``rollout --plan`` runs."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.errors import UsageError
from fleet.host import wire
from fleet.host.change import Plan
from fleet.host.planning.digest import sha256
from fleet.host.spec import decode, encode
from fleet.rollout.result import HostPlan

FORMAT, VERSION = "fleet-plan", 1
#: A plan of a thousand hosts is a few megabytes.
LARGEST = 256 * 1024 * 1024


@dataclass(frozen=True)
class Reviewed:
    """Plans somebody reviewed, by host, each bound by its digest to what was observed.

    ``revision`` is the inventory's git revision then, ``made_at`` seconds since the epoch,
    ``made_by`` user@host.
    """

    hosts: dict[str, HostPlan] = field(default_factory=dict)
    revision: str = ""
    made_at: float = 0.0
    made_by: str = ""


def write(path: Path, plans: Mapping[str, HostPlan], revision: str = "") -> None:
    """Write the hosts that have a plan to a file of mode 0600, replacing it as one step.

    Raises UsageError where the file cannot be written.
    """
    body: dict[str, Any] = {
        "revision": revision,
        # Milliseconds: of the digits beyond, two spellings may be one number.
        "made_at": round(time.time(), 3),
        "made_by": f"{os.environ.get('USER') or os.getuid()}@{socket.gethostname()}",
        "hosts": {
            name: {"state": each.state_digest, "plan": encode(each.plan)}
            for name, each in plans.items()
            if each.plan is not None
        },
    }
    document = {"format": FORMAT, "version": VERSION, "checksum": _checksum(body), **body}
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(staged, flags, 0o600), "w", encoding="ascii") as file:
            file.write(wire.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(staged, path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise UsageError(f"cannot write the plan to {path}: {error.strerror}") from error


def read(path: Path) -> Reviewed:
    """Return the plans of a file; raises UsageError for one that is not as fleet wrote it."""
    document = _document(path)
    parts = ("revision", "made_at", "made_by", "hosts")
    body = {key: document[key] for key in parts if key in document}
    try:
        as_written = document.get("checksum") == _checksum(body)
    except (ValueError, RecursionError):
        # JSON has numbers that are read as infinite (1e999), and fleet writes none.
        as_written = False
    if not as_written:
        raise UsageError(f"{path} is not as fleet wrote it (its checksum differs); plan again")
    try:
        hosts = {
            name: HostPlan(name, decode(Plan, said["plan"]), state_digest=said["state"])
            for name, said in body["hosts"].items()
        }
        return Reviewed(hosts, body["revision"], body["made_at"], body["made_by"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} lacks what a plan has ({error}); plan again") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="ascii") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise UsageError(f"{path} is not a file")
            if about.st_mode & 0o022 or about.st_uid not in (0, os.getuid()):
                raise UsageError(
                    f"others could have written {path}: it must be yours and of mode 0600"
                )
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a plan that fleet wrote") from error
    if len(text) > LARGEST:
        raise UsageError(f"{path} is larger than any plan fleet writes")
    try:
        document = wire.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a plan that fleet wrote: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} is not a plan that fleet wrote")
    if document.get("version") != VERSION:
        raise UsageError(
            f"{path} is a plan of version {document.get('version')}, this fleet reads {VERSION}"
        )
    return document


def _checksum(body: Mapping[str, Any]) -> str:
    return sha256(wire.dumps(body))
