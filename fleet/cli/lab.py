"""``fleet lab``: real test hosts on this machine."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from fleet.cli import complete
from fleet.cli.command import app as new_app
from fleet.cli.command import command
from fleet.cli.options import Here, JsonOption
from fleet.errors import UsageError

app = new_app()


@app.callback(help="Real test hosts on this machine: namespaces or virtual machines. Needs root.")
def lab() -> None:
    """Group the lab's commands."""


NameOption = Annotated[
    str,
    typer.Option(
        "--lab",
        metavar="NAME",
        envvar="FLEET_LAB",
        help="Which lab; several can be up side by side.",
        autocompletion=complete.labs,
    ),
]
HostsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[HOST]...",
        help="Only these hosts of the inventory.",
        autocompletion=complete.hosts,
        show_default=False,
    ),
]


class Backend(StrEnum):
    """What a lab's hosts are."""

    netns = "netns"
    vm = "vm"
    vagrant = "vagrant"


@command(
    app,
    "up",
    """
    fleet lab up
    fleet lab up --lab second hv-r3-1 hv-r3-2
    fleet lab up --backend vm hv-r3-1 hv-r3-2
    fleet plan --lab lab                speak to the lab's hosts
    """,
)
def up(
    here: Here,
    hosts: HostsArgument = None,
    lab: NameOption = "lab",
    sshd_only: Annotated[
        bool, typer.Option("--sshd-only", help="Leave out what only guests need; for many hosts.")
    ] = False,
    backend: Annotated[
        Backend,
        typer.Option(
            envvar="FLEET_LAB_BACKEND",
            help="netns: hosts of namespaces; vm: with a kernel of their own; vagrant: so too, by "
            "Vagrant.",
        ),
    ] = Backend.netns,
) -> None:
    """Bring up one test host for each host of the inventory, under its name."""
    from fleet.cli.project import open_lab

    chosen = open_lab(here.project, lab, backend.value)
    names = chosen.up(hosts=hosts or None, sshd_only=sshd_only, backend=backend.value)
    number = len(names) if names is not None else len(hosts or ())
    said = f"{number} host{' is' if number == 1 else 's are'} up" if number else "is up"
    print(f"lab {lab}: {said}. Add --lab {lab} to a command, or: export FLEET_LAB={lab}")


@command(
    app,
    "down",
    """
    fleet lab down
    fleet lab down --lab second
    """,
)
def down(here: Here, lab: NameOption = "lab") -> None:
    """Take a lab down and leave no trace of it, also after an up that was killed."""
    from fleet.cli.project import open_lab

    open_lab(here.project, lab).down()
    print(f"lab {lab}: down")


@command(
    app,
    "status",
    """
    fleet lab status
    fleet lab status --lab second --json
    """,
)
def status(here: Here, lab: NameOption = "lab", as_json: JsonOption = False) -> int:
    """Show a lab's hosts, their addresses and whether they run and can be logged in to.

    Exit code 1 if a host has ended, or has no sshd that listens: fleet lab exec still enters that.
    """
    from fleet.cli.project import open_lab
    from fleet.cli.say import print_json
    from fleet.report.text import clean, table

    hosts = open_lab(here.project, lab).status()
    code = 0 if all(about["state"] == "up" for about in hosts.values()) else 1
    if as_json:
        print_json("lab status", hosts, code)
        return code
    for line in table(
        [
            [clean(name), *(clean(value) for value in about.values())]
            for name, about in hosts.items()
        ]
    ):
        print(line)
    if not hosts:
        if os.geteuid():
            raise UsageError("whether a lab is up only root can see; run fleet with sudo")
        print(f"lab {lab} is not up; fleet lab up --lab {lab} brings it up")
    return code


@command(
    app,
    "exec",
    """
    fleet lab exec hv-r3-1 -- ip -br address
    fleet lab exec hv-r3-1 -- ip link set br-guests mtu 1400
    """,
)
def execute(
    here: Here,
    host: Annotated[
        str,
        typer.Argument(metavar="HOST", help="A host of the lab.", autocompletion=complete.hosts),
    ],
    words: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="What to run, after --.")],
    lab: NameOption = "lab",
) -> int:
    """Run a command inside a lab host, as root, and exit as it exits."""
    from fleet.cli.project import open_lab

    return int(open_lab(here.project, lab).exec(host, words) or 0)


HostArgument = Annotated[
    str, typer.Argument(metavar="HOST", help="A host of the lab.", autocompletion=complete.hosts)
]
NicArgument = Annotated[str, typer.Argument(metavar="NIC", help="One of the host's NICs.")]


@command(
    app,
    "reset",
    """
    fleet lab reset hv-r3-1
    """,
)
def reset(here: Here, host: HostArgument, lab: NameOption = "lab") -> None:
    """Reset a lab host without warning, as its button would; it boots with its disk as it is."""
    from fleet.cli.project import open_lab

    open_lab(here.project, lab).reset(host)
    print(f"{host}: reset")


@command(
    app,
    "unplug",
    """
    fleet lab unplug hv-r3-1 eno2
    """,
)
def unplug(here: Here, host: HostArgument, nic: NicArgument, lab: NameOption = "lab") -> None:
    """Pull the cable out of a NIC of a lab host."""
    from fleet.cli.project import open_lab

    open_lab(here.project, lab).cable(host, nic, plugged=False)
    print(f"{host}: {nic} is unplugged; fleet lab plug {host} {nic} plugs it in again")


@command(
    app,
    "plug",
    """
    fleet lab plug hv-r3-1 eno2
    """,
)
def plug(here: Here, host: HostArgument, nic: NicArgument, lab: NameOption = "lab") -> None:
    """Plug the cable of a NIC of a lab host in again."""
    from fleet.cli.project import open_lab

    open_lab(here.project, lab).cable(host, nic, plugged=True)
    print(f"{host}: {nic} is plugged in")


@command(
    app,
    "vagrant",
    """
    fleet lab vagrant -- halt hv-r3-1
    fleet lab vagrant -- up hv-r3-1
    """,
)
def vagrant(
    here: Here,
    words: Annotated[list[str], typer.Argument(metavar="-- WORD...", help="Vagrant's own words.")],
    lab: NameOption = "lab",
) -> int:
    """Run Vagrant on the machines of a lab of --backend vagrant, and exit as it exits."""
    from fleet.cli.project import open_lab
    from fleet.lab.vagrant import VagrantLab

    opened = open_lab(here.project, lab)
    if not isinstance(opened, VagrantLab):
        raise UsageError(f"lab {lab} is not Vagrant's: fleet lab up --backend vagrant makes one")
    return opened.vagrant(words)


@command(
    app,
    "topology",
    """
    fleet lab topology --json
    """,
)
def topology(here: Here, as_json: JsonOption = False) -> None:
    """Show what a lab of the inventory looks like: hosts, their NICs, and networks.

    As JSON also the files that make a machine a host; vagrant/Vagrantfile is made of it.
    """
    from fleet.cli.project import project_path
    from fleet.cli.say import print_json
    from fleet.lab.plain import plain_topology
    from fleet.report.text import clean, table

    found = plain_topology(project_path(here.project))
    if as_json:
        print_json("lab topology", found["hosts"], 0, networks=found["networks"])
        return
    rows = [
        [clean(name), clean(nic["name"]), clean(nic["mac"]), clean(nic["network"])]
        for name, host in found["hosts"].items()
        for nic in host["nics"]
    ]
    for line in table(rows):
        print(line)
