"""The options that commands share: a dataclass whose fields are options of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fleet.cli import complete

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        metavar="DIR",
        envvar="FLEET_PROJECT",
        help="The project: a directory with inventory/. By default this one or the nearest above.",
        show_default=False,
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more; on an internal error, show where.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
AllowOption = Annotated[
    list[str],
    typer.Option(
        "--allow",
        metavar="IMPACT,…",
        help="Permit drain, reboot, foreign (what is others'), or one resource (veth/vm7).",
        show_default=False,
    ),
]
LabOption = Annotated[
    str,
    typer.Option(
        "--lab",
        metavar="NAME",
        envvar="FLEET_LAB",
        help="Speak to this lab's hosts instead of the inventory's addresses.",
        autocompletion=complete.labs,
        show_default=False,
    ),
]
GroupOption = Annotated[
    list[str],
    typer.Option(
        "--group",
        "-g",
        metavar="GROUP",
        help="Hosts of this group, and of the groups below it. Repeat for more.",
        autocompletion=complete.groups,
        show_default=False,
    ),
]
HostOption = Annotated[
    list[str],
    typer.Option(
        "--host",
        "-H",
        metavar="HOST",
        help="This host. Repeat for more.",
        autocompletion=complete.hosts,
        show_default=False,
    ),
]
FilterOption = Annotated[
    list[str],
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="Hosts whose data has this value; a__b=V looks inside, and Nornir's "
        "__contains, __any, __in … end a key. Repeat to narrow.",
        show_default=False,
    ),
]
ExpressionOption = Annotated[
    str,
    typer.Option(
        "--nornir-filter",
        metavar="EXPR",
        help='Nornir\'s own filters: \'F(groups__contains="rack3") & ~F(role="edge")\'.',
        show_default=False,
    ),
]
LimitOption = Annotated[
    int,
    typer.Option("--concurrency", metavar="N", min=1, max=10_000, help="Hosts spoken to at once."),
]


@dataclass(frozen=True)
class Here:
    """Which project, and how much to say."""

    project: ProjectOption = None
    verbose: VerboseOption = False


@dataclass(frozen=True)
class Scope:
    """Which hosts of which project, and how to reach them."""

    group: GroupOption = ()  # type: ignore[assignment]
    host: HostOption = ()  # type: ignore[assignment]
    filter: FilterOption = ()  # type: ignore[assignment]
    nornir_filter: ExpressionOption = ""
    lab: LabOption = ""
    concurrency: LimitOption = 100
    project: ProjectOption = None
    verbose: VerboseOption = False

    @property
    def narrowed(self) -> bool:
        """Whether any selector was given; without one the scope is every host."""
        return bool(self.group or self.host or self.filter or self.nornir_filter)


@dataclass(frozen=True)
class OneHost:
    """How to reach a single host that the command names."""

    lab: LabOption = ""
    project: ProjectOption = None
    verbose: VerboseOption = False


def words(texts: list[str]) -> tuple[str, ...]:
    """Return the words of an option that takes several, each with commas or repeated."""
    return tuple(word for text in texts for word in text.split(",") if word)


#: What ``command`` expands into options.
SHARED = (Here, Scope, OneHost)
