"""The program: its table of commands, each imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from fleet.cli.command import Command, report_internal
from fleet.cli.options import LabOption, ProjectOption, VerboseOption

#: Sections of the help; a command's module, and its line, which is all that the help needs.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Every day": {
        "plan": ("plan", "Show what would change, and which guests it touches."),
        "rollout": ("rollout", "Change hosts: canary first, in waves, confirmed or put back."),
        "audit": ("audit", "Report drift between intent and hosts."),
    },
    "Changes in flight and past": {
        "status": ("transactions", "Show what is armed, for how long, and what to type."),
        "confirm": ("transactions", "Keep a change that waits for its confirmation."),
        "revert": ("transactions", "Put hosts back before their deadline does."),
        "history": ("history", "Show past runs, or one in full."),
    },
    "Intent and hosts": {
        "intent": ("intent", "Show a host's merged intent, or validate everything."),
        "preset": ("preset", "List the presets of tuning, or print one."),
        "schema": ("schema", "Print the JSON Schema of the intent, for editors."),
        "observe": ("observe", "Show a host's network as an intent would write it."),
        "adopt": ("adopt", "Write hosts that already run into the inventory."),
        "run": ("run", "Run one of the project's Nornir tasks."),
    },
    "Projects and labs": {
        "init": ("init", "Make a new project from the example."),
        "lab": ("lab", "Real test hosts on this machine."),
        "version": ("version", "Print fleet's version."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}

HELP = """Configure the networking of fleets of KVM hypervisors.

Write the intent in inventory/, see the plan, roll it out; a host that cannot be reached after a
change puts itself back.
"""
EXAMPLES = """Examples:

  fleet plan --group rack3            what would change, and whom it touches
  fleet rollout --group rack3         canary, waves, health gates, commit-confirmed
  fleet audit                         drift report of the whole fleet
  fleet COMMAND --help                everything about one command, with examples

Exit codes: 0 done or no drift, 1 failed on some host, 2 usage, inventory or intent is wrong,
3 drift or changes pending, 4 reverted, 5 a host needs a person."""


#: Click's UsageError, which Typer does not export: what every wrong command line raises.
WrongUse: type[Exception] = typer.BadParameter.__mro__[1]


class Program(TyperGroup):
    """The group of all commands, which knows them by name and imports them one at a time."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command: its line alone where words are completed, else the whole of it."""
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        if ctx.resilient_parsing and not _named(ctx, cmd_name):
            return Command(cmd_name, help=line, short_help=line)
        return load(module, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that arguments name; a wrong one is answered with the nearest."""
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by section, without importing one."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<8}", line) for name, (_, line) in commands.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are."""
        formatter.write(f"\n{EXAMPLES}\n")


def _named(ctx: Any, name: str) -> bool:
    # While words are completed, the group resolves the command that stands on the line and then
    # lists all of them; only the first needs to be real.
    return name in (*ctx._protected_args, *ctx.args)


def load(module: str, name: str) -> Any:
    """Import a command's module and return the command."""
    built = typer.main.get_command(importlib.import_module(f"fleet.cli.{module}").app)
    found = (
        built.commands[name] if isinstance(built, TyperGroup) and name in built.commands else built
    )
    found.name = name
    return found


def _print_version(asked: bool) -> None:
    if asked:
        from fleet import __version__

        print(f"fleet {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
]


def program() -> Any:
    """Return the whole command line as one command."""
    root = typer.Typer(
        cls=Program,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=HELP,
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    @root.callback()
    def fleet(
        project: ProjectOption = None,
        lab: LabOption = "",
        verbose: VerboseOption = False,
        version: VersionOption = False,
    ) -> None:
        """Take the options that may stand before the command; each command reads them."""

    return typer.main.get_command(root)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = None if arguments is None else list(arguments)
    if "_FLEET_COMPLETE" in os.environ:
        # Typer cleans help of rich's markup, which ours has none of, and imports rich: 0.17 s.
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        return program().main(words, prog_name="fleet", standalone_mode=False) or 0
    except typer.Abort:
        print("fleet: nothing was done", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return _pipe_closed()
    except WrongUse as error:
        from fleet.cli.say import usage_lines

        for line in usage_lines(error):
            print(line, file=sys.stderr)
        return 2
    except Exception as error:
        said = sys.argv[1:] if words is None else words
        report_internal(error, "-v" in said or "--verbose" in said)
        return 1


def _pipe_closed() -> int:
    # The reader (head, less) went away. What Python would still flush has nowhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
