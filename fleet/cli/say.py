"""How errors are said: what is wrong, where, what was expected, and what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from fleet.report.plan import problem_lines
from fleet.report.text import Paint, clean


def error_lines(error: Exception) -> list[str]:
    """Return an error as lines for stderr; several errors of the intent have a line each."""
    from fleet.errors import IntentError

    host = clean(getattr(error, "host", "") or "")
    if not isinstance(error, IntentError):
        said = clean(error, 1000)
        lines = [f"fleet: {host}: {said}" if host and host not in said else f"fleet: {said}"]
    else:
        # A file and line come first, so that editors and terminals can jump there.
        found = dict.fromkeys(clean(line, 1000) for line in str(error).splitlines())
        shown = [f"{line} (host {host})" if host and host not in line else line for line in found]
        lines = [f"fleet: {shown[0]}"]
        if len(shown) > 1:
            lines = ["fleet: the intent is wrong:", *(f"  {line}" for line in shown)]
    for problem in getattr(error, "problems", None) or ():
        lines += [f"  {line}" for line in problem_lines(problem, Paint(False))]
    return lines


def usage_lines(error: Any) -> list[str]:
    """Return a usage error as lines: what is wrong, the nearest right word, where help is."""
    ctx: Any = getattr(error, "ctx", None)
    command = ctx.command_path if ctx else "fleet"
    if type(error).__name__ == "NoArgsIsHelpError":
        return [str(ctx.get_help())]
    message = error.format_message()
    option = getattr(error, "option_name", "")
    if type(error).__name__ == "NoSuchOption":
        known = [name for p in (ctx.command.params if ctx else ()) for name in p.opts]
        near = get_close_matches(option, known, 1, 0.6)
        message = f"there is no option {clean(option)}"
        message += f"; did you mean {near[0]}?" if near else ""
    return [f"{command}: {clean(message, 400)}", f"Try '{command} --help'."]


def print_json(command: str, hosts: Any, exit_code: int = 0, **more: Any) -> None:
    """Print the one JSON document of a command; ``docs/guide.md`` documents its keys."""
    import json

    document = {"format": 1, "command": command, "exit_code": exit_code, **more, "hosts": hosts}
    print(json.dumps(document, indent=2, default=str))
