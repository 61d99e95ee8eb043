"""JSON for the helper's protocol, without importing ``json``.

``import json`` compiles regular expressions and costs a host 7 ms; its C scanner and encoder,
which do the work, cost nothing to import. Where they are missing (another interpreter) the
module itself serves.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the C scanner reads its options from (Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


_scan: Any
_encode: Any
try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Context())  # type: ignore[arg-type]
    _encode = make_encoder(
        None, _refuse, encode_basestring_ascii, None, ":", ",", True, False, False
    )
except (ImportError, TypeError):
    import json

    _scan = json.JSONDecoder(parse_constant=_Context.parse_constant).scan_once  # type: ignore[attr-defined]
    _encode = None


def loads(text: str) -> Any:
    """Return the value of one JSON document; raises ValueError where it is not one."""
    text = text.strip()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, RecursionError) as error:
        raise ValueError("not a JSON document") from error
    if end != len(text):
        raise ValueError(f"{len(text) - end} characters after the JSON document")
    return value


def dumps(value: Any) -> str:
    """Return a value as one line of ASCII JSON, keys sorted, so equal values are equal text."""
    if _encode is None:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "".join(_encode(value, 0))
