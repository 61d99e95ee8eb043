"""Tables that were proven to mean what intent says, so that an audit need not ask nft(8) again.

What is kept is no state but a fact, true whatever comes of a transaction: that a text and a table
of this kernel form (``kernel_form``) meant the same when nft listed both. Where the table still has
that form and intent still has that text, nothing has changed. Losing the file costs time alone.
"""

from __future__ import annotations

from fleet.host import wire
from fleet.host.tables import kernel_form
from fleet.host.transactions import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fleet.host.kernel.observation import Observation

NAME = "proven-tables"


def holds(observation: Observation, name: str, rules: str) -> bool:
    """Say whether ``family/table`` is as it was when it was proven to mean these rules."""
    text = _text(name, rules)
    known = stored(observation.system.root).get(text)
    if known is None or not observation.exists:
        return False
    try:
        if kernel_form.digest(observation.system, name) != known:
            return False
    except OSError:
        return False  # nft will say what is wrong
    observation.root.proven[text] = known
    return True


class Proof:
    """Watches that nobody changes the ruleset while a table is being compared."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._began = self._generation()

    def _generation(self) -> int | None:
        try:
            return kernel_form.generation(self._observation.system)
        except OSError:
            return None

    def found_equal(self, name: str, rules: str) -> None:
        """Remember in the observation that the table, as it is, means these rules."""
        try:
            form = kernel_form.digest(self._observation.system, name)
        except OSError:
            return
        if form is not None and self._began is not None and self._generation() == self._began:
            self._observation.root.proven[_text(name, rules)] = form


def _text(name: str, rules: str) -> str:
    return files.sha256(f"{name}\n{rules}")


def stored(root: str) -> dict[str, str]:
    """Return the forms that are on record by the digests of their texts."""
    try:
        found = wire.loads(files.unseal(files.read(_path(root))))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def store(root: str, proven: dict[str, str]) -> None:
    """Put on record what an observation has proven; a full disk leaves it unrecorded."""
    if not proven or proven == stored(root):
        return
    try:
        # Without fsync: a file that a power cut empties is one that does not count.
        files.replace(_path(root), files.seal(wire.dumps(proven)), sync=False)
    except OSError:
        files.remove(f"{_path(root)}.new")


def _path(root: str) -> str:
    return f"{files.Paths(root).state}/{NAME}"
