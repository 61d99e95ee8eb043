"""Connection options, parsed once and shared: keys, known hosts, agent and ~/.ssh/config."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError

if TYPE_CHECKING:
    from asyncssh import SSHClientConnectionOptions

#: Seconds until a TCP connection stands, and from there until the login is done.
CONNECT_TIMEOUT, LOGIN_TIMEOUT = 10.0, 20.0
#: How a dead peer is noticed: three probes of five seconds.
KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 5, 3
#: Extras that are fleet's own; any other is an option of asyncssh.
OWN = ("proxy_jump", "python", "connect_timeout", "login_timeout", "strict_host_key_checking")
#: AES-GCM before asyncssh's first choice, ChaCha20: half a millisecond less a host, both ends.
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
USER_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")

_parsed: dict[object, Any] = {}


def options_for(
    username: str | None,
    password: str | None,
    extras: Mapping[str, Any],
    hostname: str = "",
    port: int | None = None,
) -> SSHClientConnectionOptions:
    """Return asyncssh's options for a way of logging in, the same object for equal ways.

    ``extras`` may hold ``client_keys`` (paths), ``known_hosts`` (a path or paths; None turns
    checking off), ``strict_host_key_checking`` (``yes``, or ``accept-new``, which adds unknown
    hosts' keys to the first file), ``config`` (paths; default ~/.ssh/config), ``agent_path``,
    ``proxy_jump``, ``connect_timeout``, ``login_timeout`` (seconds), and any other option of
    asyncssh's SSHClientConnectionOptions. Host keys and CAs are looked up in known_hosts as ssh
    does. Raises UsageError where a file cannot be read or an option makes no sense.
    """
    import asyncssh

    try:
        config = _config(extras, username, hostname, port)
        said = config.get_options(False) if config is not None else {}
        key = (username, password, _text(extras), _text(said))
        found: SSHClientConnectionOptions | None = _parsed.get(key)
        if found is None:
            found = _parsed[key] = _build(username, password, extras, config, hostname, port)
        return found
    except (OSError, ValueError, TypeError, asyncssh.KeyImportError) as error:
        raise UsageError(f"ssh options: {error}") from error


def _text(words: Mapping[str, Any]) -> str:
    return repr(sorted(words.items(), key=repr))


def config_files(extras: Mapping[str, Any]) -> list[Path]:
    """Return the ssh configuration files to read."""
    paths = extras.get("config")
    if paths is None:
        usual = Path("~/.ssh/config").expanduser()
        return [usual] if os.access(usual, os.R_OK) else []
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    return [Path(path).expanduser() for path in paths]


def _config(
    extras: Mapping[str, Any], username: str | None, hostname: str, port: int | None
) -> Any:
    """Read what the configuration files say of one host; None where there are none."""
    from asyncssh.config import SSHClientConfig

    paths = config_files(extras)
    if not paths:
        return None
    return SSHClientConfig.load(
        None, paths, False, False, False, getpass.getuser(), username or (), hostname, port or ()
    )


def _build(
    username: str | None,
    password: str | None,
    extras: Mapping[str, Any],
    config: Any,
    hostname: str,
    port: int | None,
) -> SSHClientConnectionOptions:
    import asyncssh

    words = {name: value for name, value in extras.items() if name not in OWN and name != "config"}
    words["known_hosts"] = known_hosts = _known_hosts(extras, config)
    words["client_factory"] = _client_factory(extras, config, known_hosts)
    words.setdefault("keepalive_interval", KEEPALIVE_INTERVAL)
    words.setdefault("keepalive_count_max", KEEPALIVE_COUNT)
    # Both are our own business: a jump host and the wait for a TCP connection count apart.
    words |= {"connect_timeout": None, "login_timeout": 0}
    if config is None or config.get("Ciphers") is None:
        words.setdefault("encryption_algs", CIPHERS)
    if username:
        words["username"] = username
    if password:
        words["password"] = password
    if words.get("client_keys"):
        listed = words["client_keys"]
        listed = [listed] if isinstance(listed, (str, Path)) else listed
        words["client_keys"] = [_key(each, words.get("passphrase")) for each in listed]
        words.setdefault("agent_path", None)
    # A login's environment, terminal and RemoteCommand are for people.
    words |= {"env": None, "send_env": None, "request_pty": False, "command": None}
    paths = config_files(extras)
    if paths:
        words |= {"host": hostname, "port": port or ()}
    return asyncssh.SSHClientConnectionOptions(config=paths or None, **words)


def _key(given: Any, passphrase: Any) -> Any:
    """Parse a private key once, with the certificate beside it where there is one."""
    import asyncssh

    if not isinstance(given, (str, Path)):
        return given
    path = Path(given).expanduser()
    key = asyncssh.read_private_key(str(path), passphrase)
    certificate = path.with_name(path.name + "-cert.pub")
    return (key, asyncssh.read_certificate(str(certificate))) if certificate.exists() else key


def known_hosts_files(extras: Mapping[str, Any], config: Any) -> list[Path]:
    """Return the files of known hosts, those of the user first, whether they exist or not."""
    named = extras.get("known_hosts")
    if named is not None:
        listed = [named] if isinstance(named, (str, Path)) else list(named)
    else:
        get = config.get if config is not None else (lambda name, default: default)
        listed = list(get("UserKnownHostsFile", USER_HOSTS))
        listed += get("GlobalKnownHostsFile", GLOBAL_HOSTS)
    return [Path(path).expanduser() for path in listed]


def _known_hosts(extras: Mapping[str, Any], config: Any) -> Any:
    """Return the known hosts, parsed once for all who name the same files."""
    import asyncssh

    if "known_hosts" in extras:
        given = extras["known_hosts"]
        if given is None:
            return None
        if not isinstance(given, (str, Path, list, tuple)):
            return given
    files = known_hosts_files(extras, config)
    key = ("known_hosts", tuple(files))
    if key not in _parsed:
        must_exist = "known_hosts" in extras and not accepts_new(extras)
        present = [str(path) for path in files if must_exist or path.exists()]
        _parsed[key] = (
            asyncssh.read_known_hosts(present) if present else asyncssh.import_known_hosts("")
        )
    return _parsed[key]


def accepts_new(extras: Mapping[str, Any]) -> bool:
    """Whether the keys of hosts never seen are accepted; raises ValueError for a strange word."""
    word = extras.get("strict_host_key_checking", "yes")
    if word in (True, "yes"):
        return False
    if word == "accept-new":
        return True
    raise ValueError(
        f"strict_host_key_checking is yes or accept-new, not {word!r}; "
        "known_hosts: null turns the check off"
    )


def _client_factory(extras: Mapping[str, Any], config: Any, known_hosts: Any) -> Any:
    from fleet.ssh.client import accepting, client_class

    if not accepts_new(extras) or known_hosts is None:
        return client_class()
    return accepting(known_hosts, known_hosts_files(extras, config)[0])
