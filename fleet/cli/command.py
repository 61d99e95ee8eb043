"""How a command is made: shared options expanded, examples in its help, errors in plain words."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from fleet.cli.options import SHARED

if TYPE_CHECKING:
    from types import TracebackType

Function = Callable[..., int | None]


class Command(TyperCommand):
    """A command whose epilog is printed as it is written: examples are not prose to be wrapped."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, line by line."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


def app() -> typer.Typer:
    """Return an empty Typer as every command module has one."""
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


def command(into: typer.Typer, name: str, examples: str) -> Callable[[Function], Function]:
    """Register a function as a command; what it returns is the exit code, None is 0.

    A parameter whose annotation is one of ``fleet.cli.options.SHARED`` is expanded into that
    class's options.
    """

    def register(function: Function) -> Function:
        def run(context: typer.Context, **values: Any) -> None:
            # `fleet --lab demo plan` means the same as `fleet plan --lab demo`.
            root = context.find_root().params
            values |= {k: root[k] for k, v in values.items() if not v and root.get(k)}
            if isinstance(values.get("project"), str):
                values["project"] = Path(values["project"])
            verbose = bool(values.get("verbose"))
            raise typer.Exit(guarded(lambda: function(**_gathered(function, values)), verbose))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = _expanded(function)  # type: ignore[attr-defined]
        into.command(
            name,
            cls=Command,
            help=inspect.cleandoc(function.__doc__ or ""),
            short_help=(function.__doc__ or "").split("\n")[0],
            epilog="Examples:\n\n" + _indented(examples),
            context_settings={"help_option_names": ["--help", "-h"]},
        )(run)
        return function

    return register


def _indented(examples: str) -> str:
    return "\n".join(f"  {line}" for line in inspect.cleandoc(examples).splitlines())


def _shared(function: Function) -> dict[str, type]:
    hints = inspect.signature(function, eval_str=True).parameters
    return {name: p.annotation for name, p in hints.items() if p.annotation in SHARED}


def _expanded(function: Function) -> inspect.Signature:
    shared = _shared(function)
    own: list[inspect.Parameter] = []
    added: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if name in shared:
            added += inspect.signature(shared[name], eval_str=True).parameters.values()
        else:
            own.append(parameter)
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", keyword, annotation=typer.Context)
    return inspect.Signature([context, *(p.replace(kind=keyword) for p in [*own, *added])])


def _gathered(function: Function, values: dict[str, Any]) -> dict[str, Any]:
    gathered = dict(values)
    for name, cls in _shared(function).items():
        fields = inspect.signature(cls).parameters
        gathered[name] = cls(**{field: gathered.pop(field) for field in fields})
    return gathered


def guarded(work: Callable[[], int | None], verbose: bool = False) -> int:
    """Do the work of a command and return its exit code; errors are said, never thrown."""
    from fleet.errors import FleetError

    try:
        return work() or 0
    except FleetError as error:
        from fleet.cli.say import error_lines

        for line in error_lines(error):
            print(line, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fleet: interrupted", file=sys.stderr)
        raise
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        report_internal(error, verbose)
        return 1


def report_internal(error: Exception, verbose: bool) -> None:
    """Say in one line that fleet itself is at fault, and where; the traceback only when asked."""
    from fleet.report.text import clean

    if verbose:
        import traceback

        traceback.print_exception(error)
    where = _last(error.__traceback__)
    said = clean(f"{type(error).__name__}: {error}", 300)
    hint = "" if verbose else "; run it again with -v for the traceback, and report that"
    print(f"fleet: internal error: {said} ({where}){hint}", file=sys.stderr)


def _last(trace: TracebackType | None) -> str:
    where = "unknown place"
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "?")
        if str(name).startswith("fleet"):
            where = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where
