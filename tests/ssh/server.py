"""A real sshd on loopback, in mounts of its own, and the parameters that reach it."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fleet.ssh.connection import AsyncSSH

#: Root's real home has start-up files that may take a minute; this host's users have an empty one.
USERS = """\
root:x:0:0:root:/home:/bin/bash
operator:x:64001:65534::/home:/bin/bash
stranger:x:64003:65534::/home:/bin/bash
sshd:x:64002:65534::/run/sshd:/usr/sbin/nologin
"""
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile /run/authorized_keys
StrictModes no
UsePAM no
PidFile none
PrintMotd no
PrintLastLog no
PermitRootLogin yes
MaxStartups 200
MaxSessions 100
Subsystem sftp internal-sftp
SetEnv PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
"""
SETUP = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /home
mount -t tmpfs tmpfs /usr/local/bin
mkdir /run/sshd
cp {folder}/client_key.pub /run/authorized_keys
mount --bind {folder}/users /etc/passwd
sed 's/:.*/:*:19000:0:99999:7:::/' {folder}/users > /run/shadow
chmod 600 /run/shadow
mount --bind /run/shadow /etc/shadow
echo 'root ALL=(ALL) ALL' > /run/sudoers
echo 'operator ALL=(ALL) NOPASSWD: ALL' >> /run/sudoers
chmod 440 /run/sudoers
[ ! -e /etc/sudoers ] || mount --bind /run/sudoers /etc/sudoers
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""


class Host:
    """A host with its sshd: where it is, and commands run on it without fleet."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.folder, self.port, self.pid = folder, port, pid

    def sh(self, script: str) -> str:
        """Run a shell script on the host and return its output."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "sh", "-ec", script]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def path(self, path: str) -> Path:
        """Return where a file of the host is seen from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    @property
    def extras(self) -> dict[str, Any]:
        """The plugin's extras that log in here."""
        return {
            "client_keys": [str(self.folder / "client_key")],
            "known_hosts": str(self.folder / "known_hosts"),
            "config": [],
        }

    def connection(self, username: str = "root", **more: Any) -> AsyncSSH:
        """Return an opened, not yet connected, plugin."""
        return opened("127.0.0.1", self.port, username, {**self.extras, **more})


def opened(
    hostname: str, port: int | None, username: str | None, extras: dict[str, Any]
) -> AsyncSSH:
    """Return a plugin that Nornir has opened."""
    plugin = AsyncSSH()
    plugin.open(hostname, username, None, port, None, extras)
    return plugin


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_keys(folder: Path, port: int) -> None:
    """Write a host key, a client key and the known_hosts that go with them."""
    for name in ("host_key", "client_key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")


@contextmanager
def a_host(folder: Path) -> Iterator[Host]:
    """Run an sshd in mounts of its own; afterwards nothing of it is left."""
    if os.geteuid() != 0 or not shutil.which("sshd"):
        pytest.skip("needs root and sshd")
    port = free_port()
    write_keys(folder, port)
    (folder / "users").write_text(USERS)
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    script = SETUP.format(folder=folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=log, stderr=log)
    try:
        wait_until_it_listens(port, process, folder / "log")
        yield Host(folder, port, process.pid)
    finally:
        process.terminate()
        process.wait(10)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a port of loopback takes connections."""
    end = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port of loopback; a thread per caller runs ``serve``. Gives the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    callers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def answer(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            serve(caller)

    def accept() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                callers.append(caller)
                threads.append(threading.Thread(target=answer, args=(caller,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
        for caller in callers:
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def refusing(times: int, answer: bytes, reset: bool, to: int) -> AbstractContextManager[int]:
    """Serve a port that closes on the first callers, then leads to a real sshd."""
    turns = itertools.count()

    def serve(caller: socket.socket) -> None:
        if next(turns) < times:
            if reset:
                linger = struct.pack("ii", 1, 0)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            caller.sendall(answer)
            return
        with socket.create_connection(("127.0.0.1", to)) as there:
            back = threading.Thread(target=pump, args=(there, caller))
            back.start()
            pump(caller, there)
            back.join()

    return serving(serve)


def stalling(stalled: threading.Event, to: int) -> AbstractContextManager[int]:
    """Serve a port that leads to a real sshd until it is stalled; then nothing passes any more."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not stalled.is_set():
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve(caller: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", to)) as there:
            back = threading.Thread(target=pass_on, args=(there, caller))
            back.start()
            pass_on(caller, there)
            back.join()

    return serving(serve)


def silent(says: bytes) -> AbstractContextManager[int]:
    """Serve a port that says something, and nothing more until the caller leaves."""

    def serve(caller: socket.socket) -> None:
        caller.sendall(says)
        while caller.recv(65536):
            pass

    return serving(serve)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until either side ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
