"""Converting words into specs: pydantic, and its errors in the operator's terms.

Pydantic is imported here alone, and only when something is converted.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from fleet.errors import IntentError
from fleet.host.spec import dashed
from fleet.intent.source import nearest
from fleet.intent.tree import Mapping, Node, Sequence, path_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
Path = tuple[str | int, ...]


_adapters: dict[Any, TypeAdapter[Any]] = {}
_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def adapter(cls: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter of a spec's class, built when first needed."""
    if cls not in _adapters:
        from pydantic import TypeAdapter

        with _without_plugins():
            _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Keep pydantic from reading every installed package for plugins that would watch it: 8 ms.

    The variable is pydantic's own switch, asked whenever a validator is built.
    """
    said = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:
        if said is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = said


def convert(cls: type[T], data: object, node: Node, path: Path) -> T:
    """Return the spec that words (``tree.words``, normalised) make.

    ``node`` is where they came from and ``path`` its place in the data. Raises IntentError, with
    every further error in ``others``.
    """
    from pydantic import ValidationError

    try:
        record = adapter(cls).validate_python(data)
    except ValidationError as error:
        raise joined(
            [_located(cls, details, node, path) for details in error.errors(include_url=False)]
        ) from None
    errors = [
        IntentError(f"{steps[-1]} is missing", *place_of(node, path, steps[:-1]))
        for steps in _missing(record, ())
    ]
    if errors:
        raise joined(errors)
    return cast("T", record)


def joined(errors: list[IntentError]) -> IntentError:
    """Return the first of several errors, carrying the others."""
    flat = [inner for error in errors for inner in (error, *error.others)]
    for error in flat:
        error.others = ()
    flat[0].others = tuple(flat[1:])
    return flat[0]


def _missing(record: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of texts that a spec requires: those whose default is empty."""
    if isinstance(record, (tuple, list)):
        for index, item in enumerate(record):
            yield from _missing(item, (*path, index))
    elif isinstance(record, dict):
        for key, item in record.items():
            yield from _missing(item, (*path, key))
    elif hasattr(record, "__spec_fields__"):
        for name in record.__spec_fields__:
            value = getattr(record, name)
            if value == "":
                yield (*path, dashed(name))
            elif value is not None:
                yield from _missing(value, (*path, dashed(name)))


def _located(cls: type[Any], details: Any, node: Node, path: Path) -> IntentError:
    steps: Path = tuple(details["loc"])
    kind, found = details["type"], details["input"]
    if steps and steps[-1] == "[key]":
        steps = steps[:-1]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        names = [dashed(name) for name in _fields_at(cls, steps[:-1])]
        key = str(steps[-1])
        inner, where = _find(node, steps)
        return IntentError(
            "unknown key",
            inner.key_place,
            path_text((*path, *where)),
            nearest=nearest(key, names),
            remedy=f"the keys here are {', '.join(names)}" if names else "",
        )
    message = _message(kind, details, found)
    if found == "" and _find(node, steps)[1] != steps:
        # A default that stands for "required" and was not given.
        kind, message = "missing", f"{steps[-1]} is missing"
    return IntentError(message, *place_of(node, path, steps[:-1] if kind == "missing" else steps))


_EXPECTED = {
    "tuple_type": "a list is expected",
    "list_type": "a list is expected",
    "dict_type": "a mapping is expected",
    "dataclass_type": "a mapping is expected",
    "string_type": "a text is expected",
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "float_parsing": "a number is expected",
    "float_type": "a number is expected",
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
}


def _message(kind: str, details: Any, found: object) -> str:
    if kind == "missing":
        return f"{details['loc'][-1]} is missing"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    shown = repr(found) if isinstance(found, (str, int, float)) else _named(found)
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, not {shown}"
    context = details.get("ctx", {})
    if kind == "literal_error":
        return f"{shown} is not one of {context['expected']}"
    if kind == "greater_than_equal":
        return f"{shown} is too small: at least {context['ge']:g}"
    if kind == "less_than_equal":
        return f"{shown} is too large: at most {context['le']:g}"
    return f"{details['msg']}, not {shown}"


def _named(value: object) -> str:
    if value is None:
        return "nothing"
    return "a mapping" if isinstance(value, dict) else "a list"


def place_of(node: Node, path: Path, steps: Path) -> tuple[Any, str]:
    """Return where a place in a node's words is written, and its path in the data."""
    inner, where = _find(node, steps)
    return (inner.place if where == steps else inner.key_place), path_text((*path, *where))


def _find(node: Node, steps: Path) -> tuple[Node, Path]:
    """Return the node for a place in normalised words, and the part of the path that exists.

    An address written as ``{address: {label: …}}`` has one level more than its spec.
    """
    where: list[str | int] = []
    for step in steps:
        inner: Node | None = None
        if isinstance(node, Mapping):
            inner = node.entries.get(str(step))
            if inner is None and len(node.entries) == 1 and where and isinstance(where[-1], int):
                only = next(iter(node.entries.values()))
                inner = only.entries.get(str(step), only) if isinstance(only, Mapping) else only
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            inner = node.items[step]
        if inner is None:
            break
        node = inner
        where.append(step)
    return node, tuple(where)


def _fields_at(cls: type[Any], steps: Path) -> tuple[str, ...]:
    current: Any = cls
    for step in steps:
        fields = getattr(current, "__spec_fields__", ())
        name = next((name for name in fields if dashed(name) == step), None)
        if name is not None:
            current = _record_in(get_type_hints(current)[name])
    return tuple(getattr(current, "__spec_fields__", ()))


def _record_in(hint: Any) -> Any:
    if (
        isinstance(hint, type)
        and hasattr(hint, "__spec_fields__")
        and not isinstance(hint, types.GenericAlias)
    ):
        return hint
    return next(filter(None, (_record_in(inner) for inner in get_args(hint))), None)
