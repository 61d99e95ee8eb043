"""Connection options, parsed once and shared: keys, known hosts and ~/.ssh/config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError

if TYPE_CHECKING:
    from asyncssh import SSHClientConnectionOptions

#: Seconds to connect, seconds to log in, and how a dead peer is noticed: three probes of five.
CONNECT_TIMEOUT, LOGIN_TIMEOUT = 10, 20
KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 5, 3

_parsed: dict[object, Any] = {}


def options_for(
    username: str | None, password: str | None, extras: Mapping[str, Any]
) -> SSHClientConnectionOptions:
    """Return asyncssh's options for a way of logging in, the same object for equal ways.

    ``extras`` may hold ``client_keys`` (paths), ``known_hosts`` (a path; None turns checking off),
    ``config`` (paths; default ~/.ssh/config), ``agent_path``, ``proxy_jump``, ``connect_timeout``,
    ``login_timeout``, and any other option of asyncssh's SSHClientConnectionOptions. Host keys are
    checked against ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts unless told otherwise. Raises
    UsageError where a key or a known-hosts file cannot be read.
    """
    key = (username, password, repr(sorted(extras.items(), key=repr)))
    found: SSHClientConnectionOptions | None = _parsed.get(key)
    if found is None:
        found = _parsed[key] = _build(username, password, dict(extras))
    return found


def _build(username: str | None, password: str | None, extras: dict[str, Any]) -> Any:
    import asyncssh

    words: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "login_timeout": LOGIN_TIMEOUT,
        "keepalive_interval": KEEPALIVE_INTERVAL,
        "keepalive_count_max": KEEPALIVE_COUNT,
    }
    config = extras.pop("config", None)
    if config is None:
        usual = Path.home() / ".ssh" / "config"
        config = [str(usual)] if usual.exists() and "client_keys" not in extras else None
    words["config"] = [str(path) for path in config] if config else None
    if username:
        words["username"] = username
    if password:
        words["password"] = password
    try:
        if extras.get("client_keys"):
            paths = extras.pop("client_keys")
            listed = [paths] if isinstance(paths, (str, Path)) else paths
            words["client_keys"] = [_key(path) for path in listed]
            words.setdefault("agent_path", None)
        if isinstance(extras.get("known_hosts"), (str, Path)):
            words["known_hosts"] = asyncssh.read_known_hosts(str(extras.pop("known_hosts")))
        if extras.get("proxy_jump"):
            words["tunnel"] = extras.pop("proxy_jump")
        return asyncssh.SSHClientConnectionOptions(**{**words, **extras})
    except (OSError, ValueError, TypeError, asyncssh.KeyImportError) as error:
        raise UsageError(f"ssh options: {error}") from error


def _key(path: Any) -> Any:
    import asyncssh

    return asyncssh.read_private_key(str(path)) if isinstance(path, (str, Path)) else path
