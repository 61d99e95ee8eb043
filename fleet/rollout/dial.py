"""Sessions with hosts: the one that carries a run, and those dialled anew to confirm."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fleet.rollout.trouble import quietly

if TYPE_CHECKING:
    from nornir.core.configuration import Config
    from nornir.core.inventory import Host

    from fleet.ssh.connection import AsyncSSH

PLUGIN = "asyncssh"


class Session(Protocol):
    """A helper's channel: what ``fleet.helper.session.HelperSession`` offers."""

    async def call(
        self,
        op: str,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Return an operation's answer; raises HelperError, ProtocolError, HostUnreachable."""
        ...

    async def close(self) -> None:
        """End the helper, and what carries it."""
        ...


class Dial(Protocol):
    """How hosts are connected to."""

    async def main(self, host: Host) -> Session:
        """Return a session over the host's connection in Nornir; raises HostUnreachable."""
        ...

    async def anew(self, host: Host, address: str = "") -> Session:
        """Return a session over a new TCP connection and login; raises HostUnreachable.

        ``address`` is one of the host's management addresses; empty is the way ``main`` goes.
        """
        ...

    async def answers(self, host: Host, address: str) -> bool:
        """Say whether an address lets us in now."""
        ...


class SSHDial:
    """Connects by the connection plugin ``asyncssh``, with each host's parameters in Nornir."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def main(self, host: Host) -> Session:
        """Return a session over the connection that the host's tasks share."""
        from fleet.helper.session import HelperSession

        plugin: AsyncSSH = host.get_connection(PLUGIN, self.config)
        try:
            await plugin.ready()
            session = await HelperSession.open(plugin)
        except BaseException:
            forget(host)
            raise
        return _Owned(session, lambda: forget(host))

    async def anew(self, host: Host, address: str = "") -> Session:
        """Return a session over a connection of its own."""
        from fleet.helper.session import HelperSession

        plugin = self._plugin(host, address)
        try:
            await plugin.ready()
            session = await HelperSession.open(plugin)
        except BaseException:
            plugin.close()
            raise
        return _Owned(session, plugin.close)

    async def answers(self, host: Host, address: str) -> bool:
        """Connect and log in, no more."""
        plugin = self._plugin(host, address)
        try:
            await plugin.ready()
        except Exception:
            # Whatever keeps us out, out we are kept.
            return False
        finally:
            plugin.close()
        return True

    def _plugin(self, host: Host, address: str) -> Any:
        from fleet.ssh.connection import AsyncSSH

        said = host.get_connection_parameters(PLUGIN)
        where = said.hostname
        if address and not leads_to(host, address):
            where = address
        plugin = AsyncSSH()
        plugin.open(
            hostname=where,
            username=said.username,
            password=said.password,
            port=said.port,
            platform=said.platform,
            extras=dict(said.extras or {}),
            configuration=self.config,
        )
        return plugin


class _Owned:
    """A session that takes its connection along when it is closed."""

    def __init__(self, session: Any, close: Callable[[], None]) -> None:
        self._session, self._close = session, close

    async def call(
        self,
        op: str,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = await self._session.call(
            op, on_event=on_event, timeout=timeout, **fields
        )
        return answer

    async def close(self) -> None:
        try:
            await quietly(self._session.close())
        finally:
            self._close()


def forget(host: Host) -> None:
    """Close the connection that Nornir keeps for a host, so that the next use makes a new one."""
    if PLUGIN in host.connections:
        host.close_connection(PLUGIN)


def leads_to(host: Host, address: str) -> bool:
    """Whether the inventory's own way to the host arrives at an address.

    It does where the address is the inventory's ``hostname``: a connection option may then send
    us through a forwarded port, which a plain dial of the address would miss.
    """
    return same(host.hostname or "", address)


def same(one: str, other: str) -> bool:
    """Whether two texts are the same IP address."""
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return one == other


def override(host: Host, said: Mapping[str, Any]) -> None:
    """Reach a host as a lab says: {hostname, port, username, client_keys, known_hosts}."""
    from nornir.core.inventory import ConnectionOptions

    known = host.connection_options.get(PLUGIN)
    extras = dict((known.extras if known else None) or {})
    extras |= {k: v for k, v in said.items() if k not in ("hostname", "port", "username")}
    host.connection_options[PLUGIN] = ConnectionOptions(
        hostname=said.get("hostname"),
        port=said.get("port"),
        username=said.get("username"),
        password=known.password if known else None,
        platform=known.platform if known else None,
        extras=extras,
    )
