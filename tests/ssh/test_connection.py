"""The connection plugin against a real sshd, and against servers that refuse for a while."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from server import Host, free_port, opened, refusing, silent, stalling

from fleet.errors import HostUnreachable, UsageError
from fleet.ssh import connection as plugin_module
from fleet.ssh.connection import AsyncSSH, split_port


def used(plugin: AsyncSSH, work: Callable[[AsyncSSH], Awaitable[Any]]) -> Any:
    """Do some work over a connection on a loop of its own, and close it."""

    async def main() -> Any:
        try:
            return await work(plugin)
        finally:
            await plugin.aclose()

    return asyncio.run(main())


def test_arguments_reach_the_host_as_they_are(host: Host) -> None:
    """No word of an argv is interpreted by a shell, whatever it holds."""
    words = ["a b", "$HOME", "`id`", "'", '"', "\\", ";", "\n", "*", "", "-n", "é"]
    argv = ["/usr/bin/printf", "%s\\0", *words]
    done = used(host.connection(), lambda plugin: plugin.run(argv))
    assert (done.code, done.out.split("\0")[:-1], done.err) == (0, words, "")


def test_a_failing_command_is_a_result(host: Host) -> None:
    """Exit status, input and both outputs come back; nothing is raised."""
    argv = ["sh", "-c", "cat; echo bad >&2; exit 3"]
    done = used(host.connection(), lambda plugin: plugin.run(argv, input=b"in"))
    assert (done.code, done.out, done.err) == (3, "in", "bad\n")


def test_a_command_that_does_not_end_is_given_up(host: Host) -> None:
    """A command's own deadline ends the wait for it, and names it."""
    with pytest.raises(HostUnreachable, match=r"sleep: no end within 0\.2 s"):
        used(host.connection(), lambda plugin: plugin.run(["sleep", "30"], timeout=0.2))


def test_many_callers_share_one_connection(host: Host) -> None:
    """Whoever asks first connects, and all others wait for that one connection."""

    async def work(plugin: AsyncSSH) -> tuple[int, int]:
        found = await asyncio.gather(*(plugin.ready() for _ in range(20)))
        runs = await asyncio.gather(*(plugin.run(["sh", "-c", "echo $PPID"]) for _ in range(5)))
        return len(set(map(id, found))), len({run.out for run in runs})

    assert used(host.connection(), work) == (1, 1)


def test_a_lost_connection_is_made_anew(host: Host) -> None:
    """A later task of a script does not find the connection dead that an earlier one lost."""

    async def work(plugin: AsyncSSH) -> str:
        first = await plugin.ready()
        first.abort()
        await first.wait_closed()
        return (await plugin.run(["echo", "again"])).out

    assert used(host.connection(), work) == "again\n"


def test_a_plugin_serves_one_loop_after_the_other(host: Host) -> None:
    """A script that runs two loops in turn can keep its plugin."""
    plugin = host.connection()
    for _ in range(2):
        assert used(plugin, lambda plugin: plugin.run(["true"])).code == 0


def test_a_pushed_file_is_its_owners_alone(host: Host) -> None:
    """A file arrives byte by byte, mode 0600."""
    data = bytes(range(256)) * 1000
    used(host.connection(), lambda plugin: plugin.push(data, "/run/pushed"))
    path = host.path("/run/pushed")
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_process_is_spoken_to_in_bytes(host: Host) -> None:
    """A long-running command has streams of bytes both ways."""

    async def work(plugin: AsyncSSH) -> bytes:
        process = await plugin.process(["cat"])
        process.stdin.write(b"\xff\n")
        process.stdin.write_eof()
        return await process.stdout.read()

    assert used(host.connection(), work) == b"\xff\n"


