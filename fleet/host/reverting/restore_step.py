"""One look at a namespace on its way back, and the asking that notes what the kernel refused."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.link_attributes import GETLINK
from fleet.host.kernel.link_attributes import header as link_header
from fleet.host.kernel.raw import Unknown
from fleet.host.kernel.raw_link import SETTABLE_FLAGS, set_message
from fleet.host.kernel.system import CommandError
from fleet.host.reverting.snapshot import capture
from fleet.host.reverting.snapshot_parts import read_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.kernel.system import System

    Record = dict[str, Any]
    Snapshot = dict[str, Any]


class Step:
    """A namespace as it is now, beside the snapshot it goes back to.

    ``root`` is the snapshot of the whole host, for devices that moved between namespaces.
    """

    def __init__(
        self,
        system: System,
        then: Snapshot,
        errors: dict[tuple[str, str, str], str],
        root: Snapshot,
    ) -> None:
        self.system, self.then, self.root = system, then, root
        self.netlink = system.netlink
        self._errors = errors
        self.look()

    def look(self) -> None:
        """Read the namespace again."""
        self.now = capture(self.system, self.then["scope"], self.then)
        self.everything = read_links(self.netlink)
        self.indexes = {name: record["index"] for name, record in self.everything.items()}

    def flags_of(self, name: str) -> int:
        """Return a device's settable flags as they are at this moment."""
        payload = set_message(self.indexes[name])
        for _, answer in self.netlink.get(GETLINK, payload):
            return int(link_header.unpack_from(answer)[3]) & SETTABLE_FLAGS
        return 0

    def ask(
        self,
        part: str,
        name: str,
        kind: int,
        flags: int,
        message: Callable[..., bytes],
        *arguments: Any,
    ) -> bool:
        """Send ``message(*arguments)`` and say whether the kernel took it; a refusal is noted."""

        def send() -> None:
            self.netlink.request(kind, flags, message(*arguments))

        return self.attempt(part, name, send)

    def attempt(self, part: str, name: str, action: Callable[..., Any], *arguments: Any) -> bool:
        """Do ``action(*arguments)`` and say whether it worked; a refusal is noted."""
        try:
            action(*arguments)
        except Unknown as gone:
            self._note(part, name, f"no device {gone}")
        except OSError as error:
            self._note(part, name, error.strerror or str(error))
        except (CommandError, HostError) as error:
            self._note(part, name, str(error)[:300])
        else:
            return True
        return False

    def _note(self, part: str, name: str, text: str) -> None:
        self._errors[(self.system.namespace if self.then is not self.root else "", part, name)] = (
            text
        )
