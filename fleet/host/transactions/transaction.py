"""A transaction as it lies on the host: its journal, its verdict, and what follows from both."""

from __future__ import annotations

import os

from fleet.host import wire
from fleet.host.transactions import fence, files
from fleet.host.transactions.files import Paths
from fleet.host.transactions.journal import (
    APPLIED,
    ARMED,
    CONFIRMED,
    FORWARD,
    PREPARED,
    TERMINAL,
    Journal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System

#: How many finished journals a host keeps.
KEEP = 8


class Transaction:
    """One transaction, read from its journal.

    ``facts`` is what its records say, later ones over earlier ones. Raises OSError where there is
    no journal, or none that is ours.
    """

    def __init__(self, paths: Paths, name: str, journal: Journal | None = None) -> None:
        self.paths = paths
        self.name = files.valid_name(name)
        self.directory = paths.of(name)
        self.live = paths.live(name)
        self.journal = journal or Journal.open(self.directory)
        self.facts: dict[str, Any] = {}
        self.confirmed: list[str] = []
        self.read()

    def read(self) -> None:
        """Read the journal again; other processes of the transaction write to it too."""
        self.journal.reload()
        self.facts, self.confirmed = self.lease(), []
        if os.path.exists(f"{self.live}/applier"):
            self.facts.update(self._memory("applier"))
        for record in self.journal.records:
            self.facts.update(record)
            if record["state"] == APPLIED and record.get("address"):
                self.confirmed.append(record["address"])

    def lease(self) -> dict[str, Any]:
        """Return what was written into /run when it was armed in this boot; empty if it was not.

        It is the copy of the facts that no disk can tear.
        """
        return self._memory("lease")

    def _memory(self, name: str) -> dict[str, Any]:
        try:
            found = wire.loads(files.unseal(files.read(f"{self.live}/{name}")))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def armed_once(self) -> bool:
        """Whether it got as far as arming, whatever is left of the journal."""
        return (
            self.journal.state not in ("", PREPARED)
            or self.journal.damaged
            or bool(self.verdict())
            or os.path.exists(f"{self.live}/lease")
        )

    @property
    def begun(self) -> bool:
        """Whether a change may have been made; in its own boot /run is the better witness."""
        if os.path.exists(f"{self.live}/lease") and not self.journal.damaged:
            return os.path.exists(f"{self.live}/applier")
        return self.journal.damaged or self.journal.state not in ("", PREPARED, ARMED)

    @property
    def state(self) -> str:
        """Where the transaction stands: the journal's last state, or the outcome beyond it."""
        state = self.journal.state
        if state not in TERMINAL:
            outcome = self.outcome()
            if outcome:
                return str(outcome["state"])
        return state

    @property
    def terminal(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state in TERMINAL

    def outcome(self) -> dict[str, Any]:
        """Return how it ended, as the copies beside the journal say; empty if it has not.

        The copy on the disk covers a journal damaged after the end, the one in /run an end that
        a full or failing disk could not take.
        """
        for path in (f"{self.directory}/outcome", f"{self.live}/outcome"):
            try:
                outcome = wire.loads(files.unseal(files.read(path)))
            except (OSError, ValueError):
                continue
            if isinstance(outcome, dict) and outcome.get("state") in TERMINAL:
                return outcome
        return {}

    def ended(self) -> dict[str, Any]:
        """Return how it ended, from the copies or from the journal; empty while it has not."""
        outcome = self.outcome()
        if not outcome:
            self.journal.reload()
            if self.journal.state in TERMINAL:
                outcome = dict(self.journal.records[-1])
        return outcome

    def finish(self, state: str, **fields: Any) -> None:
        """Record the end: in the journal if the disk takes it, and beside it."""
        self.best_effort(state, **fields)
        self.store_outcome({"state": state, **fields})

    def store_outcome(self, outcome: dict[str, Any]) -> None:
        """Store the end beside the journal, as far as /run and the disk take it."""
        text = wire.dumps(outcome)
        for directory in (self.live, self.directory):
            try:
                files.replace(f"{directory}/outcome", files.seal(text))
            except OSError:
                pass

    def best_effort(self, state: str, **fields: Any) -> None:
        """Append a record that nothing waits for: on the way back a disk may be full or broken."""
        try:
            self.journal.append(state, **fields)
        except (OSError, ValueError):
            pass

    def verdict(self) -> str:
        """Return CONFIRMED or REVERTING once that is decided in this boot, else an empty string."""
        try:
            return os.readlink(f"{self.live}/verdict")
        except OSError:
            return ""

    def decide(self, verdict: str) -> str:
        """Decide between confirm and revert; return what was decided, by whomever came first.

        symlink(2) is atomic and never replaces, so there is exactly one winner.
        """
        try:
            os.symlink(verdict, f"{self.live}/verdict")
        except FileExistsError:
            return self.verdict()
        return verdict

    def rebooted(self, system: System) -> bool:
        """Whether the host has booted since; the transaction's kernel state is gone then."""
        return str(self.facts.get("boot_id", "")) != system.boot_id()

    def watched(self) -> bool:
        """Whether a watchdog process of this boot still lives."""
        return any(fence.alive(who) for who in self.facts.get("watchdogs", ()))

    def stale(self, system: System) -> bool:
        """Whether whoever settles it must do so now: nobody else will, or its time is up."""
        if self.terminal:
            return False
        if self.rebooted(system):
            return True
        if not self.armed_once:
            return not fence.alive(self.facts.get("helper"))
        return not self.watched()

    def waiting(self) -> list[str]:
        """Return the declared management addresses that have not confirmed yet."""
        declared = self.facts.get("addresses", ())
        return [address for address in declared if address not in self.confirmed]

    def status(self, system: System) -> dict[str, Any]:
        """Return what ``fleet status`` shows; times are seconds of CLOCK_BOOTTIME."""
        from fleet.host.transactions.first_boot import result

        facts, state, now = self.facts, self.state, system.boottime()
        here = not self.rebooted(system)
        began = facts.get("prepared_at") if here else None
        status = {
            "transaction": self.name,
            "state": state,
            "owner": facts.get("owner", ""),
            "armed_at": facts.get("armed_at"),
            "deadline": facts.get("deadline"),
            "age": None if began is None else round(now - began, 1),
            "changes": facts.get("changes", 0),
            "plan_digest": facts.get("plan_digest", ""),
            "terminal": state in TERMINAL,
            "damaged": self.journal.damaged,
            "stale": self.stale(system),
            "reason": facts.get("reason", ""),
            "confirmed": self.confirmed,
            "waiting": self.waiting(),
            "outcome": self.outcome(),
            "first_boot": result(self.directory),
        }
        if here and not self.terminal and "deadline" in facts:
            status["seconds_left"] = round(max(0.0, facts["deadline"] - now), 1)
        return status


def names(paths: Paths) -> list[str]:
    """Return the names of all transactions on the host."""
    try:
        found = os.listdir(paths.journal)
    except FileNotFoundError:
        return []
    kept = []
    for name in sorted(found):
        try:
            kept.append(files.valid_name(name))
        except ValueError:
            continue
    return kept


def load_all(paths: Paths) -> list[Transaction]:
    """Return every transaction whose journal can be opened, oldest first.

    A directory without a journal was made by a helper that died before its first record: nothing
    was changed under its name.
    """
    found = []
    for name in names(paths):
        try:
            found.append(Transaction(paths, name))
        except FileNotFoundError:
            continue
    return sorted(found, key=lambda transaction: os.stat(transaction.directory).st_mtime_ns)


def pending(paths: Paths, system: System) -> dict[str, Any] | None:
    """Return the status of the transaction that holds the host, or None; cheap enough to audit."""
    for transaction in load_all(paths):
        if not transaction.terminal:
            return transaction.status(system)
        transaction.journal.close()
    return None


def prune(paths: Paths) -> None:
    """Remove the oldest finished journals beyond KEEP."""
    finished = [each for each in load_all(paths) if each.terminal]
    for transaction in finished[:-KEEP]:
        transaction.journal.close()
        for directory in (transaction.directory, transaction.live):
            remove_tree(directory)


def remove_tree(directory: str) -> None:
    """Remove a directory of fleet's own and the plain files in it."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        pass


def forward(transaction: Transaction, here: bool) -> bool:
    """Whether a transaction that has not ended must be finished rather than taken back.

    ``here`` says that the host has not rebooted since, so the verdict in /run still counts.
    """
    if transaction.journal.state in FORWARD:
        return True
    return here and transaction.verdict() == CONFIRMED
