"""Errors that an operator sees: each says what is wrong and where, and carries its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.host.change import Problem


class FleetError(Exception):
    """Something an operator can understand and act on; ``exit_code`` is the program's."""

    exit_code = 1


class UsageError(FleetError):
    """What was asked for cannot be done as asked; no host was contacted."""

    exit_code = 2


class InventoryError(UsageError):
    """The inventory is wrong, at a file and line."""

    def __init__(self, message: str, file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.message, self.file, self.line = message, file, line


class IntentError(UsageError):
    """An intent is wrong, at a file, line and path."""

    def __init__(
        self, message: str, file: str = "", line: int = 0, path: str = "", host: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.file, self.line, self.path, self.host = message, file, line, path, host


class HostUnreachable(FleetError):
    """A host did not answer, or did not let us in; nothing was changed."""


class HelperError(FleetError):
    """A host's helper answered with an error."""

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.problems = code, message, tuple(problems)
