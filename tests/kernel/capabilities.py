"""What the running kernel can make, found by trying, and the mark of tests that need it."""

from __future__ import annotations

import functools
import json

import pytest
from namespaces import sh, space

_TRIED = {
    "802.1q": "link add probe link below type vlan id 2",
    "bonding": "link add probe type bond",
    "dummy": "link add probe type dummy",
    "vrf": "link add probe type vrf table 10",
    "vlan_filtering": "link add probe type bridge",
}


def needs(capability: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test where the kernel lacks a capability."""
    return pytest.mark.skipif(not has(capability), reason=f"the kernel has no {capability}")


@functools.cache
def has(capability: str) -> bool:
    """Say whether ip(8) can make such a device here."""
    with space() as tried:
        # Loopback takes no tags, so that there has to be something that does.
        tried.ip("link add below type veth peer name other")
        sh("ip", "-n", tried.name, *_TRIED[capability].split(), check=False)
        if not tried.has("probe"):
            return False
        made = json.dumps(tried.link("probe"))
        return capability != "vlan_filtering" or "vlan_default_pvid" in made
