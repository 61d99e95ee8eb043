"""Each case is an intent, the documents that libvirt has, and the changes that must follow.

What a definition means is libvirt's own to say, which tests/kernel asks it; here what is wanted is
written as libvirt would normalise it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_golden import Observed, short, split

from fleet.host.change import Change, Plan
from fleet.host.kernel.system import CommandError, Completed
from fleet.host.planning.ledger import Entry
from fleet.host.planning.plan import plan_from
from fleet.host.state import decode_state

FOLDER = Path(__file__).parent
CASES = sorted(
    p for kind in ("network", "nwfilter", "guest") for p in FOLDER.glob(f"{kind}/*.yaml")
)


class Documents:
    """A libvirt of nothing but documents: it answers what virsh reads."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.networks = words.get("networks") or {}
        self.filters = words.get("nwfilters") or {}
        self.guests = words.get("guests") or {}
        self.bindings = words.get("bindings") or {}
        self.silent = words.get("silent", "")
        self.root = ""

    def run(
        self, argv: list[str], input: str | None = None, timeout: float = 0, check: bool = True
    ) -> Completed:
        uri, words = argv[3], argv[4:]
        if uri != "qemu:///system":
            return Completed(argv, 0, input or "", "")
        if self.silent:
            raise CommandError(Completed(argv, 1, "", f"error: {self.silent}"), self.silent)
        command = words[0].split()[0]
        answer = getattr(self, command.replace("-", "_"))(words)
        if answer is None:
            return Completed(argv, 1, "", "error: failed to get domain")
        return Completed(argv, 0, answer, "")

    def read(self, place: str) -> str | None:
        return "0-3\n" if place.endswith(("present", "online")) else None

    def net_list(self, words: list[str]) -> str:
        lines = []
        for name, book in self.networks.items():
            state = "active" if book.get("running") else "inactive"
            yes = ["yes" if book.get(word) else "no" for word in ("autostart", "defined")]
            lines.append(" ".join((name, state, *yes)))
        return "\n".join(lines)

    def net_dumpxml(self, words: list[str]) -> str:
        return str(self.networks[words[-1]]["defined" if "--inactive" in words else "running"])

    def nwfilter_list(self, words: list[str]) -> str:
        return "".join(f"uuid {name}\n" for name in self.filters)

    def nwfilter_dumpxml(self, words: list[str]) -> str:
        return str(self.filters[words[-1]])

    def nwfilter_binding_list(self, words: list[str]) -> str:
        return "".join(f"{device} {name}\n" for device, name in self.bindings.items())

    def dominfo(self, words: list[str]) -> str | None:
        name = words[0].rpartition(" ")[2]
        if name not in self.guests:
            return None
        book = self.guests[name]
        return f"Persistent: yes\n{book.get('live') or book['config']}\n{book['config']}"


class WithLibvirt(Observed):
    """A host whose libvirt has documents."""

    def __init__(self, words: dict[str, Any], documents: Documents) -> None:
        super().__init__(words)
        self.system = documents
        self.namespace = ""

    def once(self, part: str, read: Any) -> Any:
        return read(self.system)


def words(change: Change) -> str:
    """Return a change as a line: where it differs, not the whole documents."""
    value = ""
    if isinstance(change.after, dict) and "differs" in change.after:
        places = change.after["differs"]
        value = ", ".join(
            f"{at} {short((change.before or {}).get(at))} -> {short(want)}"
            for at, want in places.items()
        )
    elif change.action == "update":
        value = f"{short(change.before)} -> {short(change.after)}"
    tail = "" if change.impact == "none" else f" [{change.impact}]"
    guests = f" guests {', '.join(change.guests)}" if change.guests else ""
    why = f" ({change.reason})" if change.reason else ""
    line = f"{change.action} {change.key} {change.what}: {value}".replace(" : ", " ").rstrip(": ")
    return f"{line}{tail}{guests}{why}"


def plan_of(case: dict[str, Any]) -> Plan:
    resources = [
        {**split(key), "spec": spec} for key, spec in (case.get("resources") or {}).items()
    ]
    entries = (case.get("ledger") or {}).items()
    ledger = {key: Entry(**split(key), **entry) for key, entry in entries}
    documents = Documents(case.get("libvirt") or {})
    observed: Any = WithLibvirt(case.get("observed") or {}, documents)
    return plan_from(decode_state({"host": "host", "resources": resources}), ledger, observed)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path) -> None:
    """The plan of an intent on a host whose libvirt has these documents is the expected one."""
    case = yaml.safe_load(path.read_text())
    plan = plan_of(case)
    assert [words(change) for change in plan.changes] == (case.get("changes") or [])
    problems = [f"{p.resource} {p.what}".strip() + f": {p.actual}" for p in plan.problems]
    assert problems == (case.get("problems") or [])
