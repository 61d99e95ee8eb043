"""Filters of libvirt's in intent, and what is no difference between two of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import one_host

from fleet.errors import IntentError
from fleet.host.virtual import filters, tree
from fleet.intent import render_state

WRITTEN = """<filter name='x' chain='ipv6'>
<rule action='drop' direction='in' priority='900'/>
<rule action='ACCEPT' direction='out'><ipv6 match='yes' srcipaddr='2001:DB8:0::1' protocol='TCP'
 dstportstart='0x16'/></rule><filterref filter='y'><parameter name='B' value='1'/>
<parameter name='A' value='2'/></filterref></filter>"""
KEPT = """<filter name='x' chain='ipv6' priority='-600'><uuid>1</uuid>
<filterref filter='y'><parameter name='A' value='2'/><parameter name='B' value='1'/></filterref>
<rule action='accept' direction='out' priority='500'>
<ipv6 srcipaddr='2001:db8::1' protocol='6' dstportstart='22'/></rule>
<rule action='drop' direction='in' priority='900'/></filter>"""


def test_filters_stand_beside_networks_in_intent(tmp_path: Path) -> None:
    """A filter is its XML alone, under libvirt.nwfilters."""
    data = "libvirt: {nwfilters: {web: \"<filter name='web'/>\"}}"
    (found,) = render_state(one_host(tmp_path, data), "h1").resources
    assert (found.key, found.spec) == ("nwfilter/web", {"xml": "<filter name='web'/>"})


def test_another_root_is_refused_with_its_line(tmp_path: Path) -> None:
    """XML of something else is refused before a host is asked."""
    data = 'libvirt: {nwfilters: {web: "<network/>"}}'
    with pytest.raises(IntentError, match="XML of a filter is expected, and this is <network>"):
        render_state(one_host(tmp_path, data), "h1")


def test_what_libvirt_writes_otherwise_is_no_difference() -> None:
    """Defaults, order by priority, cases, hexadecimal numbers and short addresses say the same."""
    assert filters.differing(KEPT, tree.parse(WRITTEN)) == []


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("priority='900'", "priority='901'", "rule[1]@priority"),
        ("chain='ipv6'", "chain='ipv6' priority='-601'", "@priority"),
        ("0x16", "0x17", "rule[0]/ipv6@dstportstart"),
        ("match='yes'", "match='no'", "rule[0]/ipv6@match"),
        ("direction='out'", "direction='out' statematch='0'", "rule[0]@statematch"),
        ("name='B' value='1'", "name='B' value='3'", "filterref/parameter[1]@value"),
    ],
)
def test_what_means_something_else_is_a_difference(old: str, new: str, path: str) -> None:
    """Each is told by its path."""
    found = filters.differing(KEPT, tree.parse(WRITTEN.replace(old, new)))
    assert [each[0] for each in found] == [path]
