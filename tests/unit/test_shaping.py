"""Rate limits before any host: words of tc(8), packets as u32 sees them, and bad input located."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from projects import one_host, specs

from fleet.errors import IntentError
from fleet.host.shapes import packets, rates, shaped
from fleet.intent.project import render_state


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100mbit", 12_500_000), ("100Mbit", 12_500_000), ("8", 1), ("1.5gbit", 187_500_000),
        ("1kbps", 1000), ("1mibit", 131_072), ("1gibps", 2**30), ("512kbit", 64_000),
    ],
)  # fmt: skip
def test_rates(text: str, expected: int) -> None:
    """Rates are tc's: bits are decimal, `i` is binary, `bps` counts bytes."""
    assert rates.bytes_per_second(text) == expected
    assert rates.bytes_per_second(rates.rate_words(expected)) == expected


def test_sizes_and_times() -> None:
    """Sizes are binary, times may be short; both have one normal form."""
    assert [rates.size(t) for t in ("64kb", "64k", "1m", "1514b", "1514")] == [
        65536, 65536, 1048576, 1514, 1514,
    ]  # fmt: skip
    assert [rates.microseconds(t) for t in ("50ms", "1s", "250us")] == [50_000, 10**6, 250]
    assert [rates.size_words(n) for n in (65536, 1514)] == ["64kb", "1514b"]
    assert [rates.time_words(n) for n in (50_000, 250)] == ["50ms", "250us"]


@pytest.mark.parametrize(
    "match",
    [
        {"source": "198.18.0.0/15", "protocol": "tcp", "port": 80},
        {"destination": "198.18.0.1/32", "protocol": "icmp"},
        {"source": "0.0.0.0/0"},
        {"source": "2001:db8::/33", "destination": "2001:db8:1:2:3::/80", "protocol": "udp"},
        {"protocol": "sctp", "source_port": 7, "port": 9},
    ],
    ids=str,
)
def test_matches_are_said_as_they_were_meant(match: dict[str, Any]) -> None:
    """The keys of a match are read back as that match."""
    for protocol, keys in packets.selectors(match):
        seen = packets.keys_of(packets.selector(keys))
        assert seen == keys
        said = packets.match_words(protocol, seen)
        assert said == {key.replace("_", "-"): value for key, value in match.items()}


def test_what_is_made_means_what_was_said() -> None:
    """The records of limits and classes have the meaning that they were made from."""
    for limit in ({"rate": "1mbit"}, {"rate": "40gbit", "burst": "10mb"}, {"rate": "64kbit"}):
        now = shaped.meaning(shaped.tbf(limit))
        assert shaped.same_limit(limit, now, own=True)
        assert now is not None
        assert shaped.same_limit(shaped.limit_words(now), now, own=True)
        assert not shaped.same_limit({"rate": "2mbit"}, now, own=False)
    classes = {"classes": [{"name": "a", "rate": "1mbit", "match": {"protocol": "tcp"}}]}
    now = shaped.meaning(shaped.htb(classes))
    assert shaped.same_classes(classes, now, own=True)
    assert now is not None
    assert shaped.class_words(now) == {
        "classes": [{"name": "class-10", "rate": "1mbit", "match": {"protocol": "tcp"}}]
    }


def test_what_has_no_words_is_not_said() -> None:
    """A tree that matches one family only, or all protocols, is no intent that would match both."""
    classes = {"classes": [{"name": "a", "rate": "1mbit", "match": {"protocol": "tcp"}}]}
    records = shaped.htb(classes)
    now = shaped.meaning(records[:-1])
    assert now is not None
    assert shaped.class_words(now) is None
    assert not shaped.same_classes(classes, now, own=True)
    every = [{**records[-1], "info": records[-1]["info"] & ~0xFFFF | 0x0300}]
    now = shaped.meaning([*records[:-2], *every])
    assert now is not None
    assert shaped.class_words(now) is None
    all_four = {"classes": [{"name": "a", "rate": "1mbit", "match": {"source": "0.0.0.0/0"}}]}
    now = shaped.meaning(shaped.htb(all_four))
    assert now is not None
    said = shaped.class_words(now)
    assert said is not None
    assert said["classes"][0]["match"] == {"source": "0.0.0.0/0"}


def test_intent(tmp_path: Path) -> None:
    """Limits are written by device, and reach the host in their normal form."""
    found = specs(render_state(one_host(tmp_path, """
        network:
          ethernets: {eth1: {}}
          shaping:
            eth1:
              ingress: {rate: 0.1gbit, burst: 65536}
              classes:
                - {name: web, rate: 5Mbit, match: {protocol: tcp, port: 80}}
                - {name: rest, rate: 1mbit, ceil: 10mbit, priority: 7}
              default: rest
    """), "h1"))  # fmt: skip
    assert found["shaping/eth1"] == {
        "ingress": {"rate": "100mbit", "burst": "64kb"},
        "classes": [
            {"name": "web", "rate": "5mbit", "match": {"protocol": "tcp", "port": 80}},
            {"name": "rest", "rate": "1mbit", "ceil": "10mbit", "priority": 7},
        ],
        "default": "rest",
    }


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("egress: {rate: fast}", "eth1.egress.rate", "'fast' is not a rate such as 100mbit"),
        ("egress: {rate: -5mbit}", "eth1.egress.rate", "is not a rate"),
        ("egress: {rate: 0mbit}", "eth1.egress.rate", "is not a rate from 8bit"),
        ("egress: {rate: 10mbit/s}", "eth1.egress.rate", "is not a rate"),
        ("egress: {rate: inf}", "eth1.egress.rate", "is not a rate"),
        ("egress: {rate: 1mbit, burst: 0}", "eth1.egress.burst", "is not a size from 1b"),
        ("egress: {rate: 8bit, burst: 1mb}", "eth1.egress", "takes more than 274 s"),
        ("egress: {burst: 1mb}", "eth1.egress", "rate is missing"),
        ("egress: {rate: 1mbit, latency: soon}", "eth1.egress.latency", "is not a time"),
        ("{}", "eth1", "name egress, ingress or classes"),
        ("classes: [{name: a, rate: 1mbit}]", "eth1", "class 'a' matches nothing"),
        ("{classes: [{name: a, rate: 1mbit}], default: b}", "eth1", "'b' names no class"),
        ("{egress: {rate: 1mbit}, default: b}", "eth1", "names no class"),
        ("{classes: [{name: a, rate: 9mbit, ceil: 1mbit}], default: a}", "eth1.classes",
         "is less than rate"),
        ("{classes: [{name: a, rate: 1mbit, match: {port: 80}}]}", "eth1.classes",
         "a port needs protocol"),
        ("{classes: [{name: a, rate: 1mbit, priority: 8}], default: a}", "eth1.classes",
         "priority"),
    ],
)  # fmt: skip
def test_bad_input_is_located(tmp_path: Path, spec: str, path: str, message: str) -> None:
    """What no kernel could do is refused before any host is asked, with its place."""
    body = spec if spec.startswith("{") else "{" + spec + "}"
    data = f"network: {{ethernets: {{eth1: {{}}}}, shaping: {{eth1: {body}}}}}"
    with pytest.raises(IntentError) as caught:
        render_state(one_host(tmp_path, data), "h1")
    error = caught.value
    assert message in f"{error} {error.path}"
    assert path in error.path
    assert error.line == 4
