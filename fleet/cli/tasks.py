"""What ``fleet run`` does: any Nornir task of the project, on the selected hosts."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleet.cli.options import Scope
from fleet.cli.say import print_json
from fleet.cli.work import Work, counting, finish, work_of
from fleet.errors import UsageError
from fleet.progress import Count
from fleet.report.text import Paint, clean, paint_for

if TYPE_CHECKING:
    from nornir.core.task import AggregatedResult, MultiResult


def run_task(scope: Scope, name: str, words: Sequence[str], as_json: bool) -> int:
    """Run a task, print each host's result, and return the exit code."""
    arguments = dict(map(_argument, words))
    result = finish(_run(work_of(scope), name, arguments))
    code = 1 if result.failed else 0
    if as_json:
        print_json("run", {host: _json(each) for host, each in result.items()}, code, task=name)
        return code
    if scope.verbose:
        _print_all(result)
        return code
    paint = paint_for()
    for host, each in result.items():
        for line in _lines(host, each, paint):
            print(line)
    return code


def _print_all(result: AggregatedResult) -> None:
    """Print every subtask's result too, the way Nornir's users know it from nornir-utils."""
    import contextlib
    import io
    import re

    for results in result.values():
        for each in results:
            # nornir-utils prints what a host said as it came.
            each.result, each.diff = _cleaned(_data(each.result)), _cleaned(each.diff)
    shown = io.StringIO()
    # Imported in here, for it has colorama wrap what stdout and stderr are then, for good.
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
        from nornir_utils.plugins.functions import print_result

        print_result(result)
    on = paint_for().on
    for line in shown.getvalue().splitlines():
        plain = re.sub("\x1b\\[[0-9;]*m", "", line)
        if plain:
            print(f"{line}\x1b[0m" if on and plain != line else plain)


def _cleaned(value: Any) -> Any:
    text = value if isinstance(value, str) else _text(value)
    return "\n".join(clean(line, 4000) for line in text.splitlines())


async def _run(work: Work, name: str, arguments: dict[str, Any]) -> AggregatedResult:
    with Count(f"run {name}", len(work.hosts)) as count:
        async with work.engine(counting(count)) as engine:
            return await engine.run_task(name, work.selection, **arguments)


def _argument(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"{word!r} is not KEY=VALUE; a task's arguments follow -- as key=value")
    if text in ("true", "false"):
        return key, text == "true"
    try:
        number = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key, text
    return key, number if isinstance(number, (int, float)) else text


def _lines(host: str, results: MultiResult, paint: Paint) -> list[str]:
    first = results[0]
    if results.failed:
        error = next((r.exception for r in results if r.exception is not None), None)
        said = clean(error if error is not None else first.result, 400)
        return [f"{paint.strong(clean(host) + ':')} {paint.removed('failed')}: {said}"]
    changed = paint.changed(" changed") if results.changed else ""
    text = _text(_data(first.result))
    if len(text) <= 100 and "\n" not in text:
        return [f"{paint.strong(clean(host) + ':')}{changed} {clean(text)}".rstrip()]
    lines = [f"  {clean(line, 400)}" for line in text.splitlines()]
    return [f"{paint.strong(clean(host) + ':')}{changed}", *lines]


def _json(results: MultiResult) -> dict[str, Any]:
    error = next((r.exception for r in results if r.exception is not None), None)
    return {
        "failed": results.failed,
        "changed": results.changed,
        # Nornir keeps the traceback of a task that raised as its result.
        "result": None if results[0].exception is not None else _data(results[0].result),
        "error": None if error is None else f"{type(error).__name__}: {error}",
    }


def _data(result: Any) -> Any:
    """Return a task's result as plain data where it is one of fleet's records."""
    from dataclasses import asdict, is_dataclass

    from fleet.host.spec import encode

    if hasattr(result, "__spec_fields__"):
        return encode(result)
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else result


def _text(data: Any) -> str:
    if not isinstance(data, (dict, list)):
        return "" if data is None else str(data)
    import yaml

    try:
        return str(
            yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
        ).rstrip()
    except yaml.YAMLError:
        return str(data)
