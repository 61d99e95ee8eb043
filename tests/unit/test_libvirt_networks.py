"""libvirt networks in plain words: what they become, and what is refused with file and line."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from projects import one_host, specs

from fleet.errors import IntentError
from fleet.host.virtual import tree
from fleet.intent import render_state


def xml(tmp_path: Path, words: str) -> str:
    text = f"libvirt:\n  networks:\n    lan:\n{textwrap.indent(textwrap.dedent(words), '      ')}"
    spec = specs(render_state(one_host(tmp_path, text), "h1"))["network/lan"]
    return str(spec["xml"])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("forward: isolated", ""),
        ("{forward: bridge, bridge: br0}", "<forward mode='bridge'/><bridge name='br0'/>"),
        (
            "{forward: vepa, interfaces: [eth1, eth2]}",
            "<forward mode='vepa'><interface dev='eth1'/><interface dev='eth2'/></forward>",
        ),
        (
            "{forward: hostdev, managed: yes, pci: ['0000:03:10.1'], vlan: {tags: [42]}}",
            "<forward mode='hostdev' managed='yes'><address type='pci' domain='0x0000' bus='0x03'"
            " slot='0x10' function='0x1'/></forward><vlan><tag id='42'/></vlan>",
        ),
        (
            "{forward: route, dev: eth0, addresses: [198.18.40.1/24, '2001:db8::1/64'],"
            " dhcp: {lease: 3600, ranges: ['2001:db8::10 - 2001:db8::1f'],"
            " hosts: [{mac: '52:54:00:00:00:0A', ip: 198.18.40.7}]}}",
            "<forward mode='route' dev='eth0'/><ip family='ipv4' address='198.18.40.1' prefix='24'>"
            "<dhcp><host mac='52:54:00:00:00:0a' ip='198.18.40.7'><lease expiry='3600'"
            " unit='seconds'/></host></dhcp></ip><ip family='ipv6' address='2001:db8::1'"
            " prefix='64'><dhcp><range start='2001:db8::10' end='2001:db8::1f'>"
            "<lease expiry='3600' unit='seconds'/></range></dhcp></ip>",
        ),
        (
            "{forward: open, addresses: [198.18.40.1/24], dns: {txt: {a: \"<b> & 'c'\"}}}",
            "<forward mode='open'/><dns><txt name='a' value='&lt;b&gt; &amp; &apos;c&apos;'/></dns>"
            "<ip family='ipv4' address='198.18.40.1' prefix='24'/>",
        ),
    ],
)
def test_words_are_libvirts_xml(tmp_path: Path, words: str, parts: str) -> None:
    """What the template writes of words is the network that is expected, nothing more."""
    expected = tree.parse(f"<network><name>lan</name>{parts}</network>")
    assert tree.differences(tree.parse(xml(tmp_path, words)), expected) == []


@pytest.mark.parametrize(
    ("words", "line", "message"),
    [
        ("bridge: br0", 7, "forward is missing"),
        ("forward: brige", 7, "is not one of 'nat'"),
        ("forward: nat\nadresses: []", 8, "did you mean 'addresses'"),
        ("forward: nat", 7, "needs addresses"),
        ("forward: bridge", 7, "needs one of bridge"),
        ("forward: bridge\nbridge: br0\ninterfaces: [eth1]", 7, "needs one of bridge"),
        ("forward: private", 7, "needs interfaces"),
        ("forward: hostdev\nmanaged: yes", 7, "needs one of pf"),
        ("forward: isolated\npf: eth1", 8, "it is for forward hostdev"),
        ("forward: bridge\nbridge: br0\ndns: {enable: no}", 9, "libvirt makes no bridge"),
        ("forward: bridge\nbridge: br0\nmtu: 1400", 9, "libvirt makes no bridge"),
        ("forward: isolated\nmtu: 9", 8, "too small"),
        ("forward: isolated\naddresses: [198.18.40.1]", 8, "needs a prefix length"),
        ("forward: isolated\ndhcp: {ranges: [198.18.40.9-198.18.40.2]}", 8, "from the lower"),
        ("forward: isolated\ndhcp: {ranges: [198.18.40.2-198.18.40.9]}", 8, "in no network"),
        (
            "forward: isolated\naddresses: [198.18.40.1/24, 198.18.41.1/24]\ndhcp:\n  ranges:\n"
            "  - 198.18.40.2-198.18.40.9\n  - 198.18.41.2-198.18.41.9",
            12,
            "serves one network of IPv4, and that is 198.18.40.0/24",
        ),
        (
            "forward: isolated\naddresses: [198.18.40.1/24]\ndhcp:\n  hosts:\n  - ip: 198.18.40.2",
            11,
            "it needs a mac, a name or an id",
        ),
        (
            "forward: isolated\naddresses: [198.18.40.1/24]\nroutes:\n"
            "- {to: 10.0.0.0/8, via: 10.0.0.1}",
            10,
            "in no network of the addresses",
        ),
        (
            "forward: bridge\nbridge: br0\nportgroups:\n  a: {vlan: {tags: [5]}}",
            10,
            "libvirt puts no tags on by itself",
        ),
        (
            "forward: bridge\nbridge: br0\nportgroups:\n  a: {default: yes}\n  b: {default: yes}",
            11,
            "a is the default already",
        ),
        ("forward: isolated\nxml: <network/>", 7, "unknown key"),
        ("xml: <network/>", 7, "one without a name"),
        ("xml: <network><name>lan</network>", 7, "it is no XML"),
    ],
)
def test_what_libvirt_would_refuse_has_a_line(
    tmp_path: Path, words: str, line: int, message: str
) -> None:
    """Unknown words, wrong values and what does not go together are refused where they stand."""
    with pytest.raises(IntentError) as caught:
        xml(tmp_path, words)
    assert message in str(caught.value)
    assert caught.value.line == line


def test_a_site_has_a_template_of_its_own(tmp_path: Path) -> None:
    """The project's template replaces the shipped one, for all networks or for one."""
    folder = tmp_path / "templates" / "libvirt"
    folder.mkdir(parents=True)
    head = "<network><name>{{ name }}</name>"
    (folder / "network.xml.j2").write_text(head + "<mtu size='{{ network.mtu }}'/></network>")
    (folder / "own.xml.j2").write_text(head + "\n<domain name='own'/></network>")
    assert "<mtu size='1400'/>" in xml(tmp_path, "{forward: isolated, mtu: 1400}")
    assert "<domain name='own'/>" in xml(
        tmp_path, "{forward: isolated, template: libvirt/own.xml.j2}"
    )
    (folder / "own.xml.j2").write_text(head + "\n<{{ network.colour }}/></network>")
    with pytest.raises(IntentError, match=r"templates/libvirt/own.xml.j2:2: .*colour"):
        xml(tmp_path, "{forward: isolated, template: libvirt/own.xml.j2}")
    (folder / "own.xml.j2").write_text(head)
    with pytest.raises(IntentError, match=r"own.xml.j2 made is no network: .*it is no XML"):
        xml(tmp_path, "{forward: isolated, template: libvirt/own.xml.j2}")
