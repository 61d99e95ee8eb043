"""Errors that an operator sees: each says what is wrong and where, and carries its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.host.change import Problem
    from fleet.intent.tree import Place


class FleetError(Exception):
    """Something an operator can understand and act on; ``exit_code`` is the program's."""

    exit_code = 1


class UsageError(FleetError):
    """What was asked for cannot be done as asked; no host was contacted."""

    exit_code = 2


class IntentError(UsageError):
    """What an inventory file says cannot be used.

    ``place`` is its file, line and column (0 where unknown), ``path`` its place in the data
    (``network.bridges.br0.mtu``), ``nearest`` the valid key that may have been meant, ``remedy``
    what to write instead, ``host`` the host whose state needed it. ``others`` holds the further
    errors found along with this one; the exception's text has a line for each.
    """

    def __init__(
        self,
        message: str,
        place: Place | None = None,
        path: str = "",
        *,
        nearest: str = "",
        remedy: str = "",
        host: str = "",
        others: Sequence[IntentError] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.place, self.path = message, place, path
        self.nearest, self.remedy, self.host = nearest, remedy, host
        self.others = tuple(others)

    @property
    def file(self) -> str:
        """The file, empty where there is none."""
        return self.place.file if self.place else ""

    @property
    def line(self) -> int:
        """The line, 0 where unknown."""
        return self.place.line if self.place else 0

    @property
    def sentence(self) -> str:
        """This error alone, without its place and path."""
        text = self.message
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        return f"{text}; {self.remedy}" if self.remedy else text

    def __str__(self) -> str:
        where = ""
        if self.place:
            where = f"{self.place if self.place.line else self.place.file}: "
        path = f"{self.path}: " if self.path else ""
        return "\n".join([f"{where}{path}{self.sentence}", *map(str, self.others)])


class InventoryError(IntentError):
    """The inventory itself is wrong: its files, its groups, how its hosts are connected to."""


class HostUnreachable(FleetError):
    """A host did not answer, or did not let us in; nothing was changed."""


class HelperError(FleetError):
    """A host's helper answered with an error."""

    def __init__(self, code: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.problems = code, message, tuple(problems)


class ProtocolError(FleetError):
    """What answers on a host is not fleet's helper, or broke off; nothing it said was believed."""
