"""Which hosts a command is about."""

from __future__ import annotations

import pytest
from nornir.core.inventory import Defaults, Group, Groups, Host, Hosts, Inventory, ParentGroups

from fleet.cli.options import Scope
from fleet.cli.select import by_group, expression, select
from fleet.errors import UsageError


@pytest.fixture
def inventory() -> Inventory:
    """Four hosts: two racks, two roles; rack1 is inside the site."""
    site = Group("site")
    rack1 = Group("rack1", groups=ParentGroups([site]))
    rack2, edge = Group("rack2"), Group("edge")

    def host(name: str, groups: list[Group], **data: object) -> Host:
        return Host(name, groups=ParentGroups(groups), data=dict(data), defaults=Defaults())

    hosts = [
        host("a1", [rack1], role="compute", unit=1, bgp={"asn": 64512}),
        host("a2", [rack1, edge], role="edge", unit="2"),
        host("b1", [rack2], role="compute", unit=3, bgp={"asn": "64512"}),
        host("b2", [rack2, edge], role="edge"),
    ]
    return Inventory(
        Hosts({h.name: h for h in hosts}),
        Groups({g.name: g for g in (site, rack1, rack2, edge)}),
        Defaults(),
    )


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (Scope(), ["a1", "a2", "b1", "b2"]),
        (Scope(group=["rack1"]), ["a1", "a2"]),
        (Scope(group=["site"]), ["a1", "a2"]),
        (Scope(group=["rack1"], host=["b2"]), ["a1", "a2", "b2"]),
        (Scope(group=["rack1"], filter=["role=edge"]), ["a2"]),
        (Scope(filter=["role=edge", "unit=2"]), ["a2"]),
        (Scope(filter=["unit=3"]), ["b1"]),
        (Scope(filter=["bgp__asn=64512"]), ["a1", "b1"]),
        (Scope(filter=["groups__contains=edge"]), ["a2", "b2"]),
        (Scope(filter=["unit__ge=2"]), ["b1", "a2"]),
        (Scope(nornir_filter='F(role="edge") & ~F(groups__contains="rack1")'), ["b2"]),
        (Scope(nornir_filter='F(unit=1) | (F(role="edge") & F(unit="2"))'), ["a1", "a2"]),
        (Scope(nornir_filter='~(F(role="edge") | F(unit=1))'), ["b1"]),
        (Scope(nornir_filter='F(name__in=["a1", "b1"])'), ["a1", "b1"]),
    ],
)
def test_selectors(inventory: Inventory, scope: Scope, names: list[str]) -> None:
    """Named hosts and groups add up, filters narrow, Nornir's filters mean what Nornir says."""
    assert sorted(select(inventory, scope)) == sorted(names)


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope(group=["rak1"]), "no group 'rak1'; did you mean rack1?"),
        (Scope(host=["zz"]), "no host 'zz'"),
        (Scope(filter=["role"]), "is not KEY=VALUE"),
        (Scope(filter=["role=none"]), "no host of the inventory's 4 matches"),
        (Scope(nornir_filter="F(role="), "cannot be read"),
        (Scope(nornir_filter="__import__('os')"), "only F(…), &, | and ~ are understood"),
        (Scope(nornir_filter="F(role=open('x'))"), "cannot be read"),
        (Scope(nornir_filter="F(**{'a': 1})"), "F takes key=value only"),
        (Scope(nornir_filter="~" * 5000 + "F(a=1)"), "cannot be read"),
    ],
)
def test_wrong_selectors_are_usage_errors(inventory: Inventory, scope: Scope, said: str) -> None:
    """A wrong name, filter or expression is exit 2 and says what to write instead."""
    with pytest.raises(UsageError) as caught:
        select(inventory, scope)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_expression_is_parsed_never_evaluated(inventory: Inventory) -> None:
    """Only F and literals reach Nornir."""
    with pytest.raises(UsageError):
        expression("F(role=(lambda: 1)())")


def test_hosts_by_group(inventory: Inventory) -> None:
    """An audit's groups are those asked for, else each host's first."""
    assert by_group(inventory, ["a1", "a2", "b2"], []) == {"rack1": ["a1", "a2"], "rack2": ["b2"]}
    assert by_group(inventory, ["a2", "b2"], ["edge"]) == {"edge": ["a2", "b2"]}
