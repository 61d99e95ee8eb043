"""Nornir's connection plugin ``asyncssh``: one SSH connection a host, shared by all its tasks."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.errors import FleetError, HostUnreachable, UsageError
from fleet.printable import printable

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection, SSHClientProcess
    from nornir.core.configuration import Config

#: How often a host that refuses for now (MaxStartups, PerSourcePenalties) is tried, in all.
TRIES = 6
#: The longest pause between two tries, in seconds; each is a random part of its bound.
LONGEST_PAUSE = 8.0
PYTHON = "/usr/bin/python3"


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
        self._port: int | None = None
        self.username: str | None = None
        self._password: str | None = None
        self._extras: dict[str, Any] = {}
        self._connecting: asyncio.Task[SSHClientConnection] | None = None
        self._jump: AsyncSSH | None = None
        self._accepted = False
        self.key: Any = None

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
        self._port = port
        self.username, self._password = username, password
        self._extras = dict(extras or {})

    async def ready(self) -> SSHClientConnection:
        """Return the asyncssh connection, connecting once for all who ask, anew if it was lost.

        Raises HostUnreachable with the reason: no answer, a changed host key, no login.
        """
        task = self._connecting
        if task is None or task.get_loop() is not asyncio.get_running_loop() or _over(task):
            self.close()
            task = self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(task)

    async def _connect(self) -> SSHClientConnection:
        import asyncssh

        from fleet.ssh.options import options_for

        if not self.hostname:
            raise UsageError("a host without hostname cannot be connected to")
        options = options_for(
            self.username, self._password, self._extras, self.hostname, self._port
        )
        for attempt in range(1, TRIES + 1):
            try:
                return await self._dial(options)
            except (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError) as error:
                # sshd closes before its banner where MaxStartups or a penalty bites: not for good.
                if attempt == TRIES:
                    raise self._unreachable(error) from error
            except (asyncssh.Error, OSError, TimeoutError) as error:
                raise self._unreachable(error) from error
            await asyncio.sleep(random.uniform(0.1, min(LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1))))
        raise AssertionError("unreachable")

    async def _dial(self, options: Any) -> SSHClientConnection:
        """Connect once: so long for the TCP connection, and so long again for the login."""
        import asyncssh

        from fleet.ssh.client import connected
        from fleet.ssh.options import CONNECT_TIMEOUT, LOGIN_TIMEOUT

        connect = float(self._extras.get("connect_timeout") or CONNECT_TIMEOUT)
        login = float(self._extras.get("login_timeout") or LOGIN_TIMEOUT)
        hops = self._extras.get("proxy_jump") or options.tunnel
        through: Any = None
        if hops and hops != "none":
            self._jump = self._jump or take_jump(str(hops), self._extras)
            through = await self._jump.ready()
            connect += login  # the far end's TCP connection is not ours to see
        loop = asyncio.get_running_loop()
        self._accepted = False
        async with asyncio.timeout(connect) as limit:

            def accepted() -> None:
                self._accepted = True
                limit.reschedule(loop.time() + login)

            if through is None:
                connected.set(accepted)
            return await asyncssh.connect(
                self.hostname, self._port or (), tunnel=through, options=options
            )

    def _unreachable(self, error: BaseException) -> HostUnreachable:
        import asyncssh

        where = f"{self.hostname} port {self.port}"
        said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        if isinstance(error, OSError) and error.errno and error.errno > 0:
            # asyncio's own text of a refused connection does not say that it was refused.
            said = os.strerror(error.errno).lower()
        said = printable(str(said) or type(error).__name__)
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return HostUnreachable(
                f"{where}: the host key is not the one in known_hosts ({said}); find out why "
                "before you trust it, then correct known_hosts"
            )
        if isinstance(error, asyncssh.PermissionDenied):
            who = self.username or "you"
            return HostUnreachable(
                f"{where}: login refused for {who}: {said}; try ssh {who}@{self.hostname}"
            )
        if isinstance(error, TimeoutError):
            if self._accepted:
                return HostUnreachable(
                    f"{where}: no answer in time, though the connection was taken; "
                    "see whether its sshd hangs"
                )
            return HostUnreachable(
                f"{where}: no answer in time; see whether the host is up and its sshd runs"
            )
        return HostUnreachable(f"{where}: {said}")

    @property
    def port(self) -> int:
        """The port as far as the inventory says; ssh's own where it does not."""
        return self._port or 22

    @property
    def python(self) -> str:
        """The host's interpreter, by absolute path: a login's PATH may lead anywhere."""
        return str(self._extras.get("python") or PYTHON)

    async def command_prefix(self) -> list[str]:
        """Return ``sudo -n --`` for a login that is not root's, else nothing."""
        connection = await self.ready()
        return [] if connection.get_extra_info("username") == "root" else ["sudo", "-n", "--"]

    async def run(
        self,
        argv: Sequence[str],
        input: bytes | None = None,
        timeout: float | None = None,
        root: bool = False,
    ) -> Completed:
        """Run one command and return what it did; argv is quoted, never interpreted.

        ``root`` runs it through ``sudo -n`` where the login is not root's. ``timeout`` is in
        seconds. Raises HostUnreachable where there is no answer in time or the connection is lost.
        """
        import asyncssh

        connection = await self.ready()
        words = [*(await self.command_prefix() if root else ()), *argv]
        try:
            done = await connection.run(
                shlex.join(words), input=input, encoding=None, timeout=timeout, check=False
            )
        except asyncssh.TimeoutError as error:
            raise HostUnreachable(
                f"{self.hostname}: {printable(argv[0], 80)}: no end within {timeout:g} s"
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error
        out, err = (_text(each) for each in (done.stdout, done.stderr))
        return Completed(done.returncode if done.returncode is not None else -1, out, err)

    async def process(self, argv: Sequence[str]) -> SSHClientProcess[bytes]:
        """Start a command and return asyncssh's process, its streams in bytes."""
        import asyncssh

        connection = await self.ready()
        try:
            return await connection.create_process(shlex.join(argv), encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error

    async def push(self, data: bytes, path: str) -> None:
        """Write a file on the host over SFTP, readable by its owner alone."""
        import asyncssh

        connection = await self.ready()
        try:
            async with connection.start_sftp_client() as sftp:
                attributes = asyncssh.SFTPAttrs(permissions=0o600)
                async with sftp.open(path, "wb", attributes) as file:
                    await file.write(data)
        except asyncssh.SFTPError as error:
            raise FleetError(f"{self.hostname}: {path}: {printable(error.reason)}") from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close the connection; safe to call from any thread and more than once."""
        task, self._connecting = self._connecting, None
        jump, self._jump = self._jump, None
        if jump is not None:
            leave_jump(jump)
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
        task = self._connecting
        self.close()
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                await task.result().wait_closed()


def _over(task: asyncio.Task[SSHClientConnection]) -> bool:
    """Whether a connection failed, or was made and is lost."""
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().is_closed()


#: The jump hosts in use, by event loop and way of reaching them, and how many hosts use each.
_jumps: dict[Any, tuple[AsyncSSH, int]] = {}


def take_jump(hops: str, extras: Mapping[str, Any]) -> AsyncSSH:
    """Return the connection to a jump host that all hosts behind it share.

    ``hops`` is ssh's ProxyJump: [USER@]HOST[:PORT], several with commas. One connection each, as
    a jump host's MaxStartups would refuse hundreds of logins at once.
    """
    before, _, last = hops.rpartition(",")
    inherited = {k: v for k, v in extras.items() if k not in ("python", "proxy_jump")}
    inherited["proxy_jump"] = before or "none"
    key = (id(asyncio.get_running_loop()), hops, repr(sorted(inherited.items(), key=repr)))
    jump, users = _jumps.get(key, (None, 0))
    if jump is None:
        user, _, where = last.strip().rpartition("@")
        hostname, port = split_port(where)
        jump = AsyncSSH()
        jump.open(hostname, user or None, None, port, None, inherited)
        jump.key = key
    _jumps[key] = (jump, users + 1)
    return jump


def leave_jump(jump: AsyncSSH) -> None:
    """Give a jump host back; the last to do so closes it."""
    _, users = _jumps.pop(jump.key)
    if users > 1:
        _jumps[jump.key] = (jump, users - 1)
    else:
        jump.close()


def split_port(where: str) -> tuple[str, int | None]:
    """Split HOST[:PORT], [V6][:PORT] or a bare IPv6 address; raises UsageError."""
    host, colon, port = where.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = where, ""
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"proxy_jump: {where!r} is not HOST or HOST:PORT")
    return host.strip("[]"), int(port) if port else None


def _abandon(task: asyncio.Task[SSHClientConnection]) -> None:
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        task.result().close()


def _text(output: bytes | str | None) -> str:
    return output if isinstance(output, str) else (output or b"").decode("utf-8", "replace")
