"""Jinja2, in a sandbox: values of the intent, and the project's templates.

Templates are the operator's own, so this guards against accidents, not attackers: what is
undefined is an error, data cannot be changed, and what would run or grow without end stops. What
came from a host is never a template.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fleet.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MAX_VALUE = 64 << 10
MAX_FILE = 4 << 20
#: How far all the range()s of one rendering may count together.
MAX_RANGE = 100_000
_KEPT = 4096

T = TypeVar("T")


class RenderError(UsageError):
    """A template could not be rendered; ``undefined`` is the name it lacked, if that was why."""

    def __init__(self, message: str, undefined: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.message, self.undefined, self.line = message, undefined, line


class Renderer:
    """Renders texts and template files; folders are searched in order."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = [str(folder) for folder in folders]
        self._environment: Environment | None = None
        self._templates: dict[str, Template] = {}

    @property
    def environment(self) -> Environment:
        """The environment, made when first needed: importing jinja2 takes 50 ms."""
        if self._environment is None:
            self._environment = _environment(self._folders)
        return self._environment

    def text(self, text: str, variables: Mapping[str, Any]) -> str:
        """Return a text rendered; raises RenderError."""
        template = self._templates.get(text)
        if template is None:
            if len(self._templates) >= _KEPT:
                self._templates.clear()
            template = _guarded(lambda: self.environment.from_string(text))
            self._templates[text] = template
        return _guarded(lambda: _output(template, variables, MAX_VALUE))

    def file(self, name: str, variables: Mapping[str, Any]) -> str:
        """Return a template of the folders rendered; raises RenderError."""
        template = _guarded(lambda: self.environment.get_template(name))
        return _guarded(lambda: _output(template, variables, MAX_FILE), template.filename or "")


_budget = threading.local()


def _output(template: Template, variables: Mapping[str, Any], limit: int) -> str:
    _budget.left = MAX_RANGE
    parts: list[str] = []
    size = 0
    for part in template.generate(variables):
        size += len(part)
        if size > limit:
            raise OverflowError(f"the result is longer than {limit >> 10} KiB")
        parts.append(part)
    return "".join(parts)


def _guarded(function: Callable[[], T], file: str = "") -> T:
    """Return what a function returns; its errors name the line of the template's file."""
    from jinja2 import TemplateNotFound, TemplateSyntaxError, UndefinedError

    try:
        return function()
    except UndefinedError as error:
        found = re.match(r"'([^']+)' is undefined", str(error))
        name = found[1] if found else ""
        raise RenderError(str(error), undefined=name, line=_line(error, file)) from error
    except TemplateSyntaxError as error:
        raise RenderError(f"not a template: {error.message}", line=error.lineno) from error
    except TemplateNotFound as error:
        raise RenderError(f"there is no template {error.name!r}") from error
    except RecursionError as error:
        raise RenderError("the template calls itself without end") from error
    except Exception as error:
        # An expression may fail in any way that Python's own operators can.
        message = str(error) or type(error).__name__
        raise RenderError(message, line=_line(error, file)) from error


def _line(error: Exception, file: str) -> int:
    """Return the line of a template's file that an error came from, 0 where it is unknown.

    Jinja2 rewrites its tracebacks: they have the template's own lines.
    """
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _range(*arguments: int) -> range:
    result = range(*arguments)
    _budget.left = getattr(_budget, "left", MAX_RANGE) - len(result)
    if _budget.left < 0:
        raise OverflowError(f"range counts to more than {MAX_RANGE}")
    return result


def _check_operation(operator: str, left: Any, right: Any) -> None:
    if operator == "*":
        for sequence, factor in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(factor, int):
                _check_size(len(sequence) * factor)
        if isinstance(left, int) and isinstance(right, int):
            _check_size((left.bit_length() + right.bit_length()) >> 3)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_size(left.bit_length() * max(right, 0) >> 3)
    elif operator == "%" and isinstance(left, str):
        _check_format(left, right)


def _check_format(text: str, values: Any) -> None:
    for width in re.findall(r"[0-9]{4,}", text):
        _check_size(int(width[:12]))
    if "*" in text:
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, int):
                _check_size(abs(value))


def _check_size(size: int) -> None:
    if size > MAX_VALUE:
        raise OverflowError(f"an operation's result is larger than {MAX_VALUE >> 10} KiB")


def _format(value: str, *arguments: Any, **named: Any) -> str:
    """``format`` of printf's kind, as Jinja2's own, with bounded widths."""
    values = named or arguments
    _check_format(str(value), values)
    return str(value) % values


def _center(value: str, width: int = 80) -> str:
    _check_size(width)
    return str(value).center(width)


#: Text's methods that make as much of it as a number says.
_GROWING = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"))


def _environment(folders: list[str]) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def wrap_str_format(self, value: Any) -> Any:
            # It would make text of any width; as an attribute it is refused below.
            return None

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str) and attr in _GROWING:
                return False
            return super().is_safe_attribute(obj, attr, value)

    environment = Sandbox(
        undefined=StrictUndefined,
        loader=FileSystemLoader(folders),
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["range"] = _range
    del environment.globals["lipsum"]
    environment.filters.update(format=_format, center=_center)
    return environment
