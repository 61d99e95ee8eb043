"""The nonces that confirm: made here, kept here, only their hash goes to a host before APPLIED.

A nonce lies in a file of mode 0600 in a directory of mode 0700 beside the record, from before its
host is armed until the host has committed or reverted. So ``fleet confirm TX`` works from another
process, and the successor of a killed controller can settle what it left; the record itself,
which may be a shared PostgreSQL, never holds one.
"""

from __future__ import annotations

import os
import re
import secrets
from hashlib import sha256
from pathlib import Path

LENGTH = 32


class Nonces:
    """The nonces of one controller, by transaction and host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _path(self, transaction: str, host: str) -> Path:
        # A host's name may hold what a file's cannot.
        safe = re.sub(r"[^A-Za-z0-9.-]", lambda found: f"_{ord(found[0]):x}_", host)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", transaction):
            raise ValueError(f"{transaction!r} cannot name a transaction")
        return self.directory / f"{transaction}@{safe}"

    def make(self, transaction: str, host: str) -> str:
        """Make a nonce, durable before it is returned; 32 bytes in hex. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce, path = secrets.token_hex(LENGTH), self._path(transaction, host)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(nonce)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return nonce

    def get(self, transaction: str, host: str) -> str | None:
        """Return a nonce that was made here, None where it was not or has been used."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._path(transaction, host), flags), encoding="ascii") as file:
                return file.read(2 * LENGTH)
        except (OSError, ValueError):
            return None

    def forget(self, transaction: str, host: str) -> None:
        """Remove a nonce that can confirm nothing any more."""
        try:
            self._path(transaction, host).unlink(missing_ok=True)
        except (OSError, ValueError):
            pass  # what it would confirm has ended


def hash_of(nonce: str) -> str:
    """Return what the host is given when it is armed: the SHA-256 of the nonce's text, in hex."""
    return sha256(nonce.encode("ascii")).hexdigest()
