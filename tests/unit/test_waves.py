"""Which hosts change together, and when a rollout stops."""

from __future__ import annotations

import pytest

from fleet.errors import UsageError
from fleet.rollout.options import RolloutOptions
from fleet.rollout.outcome import HostOutcome, Run, exit_code
from fleet.rollout.waves import Budget, wave_size, waves

HOSTS = [f"hv-{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("canary", "wave", "sizes"),
    [
        (1, None, [1, 9]),
        (1, "4", [1, 4, 4, 1]),
        (1, "25%", [1, 3, 3, 3]),
        (2, "100%", [2, 8]),
        (0, None, [10]),
        (0, "3", [3, 3, 3, 1]),
        (99, "1", [10]),
    ],
)
def test_sizes(canary: int, wave: str | None, sizes: list[int]) -> None:
    """The canary comes first; a share counts of all hosts and is rounded up."""
    found = waves(HOSTS, canary, wave)
    assert [len(each) for each in found] == sizes
    assert [host for each in found for host in each] == HOSTS


def test_no_hosts_no_waves() -> None:
    """Where no host changes there is no wave."""
    assert waves([], 1, "25%") == []


@pytest.mark.parametrize("wave", ["0", "0%", "101%", "-1", "x", "", "5%%", "1.5", "٣"])
def test_nonsense_is_refused(wave: str) -> None:
    """A wave that is neither a number nor a share of hosts is a usage error."""
    with pytest.raises(UsageError):
        wave_size(wave, 10)


def test_a_share_is_at_least_one_host() -> None:
    """One per cent of three hosts is one host, not none."""
    assert wave_size("1%", 3) == 1


def test_budget_is_absolute_and_spans_waves() -> None:
    """Failures add up over waves, successes take none back, hosts never begun do not count."""
    budget = Budget(allowed=1)
    assert not budget.count(HostOutcome("a", "reverted", wave=1))
    assert not budget.count(HostOutcome("b", "committed", wave=2))
    assert not budget.count(HostOutcome("c", "not started", wave=2))
    assert budget.count(HostOutcome("d", "unreachable", wave=3))
    assert budget.reason() == "2 hosts have failed, --max-failures is 1"


@pytest.mark.parametrize(
    ("outcomes", "stopped", "code"),
    [
        (["committed", "unchanged"], "", 0),
        (["committed", "not started"], "stopped by the operator", 1),
        (["committed"], "gate x failed", 1),
        (["committed", "unreachable"], "", 1),
        (["refused", "reverted"], "", 4),
        (["reverted", "unknown"], "", 5),
        (["reverted", "revert failed"], "", 5),
    ],
)
def test_exit_codes(outcomes: list[str], stopped: str, code: int) -> None:
    """The gravest outcome decides: a person, then reverted, then failed."""
    hosts = {str(n): HostOutcome(str(n), outcome) for n, outcome in enumerate(outcomes)}
    assert exit_code(Run("r", hosts, stopped)) == code


def test_options_of_an_inventory_yield_to_those_given() -> None:
    """The inventory's rollout section is taken where the operator has said nothing."""
    config = {"on-failure": "revert", "rollout": {"canary": 2, "wave": "20%", "max-failures": 3}}
    options = RolloutOptions.of(config, canary=5, wave=None, allow=("drain",))
    assert (options.canary, options.wave, options.max_failures) == (5, "20%", 3)
    assert (options.on_failure, options.allow) == ("revert", ("drain",))


def test_bad_options_are_refused() -> None:
    """Options that cannot be meant are usage errors."""
    for bad in ({"canary": -1}, {"on_failure": "panic"}, {"confirm_timeout": 0}):
        with pytest.raises(UsageError):
            RolloutOptions(**bad)
