"""What a running guest is told: QEMU by QMP, and the agent inside it, both JSON over a socket.

The agent needs no network: a host whose management NIC is cut off still answers.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


class GuestError(RuntimeError):
    """QEMU or the agent refused, or did not answer in time."""


class Monitor:
    """A QMP connection to a running QEMU (qemu-qmp-ref(7))."""

    def __init__(self, path: str, patience: float = 30) -> None:
        """Connect, waiting for the socket to be there; raises GuestError."""
        self._talk = _Talk(path, patience)
        self._talk.read()
        self.ask("qmp_capabilities")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have a command carried out and return its result; raises GuestError."""
        self._talk.write({"execute": what, "arguments": arguments})
        while True:
            said = self._talk.read()
            if "error" in said:
                raise GuestError(f"{what}: {said['error']['desc']}")
            if "return" in said:
                return said["return"]

    def await_event(self, name: str, patience: float) -> dict[str, Any]:
        """Return the next event of a name; raises GuestError."""
        self._talk.patience(patience)
        while True:
            said = self._talk.read()
            if said.get("event") == name:
                return dict(said.get("data", {}))

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._talk.close()


class Agent:
    """A connection to the agent in a guest (qemu-ga-ref(7)); it serves one at a time."""

    def __init__(self, path: str, patience: float = 30) -> None:
        """Connect and wait for the agent to answer; raises GuestError."""
        end = time.monotonic() + patience
        while True:
            self._talk = _Talk(path, max(0.1, end - time.monotonic()))
            try:
                self._synchronize(min(5.0, max(0.1, end - time.monotonic())))
                return
            except GuestError:
                self._talk.close()
                if time.monotonic() > end:
                    raise

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have a command carried out and return its result; raises GuestError."""
        self._talk.write({"execute": what, "arguments": arguments})
        said = self._talk.read()
        if "error" in said:
            raise GuestError(f"{what}: {said['error'].get('desc')}")
        return said["return"]

    def run(self, argv: Sequence[str], stdin: bytes, patience: float) -> tuple[int, bytes, bytes]:
        """Run a command in the guest; return its exit code (128 and a signal's), stdout, stderr."""
        self._talk.patience(30)
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        started = self.ask(
            "guest-exec",
            path="/usr/bin/env",
            arg=list(argv),
            env=[path, "HOME=/root", "USER=root", "LANG=C.UTF-8"],
            **{"input-data": base64.b64encode(stdin).decode(), "capture-output": True},
        )
        end, pause = time.monotonic() + patience, 0.02
        while True:
            state = self.ask("guest-exec-status", pid=started["pid"])
            if state["exited"]:
                break
            if time.monotonic() > end:
                raise GuestError(f"{' '.join(argv)}: not done in {patience:g} s")
            time.sleep(pause)  # the agent has no event for it
            pause = min(0.5, pause * 1.5)
        code = state.get("exitcode", 128 + state.get("signal", 0))
        out, err = (base64.b64decode(state.get(name, "")) for name in ("out-data", "err-data"))
        return code, out, err

    def close(self) -> None:
        """Close the connection."""
        self._talk.close()

    def _synchronize(self, patience: float) -> None:
        # What an earlier client left unread comes first; 0xff makes the agent's parser start anew.
        token = int.from_bytes(os.urandom(4), "big")
        self._talk.patience(patience)
        self._talk.write({"execute": "guest-sync-delimited", "arguments": {"id": token}}, b"\xff")
        while True:
            if self._talk.read().get("return") == token:
                self._talk.patience(30)
                return


class _Talk:
    """Lines of JSON over a unix socket."""

    def __init__(self, path: str, patience: float) -> None:
        self._path = path
        self._rest = b""
        end = time.monotonic() + patience
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(max(0.1, end - time.monotonic()))
            try:
                self._socket.connect(path)
                return
            except OSError as error:
                self._socket.close()
                if time.monotonic() > end:
                    raise GuestError(f"{path}: {error}") from error
                time.sleep(0.05)  # QEMU has not made it yet

    def patience(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def write(self, message: dict[str, Any], before: bytes = b"") -> None:
        try:
            self._socket.sendall(before + json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GuestError(f"{self._path}: {error}") from error

    def read(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            try:
                more = self._socket.recv(1 << 16)
            except OSError as error:
                raise GuestError(f"{self._path}: {error}") from error
            if not more:
                raise GuestError(f"{self._path}: QEMU has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            said: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
        except ValueError:
            return {}
        return said

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


@contextmanager
def agent_of(folder: str, patience: float = 30) -> Iterator[Agent]:
    """Yield the agent of the guest whose sockets are in a folder, to one process at a time."""
    descriptor = os.open(f"{folder}/agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        agent = Agent(f"{folder}/agent", patience)
        try:
            yield agent
        finally:
            agent.close()
    finally:
        os.close(descriptor)
