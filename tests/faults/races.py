"""Confirm against expiry: one winner each time, and both sides agree who."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from .places import Fault
from .run import NONCE, Run
from .scenarios import SCENARIOS
from .world import OWN, HelperFailed, Keys, now, world


@dataclass(frozen=True)
class Race:
    """How one race ended: what the controller was told, what the host says, and what is so."""

    offset: int
    told: str
    outcome: str
    mtu: int
    file: bool

    @property
    def good(self) -> bool:
        """Whether there was one winner and everything agrees."""
        committed = self.outcome == "COMMITTED"
        return (
            self.outcome in ("COMMITTED", "REVERTED")
            and (self.told == "COMMITTED") == committed
            and self.mtu == (1280 if committed else 1500)
            and self.file == committed
        )


def race(keys_: Keys, offset: int, deadline: float = 1.2) -> Race:
    """Confirm ``offset`` milliseconds after the deadline, or before it, as exactly as can be."""
    scenario = SCENARIOS["mtu"]
    with world(keys_) as made:
        scenario.begin(made)
        each = Run(made, Fault("mtu", "none", "none", confirms=False), {}, deadline)
        each.transact()
        expiry = float(made.sealed("run/fleet/tx1/lease").get("deadline") or now())
        helper = made.helper(connection=[now(), OWN])
        helper.call("status")
        when = expiry + offset / 1000
        while (left := when - now()) > 0:
            time.sleep(left - 0.002 if left > 0.004 else 0)
        try:
            told = str(
                helper.call("confirm", transaction="tx1", plan_digest=each.digest, nonce=NONCE)[
                    "state"
                ]
            )
        except HelperFailed as error:
            told = error.code
        each.settle()
        link = json.loads(made.enter(made.pid, "ip", "-j", "link", "show", "eth0"))[0]
        file = (made.root / "etc/sysctl.d/90-fleet.conf").exists()
        return Race(offset, told, str(made.outcome().get("state", "none")), link["mtu"], file)
