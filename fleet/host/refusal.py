"""Why the helper says no: a code of the protocol, a sentence and the problems."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Every code an answer's ``error`` may carry.
CODES = (
    "refused",
    "failed",
    "stale",
    "locked",
    "reverted",
    "revert-failed",
    "internal",
    "preflight",
)


class Refused(Exception):
    """An operation that was not carried out, or was taken back; the text is for the operator.

    ``problems`` are plain dicts with the fields of a Problem.
    """

    def __init__(self, code: str, message: str, problems: Any = ()) -> None:
        super().__init__(message)
        assert code in CODES, code
        self.code = code
        self.message = message
        self.problems = list(problems)
