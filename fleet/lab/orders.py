"""What a lab's one process is told, and how it and its hosts are ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import Any

from fleet.lab.topology import LabError

#: Seconds for the kernel to end a lab's processes.
_PATIENCE = 60.0


def ask(connection: socket.socket, order: dict[str, Any]) -> None:
    connection.sendall(json.dumps(order).encode() + b"\n")
    with connection.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        raise LabError("the lab ended while it was spoken to; bring it up again")
    answer = json.loads(line)
    if not answer["ok"]:
        raise LabError(answer["error"])


def end(pid: int) -> None:
    """Kill a namespace's init and wait until the kernel has ended all that was in it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], _PATIENCE)[0]:
            raise LabError(f"process {pid} does not end")
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
