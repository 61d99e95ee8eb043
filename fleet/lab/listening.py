"""Whether a host can be logged in to: something listens, or an sshd greets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fleet.lab.wires import Within

#: include/net/tcp_states.h
_LISTEN = "0A"


def listens(pid: int, port: int) -> bool:
    """Say whether a process's network has a listener on a port; False where the process is gone.

    What has been accepted does not count: sessions outlive the sshd that began them.
    """
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state = line.split()[:4]
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def greets(pid: int, address: str, port: int) -> bool:
    """Say whether an sshd greets on an address that a process's network leads to."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with (
            Within(namespace),
            socket.create_connection((address, port), timeout=5) as connection,
        ):
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
    finally:
        os.close(namespace)
