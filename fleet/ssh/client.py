"""asyncssh's callbacks: when the TCP connection stands, and which new host keys to accept."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any

#: What a connecting task wants to be called with when its TCP connection stands.
connected: ContextVar[Callable[[], None] | None] = ContextVar("connected", default=None)


@cache
def client_class() -> Any:
    """Return the class; asyncssh is imported by then, and not before."""
    import asyncssh

    class Client(asyncssh.SSHClient):
        """Says when the peer has taken the connection, and knows how to trust a new host."""

        def __init__(self, accept: Callable[[str, str, int, Any], bool] | None = None) -> None:
            self._accept = accept

        def connection_made(self, conn: Any) -> None:
            tell = connected.get()
            if tell is not None:
                tell()

        def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
            return self._accept is not None and self._accept(host, addr, port, key)

    return Client


def accepting(known_hosts: Any, file: Path) -> Any:
    """Return a client factory that accepts hosts never seen, and remembers them in a file."""
    return partial(client_class(), partial(_accept, known_hosts, file))


def _accept(known_hosts: Any, file: Path, host: str, addr: str, port: int, key: Any) -> bool:
    if any(known_hosts.match(host, addr, None if port == 22 else port)):
        return False  # it is known, and by another key
    name = host if port == 22 else f"[{host}]:{port}"
    line = f"{name} {key.export_public_key().decode('ascii').strip()}\n"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode("ascii"))
    finally:
        os.close(descriptor)
    known_hosts.load(line)
    return True
