"""Frozen records: dataclasses on the controller, and next to free to import on a host.

Importing ``dataclasses`` and ``typing`` costs a host about 15 ms, more than reading its whole
network; a host therefore gets the few lines below instead. Annotations are strings (PEP 563) and
are never evaluated there.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

#: True in the helper, which runs as ``python3 -I -S``.
ON_HOST = bool(sys.flags.isolated and sys.flags.no_site)


def field_names(record: Any) -> tuple[str, ...]:
    """Return the names of a record's fields, in the order they are declared."""
    names: tuple[str, ...] = record.__spec_fields__
    return names


def _declared(cls: type) -> dict[str, str]:
    declared: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        # A host has no typing_extensions, and these annotations are texts in every Python.
        declared.update(base.__dict__.get("__annotations__", {}))  # noqa: RUF063
    return declared


def _light(cls: type[T]) -> type[T]:
    names = tuple(_declared(cls))

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        values = dict(zip(names, args), **kwargs)
        for name in names:
            if name in values:
                self.__dict__[name] = values.pop(name)
            else:
                self.__dict__[name] = getattr(cls, name)
        if values:
            raise TypeError(f"{cls.__name__} has no field {sorted(values)[0]!r}")

    def __eq__(self: Any, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self: Any) -> int:
        return hash(tuple(self.__dict__.values()))

    def __setattr__(self: Any, name: str, value: object) -> None:
        raise AttributeError(f"{cls.__name__} is frozen")

    def __repr__(self: Any) -> str:
        return f"{cls.__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"

    for function in (__init__, __eq__, __hash__, __setattr__, __repr__):
        setattr(cls, function.__name__, function)
    return cls


if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True)
    def spec(cls: type[T]) -> type[T]:
        """Make a class a frozen record."""

else:

    def spec(cls):
        """Make a class a frozen record."""
        if ON_HOST:
            record = _light(cls)
        else:
            import dataclasses

            record = dataclasses.dataclass(frozen=True)(cls)
            # A field that must be named has a default that its own type refuses: "" is no device.
            record.__pydantic_config__ = {
                "extra": "forbid",
                "alias_generator": dashed,
                "validate_default": True,
            }
        record.__spec_fields__ = tuple(_declared(cls))
        return record


def dashed(name: str) -> str:
    """Return the netplan spelling of a field name: ``forward_delay`` is ``forward-delay``."""
    return name.rstrip("_").replace("_", "-")


def _words(annotation: str) -> list[str]:
    for mark in "[],|.":
        annotation = annotation.replace(mark, " ")
    return annotation.split()


def _nested(cls: type, annotation: str) -> type | None:
    words = _words(annotation)
    for base in cls.__mro__:
        space = getattr(sys.modules.get(base.__module__), "__dict__", {})
        for word in words:
            found = space.get(word)
            if isinstance(found, type) and "__spec_fields__" in found.__dict__:
                return found
    return None


#: What decode() needs of a class: its fields, each with its annotation and the record inside it.
_plans: dict[type, dict[str, tuple[str, type | None]]] = {}


def _plan_of(cls: type) -> dict[str, tuple[str, type | None]]:
    found = _plans.get(cls)
    if found is None:
        declared = _declared(cls).items()
        found = _plans[cls] = {name: (text, _nested(cls, text)) for name, text in declared}
    return found


def decode(cls: type[T], data: dict[str, Any]) -> T:
    """Build a record, and the records inside it, from plain data with Python's field names.

    Lists become tuples. Raises TypeError on a key that is not a field, for the data comes from
    the controller, which has validated it.
    """
    plan = _plan_of(cls)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in plan:
            raise TypeError(f"{cls.__name__} has no field {name!r}")
        annotation, inner = plan[name]
        values[name] = _decode_value(inner, annotation, value)
    return cls(**values)


def _decode_value(inner: type | None, annotation: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_decode_value(inner, "", item) for item in value)
    if isinstance(value, dict) and inner is not None:
        if annotation.startswith("dict["):
            return {key: _decode_value(inner, "", item) for key, item in value.items()}
        return decode(inner, value)
    return value


def encode(record: Any) -> Any:
    """Return a record as plain data for the wire; fields that are None are left out."""
    if hasattr(record, "__spec_fields__"):
        items = ((name, getattr(record, name)) for name in record.__spec_fields__)
        return {name: encode(value) for name, value in items if value is not None}
    if isinstance(record, dict):
        return {key: encode(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [encode(item) for item in record]
    return record
