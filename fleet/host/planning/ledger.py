"""What fleet committed to on this host: the ledger of owned resources."""

from __future__ import annotations

import posix

from fleet.host import wire
from fleet.host.change import HostError, resource_key
from fleet.host.spec import decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "ledger.json"
VERSION = 1


@spec
class Entry:
    """One owned resource, as of the last commit.

    ``spec`` is its committed spec as plain data with Python's field names. ``created`` says that
    fleet made it; otherwise fleet adopted it, and ``before`` is its form then, as
    ``Kind.observe`` gives it.
    """

    namespace: str = ""
    kind: str = ""
    name: str = ""
    spec: dict[str, Any] = None  # type: ignore[assignment]
    created: bool = False
    before: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """The key of the resource this entry remembers."""
        return resource_key(self.namespace, self.kind, self.name)


def load(directory: str) -> dict[str, Entry]:
    """Return the ledger's entries by key, none where nothing was ever committed.

    Raises HostError where the file is not what fleet wrote: going on without it would release
    what fleet created.
    """
    path = f"{directory}/{NAME}"
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        document = wire.loads(text)
        entries = document["entries"]
        if document["version"] != VERSION or document["checksum"] != checksum(entries):
            raise ValueError("the checksum does not match")
        decoded = [decode(Entry, entry) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            path,
            "the ledger that fleet wrote",
            f"a damaged file ({error})",
            f"move {path} away; fleet then adopts again what its intent names",
        ) from error
    return {entry.key: entry for entry in decoded}


def store(directory: str, ledger: dict[str, Entry]) -> None:
    """Replace the ledger as one step that survives a power cut; raises OSError."""
    entries = [encode(ledger[key]) for key in sorted(ledger)]
    document = {"version": VERSION, "checksum": checksum(entries), "entries": entries}
    path, staged = f"{directory}/{NAME}", f"{directory}/.{NAME}.{posix.getpid()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
    descriptor = posix.open(staged, flags, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(wire.dumps(document) + "\n")
        file.flush()
        posix.fsync(file.fileno())
    posix.rename(staged, path)
    folder = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        posix.fsync(folder)
    finally:
        posix.close(folder)


def checksum(entries: list[Any]) -> str:
    """Return the SHA-256 of entries as plain data."""
    from fleet.host.planning.digest import sha256

    return sha256(wire.dumps(entries))
