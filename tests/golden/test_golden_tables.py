"""Each case is a policy and the nftables rules it becomes, or listings that mean the same or not.

Whether rules load is the kernel's to say (tests/kernel); what they are is decided here.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml

from fleet.host.kinds.policy import Policy, rules_of
from fleet.host.tables import ruleset
from fleet.intent.convert import adapter

FOLDER = Path(__file__).parent
POLICIES = sorted(FOLDER.glob("policy/*.yaml"))
LISTINGS = sorted(FOLDER.glob("nftables/*.yaml"))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_becomes_rules(path: Path) -> None:
    """A policy as an operator writes it becomes these rules, in this order."""
    case = yaml.safe_load(path.read_text())
    policy = adapter(Policy).validate_python(case["policy"])
    assert rules_of(policy).replace("\t", "  ").splitlines() == case["rules"].splitlines()


@pytest.mark.parametrize("path", LISTINGS, ids=lambda path: path.stem)
def test_listings_mean_the_same_or_not(path: Path) -> None:
    """Tables are compared by what they mean: two listings of nft are equal or are not."""
    case = yaml.safe_load(path.read_text())
    meanings = [ruleset.meaning({"nftables": listed}) for listed in case["listings"]]
    for one, other in combinations(meanings, 2):
        assert (one == other) is case["same"]
