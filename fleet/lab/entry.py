"""Ways into a lab's hosts: by ssh, by namespaces, by a guest's agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.lab import inside
from fleet.lab.topology import LabError
from fleet.lab.vm.wire import GuestError, agent_of


def ssh_config(folder: str, hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what plain ssh needs, inside the controller's network: ssh -F ssh_config HOST."""
    lines = [
        f"Host {name}\n  HostName {about['address']}\n  Port {about['port']}\n"
        f"  User {about['username']}\n"
        for name, about in hosts.items()
    ]
    lines.append(
        f"Host *\n  IdentityFile {folder}/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n"
    )
    return "".join(lines)


def namespaces_prefix(pid: int) -> list[str]:
    """Return the argv prefix that runs a command in all the namespaces of a host's init."""
    return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]


def run_in_namespaces(
    pid: int, argv: Sequence[str], text: str, timeout: float
) -> tuple[int, str, str]:
    """Run a command in a host of namespaces; return its exit code, stdout and stderr."""
    done = subprocess.run(
        [*namespaces_prefix(pid), *argv],
        input=text,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=timeout,
    )
    return done.returncode, done.stdout, done.stderr


def run_in_guest(
    folder: str, argv: Sequence[str], text: str, timeout: float
) -> tuple[int, str, str]:
    """Run a command in a guest by its agent; as run_in_namespaces. Raises LabError."""
    try:
        with agent_of(folder, timeout) as agent:
            code, out, err = agent.run(argv, text.encode(), timeout)
    except GuestError as error:
        raise LabError(f"the host's agent: {error}") from error
    return code, out.decode(errors="replace"), err.decode(errors="replace")


def execute_in_guest(folder: str, argv: Sequence[str]) -> int:
    """Run a command in a guest and print what it says once it is done; return its exit code.

    A guest has no terminal to share: what is typed here is read before the command starts.
    """
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    code, out, err = run_in_guest(folder, argv, text, 3600)
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


def environment() -> dict[str, str]:
    """Return the environment of a command inside a host: a host's, not this machine's."""
    kept = {name: os.environ[name] for name in ("TERM",) if name in os.environ}
    return {"PATH": inside.PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", **kept}
