"""Nornir's connection plugin ``asyncssh``: one SSH connection a host, shared by all its tasks."""

from __future__ import annotations

import asyncio
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.errors import HostUnreachable

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection
    from nornir.core.configuration import Config

#: How often a host that refuses for now (MaxStartups, PerSourcePenalties) is tried, in all.
TRIES = 4
#: The longest pause between two tries, in seconds; each is a random part of its bound.
LONGEST_PAUSE = 4.0


@dataclass(frozen=True)
class Completed:
    """What a command on a host did: its exit status, its output as text."""

    code: int
    out: str
    err: str


class AsyncSSH:
    """One host's connection; ``open`` stores how, ``await ready()`` connects.

    In a Nornir script with the runner ``asyncio``::

        connection = task.host.get_connection("asyncssh", task.nornir.config)
        completed = await connection.run(["uname", "-r"])
    """

    def __init__(self) -> None:
        self.hostname = ""
        self.port = 22
        self.username: str | None = None
        self._password: str | None = None
        self._extras: dict[str, Any] = {}
        self._connecting: asyncio.Task[SSHClientConnection] | None = None

    # Nornir takes what it finds under ``connection`` for the connection itself.
    @property
    def connection(self) -> AsyncSSH:
        """This object: get_connection() returns it."""
        return self

    def open(
        self,
        hostname: str | None,
        username: str | None,
        password: str | None,
        port: int | None,
        platform: str | None,
        extras: dict[str, Any] | None = None,
        configuration: Config | None = None,
    ) -> None:
        """Store how to connect; nothing is contacted."""
        self.hostname = hostname or ""
        self.port = port or 22
        self.username, self._password = username, password
        self._extras = dict(extras or {})

    async def ready(self) -> SSHClientConnection:
        """Return the asyncssh connection, connecting once for all who ask.

        Raises HostUnreachable with the reason: no answer, a changed host key, no login.
        """
        if self._connecting is None or self._failed(self._connecting):
            self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._connecting)

    @staticmethod
    def _failed(task: asyncio.Task[SSHClientConnection]) -> bool:
        return task.done() and (task.cancelled() or task.exception() is not None)

    async def _connect(self) -> SSHClientConnection:
        import asyncssh

        from fleet.ssh.options import options_for

        options = options_for(self.username, self._password, self._extras)
        for attempt in range(1, TRIES + 1):
            try:
                return await asyncssh.connect(self.hostname, self.port, options=options)
            except asyncssh.ConnectionLost as error:
                # sshd closes before its banner where MaxStartups or a penalty bites: not for good.
                if attempt == TRIES:
                    raise self._unreachable(error) from error
            except (asyncssh.Error, OSError, TimeoutError) as error:
                raise self._unreachable(error) from error
            await asyncio.sleep(random.uniform(0.1, min(LONGEST_PAUSE, 0.5 * 2**attempt)))
        raise AssertionError("unreachable")

    def _unreachable(self, error: BaseException) -> HostUnreachable:
        import asyncssh

        where = f"{self.hostname} port {self.port}"
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return HostUnreachable(
                f"{where}: the host key is not the one in known_hosts ({error.reason}); find out "
                "why before you trust it"
            )
        if isinstance(error, asyncssh.PermissionDenied):
            who = self.username or "you"
            return HostUnreachable(f"{where}: login refused for {who}: {error.reason}")
        if isinstance(error, TimeoutError):
            return HostUnreachable(f"{where}: no answer in time")
        return HostUnreachable(f"{where}: {getattr(error, 'reason', None) or error}")

    @property
    def command_prefix(self) -> list[str]:
        """``sudo -n`` for a login that is not root's."""
        return [] if self.username in (None, "root") else ["sudo", "-n", "--"]

    async def run(
        self, argv: Sequence[str], input: bytes | None = None, timeout: float | None = None
    ) -> Completed:
        """Run one command and return what it did; argv is quoted, never interpreted."""
        connection = await self.ready()
        done = await connection.run(
            shlex.join(argv), input=input, encoding=None, timeout=timeout, check=False
        )
        out, err = (_text(each) for each in (done.stdout, done.stderr))
        return Completed(done.returncode if done.returncode is not None else -1, out, err)

    async def push(self, data: bytes, path: str) -> None:
        """Write a file on the host over SFTP, readable by its owner alone."""
        import asyncssh

        connection = await self.ready()
        async with connection.start_sftp_client() as sftp:
            attributes = asyncssh.SFTPAttrs(permissions=0o600)
            async with sftp.open(path, "wb", attributes) as file:
                await file.write(data)

    def close(self) -> None:
        """Close the connection; safe to call from any thread and more than once."""
        task, self._connecting = self._connecting, None
        if task is None:
            return
        loop = task.get_loop()
        if loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            _abandon(task)
        else:
            loop.call_soon_threadsafe(_abandon, task)

    async def aclose(self) -> None:
        """Close the connection and wait until it is closed."""
        task, self._connecting = self._connecting, None
        if task is None:
            return
        _abandon(task)
        if task.done() and not task.cancelled() and task.exception() is None:
            await task.result().wait_closed()


def _abandon(task: asyncio.Task[SSHClientConnection]) -> None:
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        task.result().close()


def _text(output: bytes | str | None) -> str:
    return output if isinstance(output, str) else (output or b"").decode("utf-8", "replace")