def test_no_environment_and_no_terminal_are_sent(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What an ssh configuration would forward stays here: the host's own locale is in force."""
    config = tmp_path / "config"
    config.write_text("SendEnv LC_* LANG\nSetEnv FOO=bar\nRequestTTY force\nRemoteCommand id\n")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    plugin = host.connection(config=[str(config)])
    argv = ["sh", "-c", "echo ${LC_ALL-none} ${FOO-none}; tty"]
    assert used(plugin, lambda plugin: plugin.run(argv)).out == "none none\nnot a tty\n"


def test_sudo_for_a_login_that_is_not_roots(host: Host) -> None:
    """A command for root is put behind sudo -n where somebody else logs in, and only there."""
    sudo = host.path("/usr/local/bin/sudo")
    sudo.write_text('#!/bin/sh\necho sudo "$@"\n')
    sudo.chmod(0o755)
    try:
        work = lambda plugin: plugin.run(["id", "-u"], root=True)  # noqa: E731
        assert used(host.connection("operator"), work).out == "sudo -n -- id -u\n"
        assert used(host.connection("root"), work).out == "0\n"
    finally:
        sudo.unlink()


# Who is let in, and whom we let


def test_a_changed_host_key_is_refused(host: Host, tmp_path: Path) -> None:
    """A host that shows another key than known_hosts has is not spoken to."""
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{host.port} {(host.folder / 'client_key.pub').read_text()}")
    for more in ({}, {"strict_host_key_checking": "accept-new"}):
        plugin = host.connection(known_hosts=str(known), **more)
        with pytest.raises(HostUnreachable, match="host key is not the one in known_hosts"):
            used(plugin, lambda plugin: plugin.ready())
    assert len(known.read_text().splitlines()) == 1


def test_an_unknown_host_is_refused_unless_asked(host: Host, tmp_path: Path) -> None:
    """Strict is the default; accept-new takes the key once, writes it down, and checks it then."""
    known = tmp_path / "ssh" / "known_hosts"
    known.parent.mkdir()
    known.touch()
    with pytest.raises(HostUnreachable, match="known_hosts"):
        used(host.connection(known_hosts=str(known)), lambda plugin: plugin.ready())
    known.unlink()
    for _ in range(2):
        plugin = host.connection(known_hosts=str(known), strict_host_key_checking="accept-new")
        assert used(plugin, lambda plugin: plugin.run(["true"])).code == 0
    (line,) = known.read_text().splitlines()
    key = (host.folder / "host_key.pub").read_text().split()[1]
    assert line.split()[:3] == [f"[127.0.0.1]:{host.port}", "ssh-ed25519", key]
    assert known.stat().st_mode & 0o077 == 0


def test_a_host_certificate_of_a_known_authority_is_enough(host: Host, tmp_path: Path) -> None:
    """A host CA in known_hosts vouches for hosts that have no line of their own."""
    authority, certified = tmp_path / "ca", tmp_path / "host_key"
    for path in (authority, certified):
        subprocess.run(["ssh-keygen", "-qN", "", "-t", "ed25519", "-f", path], check=True)
    argv = [
        "ssh-keygen",
        "-q",
        "-s",
        authority,
        "-I",
        "x",
        "-h",
        "-n",
        "127.0.0.1",
        f"{certified}.pub",
    ]
    subprocess.run(argv, check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority * {(tmp_path / 'ca.pub').read_text()}")
    port = free_port()
    daemon = subprocess.Popen(
        [
            "nsenter", "-t", str(host.pid), "-m", "/usr/sbin/sshd", "-D", "-f",
            host.folder / "sshd_config", "-o", f"Port={port}", "-o", f"HostKey={certified}",
            "-o", f"HostCertificate={certified}-cert.pub",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        extras = {**host.extras, "known_hosts": str(known)}
        wait_for(port)
        plugin = opened("127.0.0.1", port, "root", extras)
        assert used(plugin, lambda plugin: plugin.run(["true"])).code == 0
    finally:
        daemon.terminate()
        daemon.wait(10)


def wait_for(port: int) -> None:
    """Return once something listens; each refused try takes no time."""
    for _ in range(10_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("nothing listens")


def test_a_refused_login_says_who_and_where(host: Host, tmp_path: Path) -> None:
    """A key that the host does not know is a refused login, named as such."""
    subprocess.run(["ssh-keygen", "-qN", "", "-t", "ed25519", "-f", tmp_path / "key"], check=True)
    plugin = host.connection(client_keys=[str(tmp_path / "key")])
    with pytest.raises(HostUnreachable, match=rf"port {host.port}: login refused for root"):
        used(plugin, lambda plugin: plugin.ready())


def test_the_agents_keys_log_in(host: Host, tmp_path: Path) -> None:
    """Without keys of its own a connection uses the operator's agent."""
    path = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not Path(path).exists():
            assert agent.poll() is None
        argv = ["ssh-add", "-q", str(host.folder / "client_key")]
        subprocess.run(argv, check=True, env={"SSH_AUTH_SOCK": path}, stderr=subprocess.DEVNULL)
        extras = {**host.extras, "agent_path": path}
        del extras["client_keys"]
        plugin = opened("127.0.0.1", host.port, "root", extras)
        assert used(plugin, lambda plugin: plugin.run(["true"])).code == 0
    finally:
        agent.terminate()
        agent.wait(10)


def test_the_operators_ssh_configuration_holds(host: Host, tmp_path: Path) -> None:
    """HostName, Port, User, IdentityFile and UserKnownHostsFile of each Host block are used."""
    config = tmp_path / "config"
    config.write_text(
        f"Host kvm1\n HostName 127.0.0.1\n Port {host.port}\n User root\n"
        f" IdentityFile {host.folder}/client_key\n UserKnownHostsFile {host.folder}/known_hosts\n"
        "Host kvm2\n HostName 127.0.0.1\n Port 1\n"
    )
    plugin = opened("kvm1", None, None, {"config": [str(config)]})
    assert used(plugin, lambda plugin: plugin.run(["id", "-u"])).out == "0\n"
    plugin = opened("kvm2", None, None, {"config": [str(config)]})
    with pytest.raises(HostUnreachable):
        used(plugin, lambda plugin: plugin.ready())


@pytest.mark.parametrize("how", ["extras", "configuration"])
def test_hosts_behind_a_jump_host_share_one_connection_to_it(
    host: Host, tmp_path: Path, how: str
) -> None:
    """ProxyJump of the inventory or of ssh's configuration leads through one shared login."""
    config = tmp_path / "config"
    keys = f"IdentityFile {host.folder}/client_key\nUserKnownHostsFile {host.folder}/known_hosts\n"
    jump = f"root@127.0.0.1:{host.port}"
    config.write_text(keys + (f"Host localhost\n ProxyJump {jump}\n" if how != "extras" else ""))
    known = tmp_path / "known"
    known.write_text((host.folder / "known_hosts").read_text().replace("127.0.0.1", "*"))
    extras: dict[str, Any] = {"config": [str(config)], "known_hosts": str(known)}
    if how == "extras":
        extras["proxy_jump"] = jump

    async def work() -> tuple[set[str], int]:
        plugins = [opened("localhost", host.port, "root", extras) for _ in range(3)]
        runs = await asyncio.gather(
            *(plugin.run(["sh", "-c", "echo $SSH_CONNECTION"]) for plugin in plugins)
        )
        shared = len(plugin_module._jumps)
        for plugin in plugins:
            await plugin.aclose()
        return {run.out.split()[0] for run in runs}, shared

    assert asyncio.run(work()) == ({"127.0.0.1"}, 1)
    assert plugin_module._jumps == {}


def test_where_a_jump_host_is() -> None:
    """ProxyJump's HOST, HOST:PORT, [V6]:PORT and bare V6 are told apart."""
    assert split_port("gate") == ("gate", None)
    assert split_port("gate:2222") == ("gate", 2222)
    assert split_port("[2001:db8::1]:22") == ("2001:db8::1", 22)
    assert split_port("2001:db8::1") == ("2001:db8::1", None)
    with pytest.raises(UsageError):
        split_port("gate:http")


def test_options_that_make_no_sense_are_usage_errors(host: Host) -> None:
    """A missing key, a missing known_hosts, a strange word: each says so before connecting."""
    for wrong in (
        {"client_keys": ["/nowhere/key"]},
        {"known_hosts": "/nowhere/known_hosts"},
        {"strict_host_key_checking": "no"},
        {"nonsense": 1},
    ):
        with pytest.raises(UsageError, match="ssh options"):
            used(host.connection(**wrong), lambda plugin: plugin.ready())


# Servers that refuse, for now or for good


@pytest.mark.parametrize(
    ("answer", "reset"),
    [(b"", False), (b"", True), (b"Exceeded MaxStartups\r\n", False), (b"SSH-2.0-x\r\n", False)],
)
def test_a_host_that_refuses_for_now_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, answer: bytes, reset: bool
) -> None:
    """sshd drops callers above MaxStartups before its banner; with pauses the next try gets in."""
    monkeypatch.setattr(plugin_module, "LONGEST_PAUSE", 0.11)
    known = host.folder / "known_any"
    known.write_text("* " + (host.folder / "known_hosts").read_text().split(None, 1)[1])
    with refusing(3, answer, reset, host.port) as port:
        plugin = opened("127.0.0.1", port, "root", {**host.extras, "known_hosts": str(known)})
        assert used(plugin, lambda plugin: plugin.run(["true"])).code == 0


def test_a_host_that_always_refuses_is_unreachable(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tries are bounded."""
    monkeypatch.setattr(plugin_module, "LONGEST_PAUSE", 0.11)
    with refusing(1000, b"", True, host.port) as port:
        plugin = opened("127.0.0.1", port, "root", host.extras)
        with pytest.raises(HostUnreachable, match="reset"):
            used(plugin, lambda plugin: plugin.ready())


def test_a_closed_port_is_not_tried_again(host: Host) -> None:
    """Where nobody listens the answer is final, and comes at once."""
    plugin = opened("127.0.0.1", free_port(), "root", host.extras)
    with pytest.raises(HostUnreachable, match=r"127\.0\.0\.1 port \d+: .*refused"):
        used(plugin, lambda plugin: plugin.ready())


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-slow\r\n"])
def test_a_host_that_accepts_and_then_says_nothing_costs_its_deadline(
    host: Host, says: bytes
) -> None:
    """Silence before or after the banner ends at the login's deadline."""
    with silent(says) as port:
        extras = {**host.extras, "connect_timeout": 5, "login_timeout": 0.3}
        plugin = opened("127.0.0.1", port, "root", extras)
        began = time.monotonic()
        with pytest.raises(HostUnreachable, match="no answer in time"):
            used(plugin, lambda plugin: plugin.ready())
        assert time.monotonic() - began < 3


def test_a_peer_that_is_gone_is_noticed(host: Host) -> None:
    """A half-open connection, a host that lost its power, ends by keepalives without an answer."""
    stalled = threading.Event()
    known = host.folder / "known_any"
    known.write_text("* " + (host.folder / "known_hosts").read_text().split(None, 1)[1])
    fast = {"keepalive_interval": 0.1, "keepalive_count_max": 3}
    with stalling(stalled, host.port) as port:
        extras = {**host.extras, **fast, "known_hosts": str(known)}
        plugin = opened("127.0.0.1", port, "root", extras)

        async def work(plugin: AsyncSSH) -> None:
            await plugin.ready()
            stalled.set()
            await plugin.run(["sleep", "30"])

        began = time.monotonic()
        with pytest.raises(HostUnreachable):
            used(plugin, work)
        assert time.monotonic() - began < 5


def test_fleets_ssh_starts_light() -> None:
    """asyncssh (a third of a second) is imported when something connects, not before."""
    program = (
        "import sys, fleet.ssh.connection, fleet.ssh.options, fleet.ssh.client\n"
        "import fleet.helper.session\n"
        "print('asyncssh' in sys.modules, 'cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr


@pytest.mark.parametrize(
    ("config", "cipher"),
    [("", "aes128-gcm@openssh.com"), ("Ciphers aes256-ctr\n", "aes256-ctr")],
)
def test_the_cipher_is_a_fast_one_unless_the_operator_says(
    host: Host, tmp_path: Path, config: str, cipher: str
) -> None:
    """AES-GCM is asked for first; what the operator's ssh configuration names goes before."""
    file = tmp_path / "config"
    file.write_text(config)
    plugin = host.connection(config=[str(file)])

    async def work(plugin: AsyncSSH) -> Any:
        return (await plugin.ready()).get_extra_info("send_cipher")

    assert used(plugin, work) == cipher
