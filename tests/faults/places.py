"""Where faults strike: every named point of a transaction, and the system calls that write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from fleet.host.transactions import crash

from .scenarios import SCENARIOS

#: Calls that write to the kernel or a disk, and how often a transaction may make them, about.
SYSCALLS = {
    "sendto": 60, "sendmsg": 60, "write": 40, "pwrite64": 16, "fdatasync": 16, "fsync": 14,
    "rename": 10, "symlink": 1, "unlink": 10, "openat": 60, "mkdir": 3, "fallocate": 1,
    "ftruncate": 4, "fork": 3, "clone": 3,
}  # fmt: skip
#: Errors that a call may meet, by call.
ERRORS = {
    "sendto": ("ENOBUFS", "EINTR"), "sendmsg": ("ENOBUFS", "EINTR"), "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"), "fdatasync": ("EIO", "ENOSPC"), "fsync": ("EIO", "ENOSPC"),
    "rename": ("ENOSPC", "EIO"), "symlink": ("ENOSPC", "EIO"), "unlink": ("EIO",),
    "mkdir": ("ENOSPC",), "fallocate": ("ENOSPC",),
}  # fmt: skip
#: Actions at a point by the process that passes it, and those that anybody may do meanwhile.
PROCESS = (
    "kill", "kill-watchdog", "kill-watchdogs", "kill-helper-and-watchdog", "kill-everything",
    "stop", "stop-watchdog", "stop-watchdogs", "cut", "kill-controller",
    "kill-controller-and-helper", "kill-controller-and-watchdog", "kill-controller-and-watchdogs",
    "half-open",
)  # fmt: skip
AROUND = (
    "block-new", "block-all", "second-controller", "second-controller-other", "fill", "cut-journal",
    "flip-journal", "flip-snapshot", "hand-rule", "hand-route", "hand-address", "hand-neighbour",
    "hand-sysctl", "hand-alias", "forge-confirm", "revert", "clock-back", "clock-forward",
)  # fmt: skip
#: By hand, what was there before is taken away, on a device that the plan names.
TAKES = ("down", "take", "same")
#: Between the parts of each message of the controller, and around its connections.
MESSAGES = (
    *(
        f"message.{op}.{part}"
        for op in ("plan", "arm", "apply", "confirm")
        for part in ("before", "half", "sent", "answered")
    ),
    "connect.before",
    "connect.after",
)
RAISES = ("ENOSPC", "EIO", "EBUSY", "ENODEV", "ENOBUFS", "EINTR")


@dataclass(frozen=True)
class Fault:
    """One fault: where, what, and on which host; ``seed`` decides what is left open."""

    scenario: str
    place: str
    action: str
    seed: int = 0
    #: Whether the controller confirms where it can.
    confirms: bool = True

    @property
    def point(self) -> str:
        """The kill point that it is counted as."""
        return f"{self.scenario} {self.place} {self.action}"


def points(scenario: str) -> list[str]:
    """Return the named points of a scenario; what the host reads between has none."""
    changes = SCENARIOS[scenario].changes
    found = ["plan.before", "plan.after", *MESSAGES]
    for name in crash.POINTS:
        if "revert.round.*" in name:
            found += [name.replace("*", str(index)) for index in range(2)]
        elif "persist.file.*" in name:
            found += [name.replace("*", str(index)) for index in range(3)]
        elif "*" in name:
            found += [name.replace("*", str(index)) for index in range(changes)]
        else:
            found.append(name)
    return found


def _raises(place: str) -> tuple[str, ...]:
    if place.startswith("apply.change") and place.endswith("before"):
        return RAISES
    if place.startswith(("journal.", "prepare.", "persist.file")) and "after" not in place:
        return ("ENOSPC", "EIO")
    return ()


def _confirms(place: str, dice: random.Random) -> bool:
    if place.startswith(
        ("confirm", "persist", "journal.CONFIRMED", "journal.PERSISTING", "journal.COMMITTED")
    ):
        return True
    if place.startswith(("message.confirm", "connect")):
        return True
    if place.startswith(("revert", "journal.REVERT")):
        return False
    return dice.random() < 0.7


def draw(seed: int, index: int) -> Fault:
    """Return the fault of a run: the same for the same seed and index, always."""
    made, source = _sequence(seed)
    while len(made) <= index:
        made.append(next(source))
    return made[index]


@lru_cache(maxsize=4)
def _sequence(seed: int) -> tuple[list[Fault], Iterator[Fault]]:
    return [], _unlike(seed)


def _unlike(seed: int) -> Iterator[Fault]:
    """Yield the faults of a seed: no kill point twice, as long as chance still finds new ones."""
    seen: set[str] = set()
    for index in count():
        for attempt in range(20):
            fault = _throw(random.Random(f"{seed}/{index}/{attempt}"))
            if fault.point not in seen:
                break
        seen.add(fault.point)
        yield fault


def _throw(dice: random.Random) -> Fault:
    scenario = dice.choice(sorted(SCENARIOS))
    number = dice.randrange(1 << 30)
    if dice.random() < 0.3:
        call = dice.choice(sorted(SYSCALLS))
        when = dice.randint(1, SYSCALLS[call])
        action = dice.choice(("KILL", "KILL", "KILL", *ERRORS.get(call, ())))
        return Fault(scenario, f"{call}#{when}", action, number, dice.random() < 0.5)
    place = dice.choice(points(scenario))
    if place.startswith("plan."):
        action = dice.choice([each for each in AROUND if each.startswith("hand")])
    else:
        own = _raises(place)
        named = SCENARIOS[scenario].named and place.startswith("apply.")
        takes = tuple(f"hand-{word}" for word in TAKES) if named else ()
        daemons = ("kill-ovsdb", "kill-vswitchd") if SCENARIOS[scenario].switch else ()
        again = ("twice",) if place.startswith("message.") else ()
        group = dice.choice(
            [PROCESS, AROUND, *(each for each in (own, takes, again, daemons) if each)]
        )
        action = dice.choice(group)
        if action in takes:
            return Fault(scenario, place, action, number, confirms=False)
    return Fault(scenario, place, action, number, _confirms(place, dice))
