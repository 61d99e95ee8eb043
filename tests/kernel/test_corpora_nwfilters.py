"""Filters of libvirt's own test data and of its package; libvirt is the judge of what they mean.

Prints one line of counts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from virtual import MISSING, libvirt_host

from fleet.host.virtual import filters, tree

ROOT = Path(__file__).parents[2]
CORPORA = Path(os.environ.get("FLEET_CORPORA") or ROOT.parent / "shared" / "corpora")
FOLDER = CORPORA / "libvirt-nwfilter"
SHIPPED = Path("/etc/libvirt/nwfilter")
FILES = [*sorted(FOLDER.glob("*.xml")), *sorted(SHIPPED.glob("*.xml"))] if FOLDER.is_dir() else []
pytestmark = [
    pytest.mark.corpora,
    pytest.mark.skipif(not FILES, reason=f"no {FOLDER}"),
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}"),
]
#: Chains whose priorities libvirt fills in.
CHAINS = ("root", "stp", "mac", "vlan", "ipv4", "ipv6", "arp", "rarp", "ipv4-mine", "stp-mine")


def test_each_valid_filter_shows_no_drift(capsys: pytest.CaptureFixture[str]) -> None:
    """What libvirt makes of a filter means, to fleet, what was written; none has another UUID."""
    texts = {path.name: path.read_text() for path in FILES}
    texts |= {f"chain {chain}": f"<filter name='x' chain='{chain}'/>" for chain in CHAINS}
    refused, wrong = 0, []
    with libvirt_host() as host:
        for label, text in texts.items():
            (host.root / "run/one.xml").write_text(text)
            host.virsh("nwfilter-define", "/run/one.xml", check=False)
            listed = host.virsh("nwfilter-list").split()
            if not listed:
                refused += 1
                continue
            found = filters.differing(host.virsh("nwfilter-dumpxml", listed[1]), tree.parse(text))
            wrong += [f"{label}: {each}" for each in found]
            host.virsh("nwfilter-undefine", listed[1])
    with capsys.disabled():
        print(f"\nfilters: {len(texts) - refused} of {len(texts)} without drift, {refused} refused")
    assert not wrong, "\n".join(wrong)
