"""The first boot after a commit is armed: it reaches what was reached before, or goes back.

A commit leaves a record of what every file was when the host last booted well, and of what has to
be reached. The boot unit goes by it: where the management address, a gateway or a target is not
there within a budget, those files come back and the host boots once more, from them.
"""

from __future__ import annotations

import os
import time

from fleet.host import wire
from fleet.host.transactions import files, persist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.system import System
    from fleet.host.transactions.files import Paths

RECORD = "/var/lib/fleet/unproven.json"
#: In a transaction's directory: how its first boot went.
RESULT = "first-boot"
#: What a boot can be asked for; links and guests may come later, or not at all.
_ASKED = ("gateway", "target")
#: Seconds a boot has to reach what it has to, and between two tries.
BUDGET, PAUSE = 90.0, 1.0


def record_text(paths: Paths, entries: list[Any], facts: dict[str, Any], name: str) -> str:
    """Return the record that a commit leaves: ``entries`` are its files, as they were before it.

    Where the commit before it has not been booted yet, what that one replaced still counts.
    """
    earlier = load(paths)
    merged = {each["path"]: dict(each) for each in (earlier or {}).get("entries", ())}
    for entry in entries:
        if entry["path"] == RECORD:
            continue
        known = merged.get(entry["path"])
        merged[entry["path"]] = {**entry, "before": known["before"] if known else entry["before"]}
    record = {
        "transaction": name,
        "addresses": list(facts.get("addresses") or ()),
        "probes": [each for each in facts.get("probes") or () if each["kind"] in _ASKED],
        "entries": [merged[path] for path in sorted(merged)],
    }
    return files.seal(wire.dumps(record)).decode("utf-8", "surrogatepass")


def load(paths: Paths) -> dict[str, Any] | None:
    """Return the record of a commit that no boot has proven; None where there is none."""
    try:
        record = wire.loads(files.unseal(files.read(paths.root + RECORD)))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def prove(system: System, paths: Paths, budget: float = BUDGET) -> int:
    """Wait for what has to be reached; go back, and boot once more, where it is not; 0 if it is."""
    record = load(paths)
    if record is None:
        files.remove(paths.root + RECORD)
        return 0
    end = time.monotonic() + budget
    while True:
        missing = _missing(record, system)
        if not missing:
            _tell(paths, record, {"result": "passed"})
            _forget(paths)
            return 0
        if time.monotonic() >= end:
            break
        time.sleep(PAUSE)
    files.replace(_flag(paths), files.seal(wire.dumps(missing)))
    go_back(paths)
    system.run(["systemctl", "--no-block", "reboot"], timeout=60)
    return 1


def _missing(record: dict[str, Any], system: System) -> list[str]:
    from fleet.host.kernel.observation import Observation
    from fleet.host.transactions import probe
    from fleet.host.transactions.confirm import same_address

    observation = Observation(system)
    held = [item["address"] for items in observation.addresses.values() for item in items]
    missing = [
        f"address {address}: no device has it"
        for address in record["addresses"]
        if not any(same_address(address, each) for each in held)
    ]
    failed = probe.failures(record["probes"], observation, system)
    return missing + [f"{each['resource']}: {each['actual']}" for each in failed]


def _flag(paths: Paths) -> str:
    return f"{paths.state}/going-back"


def going_back(paths: Paths) -> bool:
    """Whether a boot had begun to go back when the host went down."""
    return os.path.exists(_flag(paths))


def go_back(paths: Paths) -> list[str]:
    """Put the files of the last boot that was well in place; again after a crash. Return what
    could not be put back."""
    try:
        missing = wire.loads(files.unseal(files.read(_flag(paths))))
    except (OSError, ValueError):
        missing = []
    record, left = load(paths), []
    if record is not None:
        left = persist.take_back(paths, record["entries"])
        reason = "; ".join(missing) or "what it has to reach was not reached"
        _tell(paths, record, {"result": "went back", "reason": reason, "left": left})
    _forget(paths)
    return left


def _forget(paths: Paths) -> None:
    files.remove(paths.root + RECORD)
    files.remove(_flag(paths))
    files.sync_directory(paths.state)


def _tell(paths: Paths, record: dict[str, Any], said: dict[str, Any]) -> None:
    """Put the result into the transaction's journal, where ``fleet status`` finds it."""
    directory = paths.of(record["transaction"])
    try:
        when = os.stat(directory).st_mtime_ns
        files.replace(f"{directory}/{RESULT}", files.seal(wire.dumps(said)))
        # By that time transactions are put in order: this one has not ended anew.
        os.utime(directory, ns=(when, when))
    except OSError:
        pass  # a full disk; the files matter more


def result(directory: str) -> dict[str, Any]:
    """Return how the first boot after a transaction went; empty before it, or where none told."""
    try:
        said = wire.loads(files.unseal(files.read(f"{directory}/{RESULT}")))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
