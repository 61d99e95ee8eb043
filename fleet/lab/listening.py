"""Whether something listens on a TCP port of another process's network, without a connection."""

from __future__ import annotations

from pathlib import Path

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
