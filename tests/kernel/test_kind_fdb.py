"""Static forwarding entries in a real kernel, judged by bridge(8)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from namespaces import Space, sh, space


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


BASE = {
    "veth/e0": {"peer": "e1"}, "veth/e1": {"peer": "e0"}, "bridge/br0": {"interfaces": ["e0"]},
    "tunnel/vx0": {"id": 42, "local": "198.18.9.1"},
}  # fmt: skip
ZERO = "00:00:00:00:00:00"


def entries(host: Space, device: str) -> list[tuple[str, str | None]]:
    found = json.loads(sh("bridge", "-n", host.name, "-j", "fdb", "show", "dev", device))
    return sorted(
        (each["mac"], each.get("dst"))
        for each in found
        if each["state"] == "static" or (each["state"] == "permanent" and each.get("dst"))
    )


def test_create_change_delete(host: Space) -> None:
    """Entries of a port and of a VXLAN are put, changed and taken away; only those."""
    host.roll({
        **BASE,
        "fdb/e0": {"entries": [{"macaddress": "52:54:00:00:00:01"}]},
        "fdb/vx0": {"entries": [
            {"macaddress": ZERO, "remote": "198.18.9.3"},
            {"macaddress": ZERO, "remote": "198.18.9.4"},
            {"macaddress": "52:54:00:00:00:01", "remote": "198.18.9.4", "port": 4790},
        ]},
    })  # fmt: skip
    assert entries(host, "e0") == [("52:54:00:00:00:01", None)]
    assert entries(host, "vx0") == [
        (ZERO, "198.18.9.3"), (ZERO, "198.18.9.4"), ("52:54:00:00:00:01", "198.18.9.4"),
    ]  # fmt: skip
    host.roll({
        **BASE,
        "fdb/e0": {"entries": [{"macaddress": "52:54:00:00:00:02"}]},
        "fdb/vx0": {"entries": [
            {"macaddress": ZERO, "remote": "198.18.9.4"},
            {"macaddress": "52:54:00:00:00:01", "remote": "198.18.9.4"},
        ]},
    })  # fmt: skip
    assert entries(host, "e0") == [("52:54:00:00:00:02", None)]
    assert entries(host, "vx0") == [(ZERO, "198.18.9.4"), ("52:54:00:00:00:01", "198.18.9.4")]
    host.roll(BASE)
    assert entries(host, "e0") == []
    assert entries(host, "vx0") == []


def test_adopt_release_and_revert(host: Space) -> None:
    """An entry that was there stays when intent lets go; a revert is exact."""
    host.roll(BASE)
    words = ("fdb", "add", "52:54:00:00:00:07", "dev", "e0", "master", "static")
    sh("bridge", "-n", host.name, *words)
    state = {**BASE, "fdb/e0": {"entries": [{"macaddress": "52:54:00:00:00:07"}]}}
    assert host.roll(state).changes == ()
    host.goes_back({
        **BASE, "fdb/e0": {"entries": [{"macaddress": "52:54:00:00:00:08"}]},
        "fdb/vx0": {"entries": [{"macaddress": ZERO, "remote": "198.18.9.3"}]},
    })  # fmt: skip
    assert host.roll(BASE).changes == ()
    assert entries(host, "e0") == [("52:54:00:00:00:07", None)]
