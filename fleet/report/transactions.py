"""What is armed and what happened before: status and history as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.report.text import Paint, clean, counted, duration

#: What a host does by itself, by the state of its transaction (design, section 6).
NEXT = {
    "PREPARED": "nothing was changed; the transaction is abandoned",
    "ARMED": "the host puts itself back as before",
    "APPLYING": "the host puts itself back as before",
    "APPLIED": "the host puts itself back as before",
    "CONFIRMED": "the host finishes making the change permanent",
    "PERSISTING": "the host finishes making the change permanent",
    "REVERTING": "the host finishes putting itself back",
}
CONFIRMABLE = ("APPLIED",)
REVERTIBLE = ("ARMED", "APPLYING", "APPLIED")
TERMINAL = ("COMMITTED", "REVERTED", "ABANDONED")


def state_name(transaction: Mapping[str, Any]) -> str:
    """Return the state of a transaction without the step number: ``APPLYING(3)`` is APPLYING."""
    state = clean(transaction.get("state") or "unknown", 40)
    return state.partition("(")[0].replace("-", "_").upper()


def pending(transactions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the transactions that are not at their end, REVERT_FAILED among them."""
    return [entry for entry in transactions if state_name(entry) not in TERMINAL]


def went_back(transactions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the last commit, where the first boot after it did not reach what it has to."""
    commits = [entry for entry in transactions if state_name(entry) == "COMMITTED"]
    boot = commits[-1].get("first_boot") if commits else None
    if isinstance(boot, Mapping) and boot.get("result") == "went back":
        return commits[-1]
    return None


def status_text(
    hosts: Mapping[str, Sequence[Mapping[str, Any]]],
    failures: Mapping[str, Sequence[str]] | None = None,
    paint: Paint | None = None,
) -> list[str]:
    """Return the lines for a person at 3 a.m.: what is armed, for how long, and what to type.

    ``hosts`` maps each host to its transactions as the helper's ``status`` reports them.
    """
    paint, failures = paint or Paint(False), failures or {}
    waiting = [(host, entry) for host, entries in hosts.items() for entry in pending(entries)]
    lines: list[str] = []
    for host, entry in sorted(waiting, key=lambda item: seconds_left(item[1])):
        lines += [*_transaction_lines(host, entry, paint), ""]
    back = {host: last for host, entries in hosts.items() if (last := went_back(entries))}
    for host, last in back.items():
        lines += [*_boot_lines(host, last, paint), ""]
    for host, text in failures.items():
        lines.append(f"{paint.strong(clean(host) + ':')} {paint.removed('status unknown')}")
        lines += [*(f"  {clean(line, 400)}" for line in text), ""]
    quiet = len(hosts) - len({host for host, _ in waiting} | set(back))
    if not waiting and not failures and not back:
        return [f"{counted(quiet, 'host')}: nothing is armed, no change is pending."]
    if quiet:
        lines.append(f"{counted(quiet, 'host')} with nothing pending.")
    return lines


def pending_line(host: str, entry: Mapping[str, Any]) -> str:
    """Return one line that says what holds a host."""
    left = seconds_left(entry)
    seconds = f", {duration(left)} left" if left >= 0 else ""
    owner = f", {clean(entry['owner'])}" if entry.get("owner") else ""
    name = clean(entry.get("transaction", "?"), 64)
    return f"{clean(host)}: held by transaction {name} ({state_name(entry)}{seconds}{owner})"


def seconds_left(entry: Mapping[str, Any]) -> float:
    """Return the seconds until a host acts by itself, below 0 where there is no deadline."""
    left = entry.get("seconds_left")
    return float(left) if isinstance(left, (int, float)) else -1.0


def _boot_lines(host: str, entry: Mapping[str, Any], paint: Paint) -> list[str]:
    """Return the lines of a host that went back at the first boot after a commit."""
    boot = entry["first_boot"]
    name = clean(entry.get("transaction", "?"), 64)
    facts = [("transaction", name), ("not reached", clean(boot.get("reason", ""), 400))]
    facts += [("not put back", clean(each, 400)) for each in boot.get("left") or ()]
    facts.append(("what it has now", "the files of the last boot that was well"))
    facts.append(("to see the rest", "fleet audit"))
    said = paint.removed("WENT BACK at the first boot after a commit")
    return [f"{paint.strong(clean(host) + ':')} {said}"] + [
        f"  {label:<18}{text}" for label, text in facts
    ]


def _transaction_lines(host: str, entry: Mapping[str, Any], paint: Paint) -> list[str]:
    state, left, name = (
        state_name(entry),
        seconds_left(entry),
        clean(entry.get("transaction", "?"), 64),
    )
    if state == "REVERT_FAILED":
        said, then = (
            paint.removed("REVERT FAILED"),
            "nothing more happens by itself; look at the host",
        )
    else:
        then = NEXT.get(state, "unknown; look at the host")
        seconds = f", {duration(left)} left" if left >= 0 and state in REVERTIBLE else ""
        said = paint.changed(f"{state}{seconds}")
    lines = [f"{paint.strong(clean(host) + ':')} {said}"]
    facts = [("transaction", name)]
    if entry.get("owner"):
        facts.append(("owner", clean(entry["owner"])))
    if entry.get("changes") is not None:
        changes = entry["changes"]
        number = len(changes) if isinstance(changes, (list, tuple)) else changes
        facts.append(("changes", clean(number)))
    facts.append(("if you do nothing", then))
    if state in CONFIRMABLE:
        facts.append(("to keep it", f"fleet confirm {name}"))
    if state in REVERTIBLE:
        facts.append(("to undo it now", f"fleet revert {name}"))
    if state == "REVERT_FAILED":
        facts.append(("to try again", f"fleet revert {name}"))
    return lines + [f"  {label:<18}{text}" for label, text in facts]
