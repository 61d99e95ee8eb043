"""Rate limits in a real kernel, judged by tc(8) and by traffic that is really sent."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from namespaces import Space, apply, connect, sh, space

from fleet.host.change import HostError
from fleet.host.kernel.observation import Observation
from fleet.host.registry import load
from fleet.host.shapes import shaped


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        made.ip("link add e0 type veth peer name e1")
        made.ip("link set e0 up")
        made.ip("link set e1 up")
        yield made


def tc(host: Space, device: str = "e0") -> list[str]:
    """Return all that tc shows of a device, without counters."""
    lines: list[str] = []
    for what in ("qdisc", "class", "filter", "filter parent ffff:"):
        sort, *more = what.split()
        out = sh("tc", "-n", host.name, "-d", sort, "show", "dev", device, *more, check=False)
        out = re.sub(r"direct_packets_stat \d+|refcnt \d+ ?", "", out)
        found = [line.rstrip() for line in out.splitlines()]
        lines += sorted(found) if sort == "class" else found
    return lines


def shown(host: Space, device: str = "e0") -> str:
    return "\n".join(tc(host, device))


def shaping(**words: Any) -> dict[str, Any]:
    return {"shaping/e0": words}


CLASSES: dict[str, Any] = {
    "classes": [
        {"name": "storage", "rate": "20mbit", "ceil": "50mbit", "priority": 1,
         "match": {"source": "198.18.0.0/16", "protocol": "tcp", "port": 3260}},
        {"name": "dns", "rate": "1mbit", "match": {"protocol": "udp", "source_port": 53}},
        {"name": "six", "rate": "2mbit", "match": {"destination": "2001:db8::/33"}},
        {"name": "rest", "rate": "5mbit", "ceil": "10mbit", "burst": "20kb"},
    ],
    "default": "rest",
}  # fmt: skip


def test_limits_out(host: Space) -> None:
    """A limit is set, every part of it changed, and taken away; tc shows each."""
    host.roll(shaping(egress={"rate": "100mbit", "burst": "64kb", "latency": "50ms"}))
    assert "qdisc tbf f1ee: root rate 100Mbit burst 64Kb/1 mpu 0b lat 50ms" in shown(host)
    plan = host.roll(shaping(egress={"rate": "1mbit", "burst": "64kb", "latency": "50ms"}))
    assert [(c.what, c.impact) for c in plan.changes] == [("egress", "blip")]
    assert "tbf f1ee: root rate 1Mbit burst 64Kb/1 mpu 0b lat 50ms" in shown(host)
    host.roll(shaping(egress={"rate": "1mbit", "burst": "10000b", "latency": "50ms"}))
    assert "tbf f1ee: root rate 1Mbit burst 10000b/1 mpu 0b lat 50ms" in shown(host)
    host.roll(shaping(egress={"rate": "1mbit", "burst": "10000b", "latency": "200ms"}))
    assert "tbf f1ee: root rate 1Mbit burst 10000b/1 mpu 0b lat 200ms" in shown(host)
    host.roll(shaping(egress={"rate": "40gbit", "burst": "10mb"}))
    assert "tbf f1ee: root rate 40Gbit burst 10Mb/1" in shown(host)
    host.roll({})
    assert tc(host) == ["qdisc noqueue 0: root"]


def test_limits_in(host: Space) -> None:
    """What comes in goes through an ifb, which comes and goes with the limit."""
    host.roll(shaping(ingress={"rate": "50mbit", "burst": "64kb"}))
    assert "redirect" in shown(host).lower()
    assert "to device ifb-e0" in shown(host)
    assert "tbf f1ee: root rate 50Mbit burst 64Kb/1" in shown(host, "ifb-e0")
    assert host.link("ifb-e0")["flags"].count("UP") == 1
    host.roll(shaping(ingress={"rate": "8mbit", "burst": "32kb", "latency": "10ms"}))
    assert "tbf f1ee: root rate 8Mbit burst 32Kb/1 mpu 0b lat 10ms" in shown(host, "ifb-e0")
    host.ip("link set ifb-e0 down")
    changes = host.roll(shaping(ingress={"rate": "8mbit", "burst": "32kb"})).changes
    assert [change.what for change in changes] == ["ingress"]
    host.roll(shaping(egress={"rate": "8mbit"}))
    assert not host.has("ifb-e0")
    assert "ingress" not in shown(host)


def test_limited_device_goes(host: Space) -> None:
    """A limited device that intent no longer has takes its limits and its ifb along."""
    pair = {"veth/longdevicename0": {"peer": "v1"}, "veth/v1": {"peer": "longdevicename0"}}
    host.roll({**pair, "shaping/longdevicename0": {"ingress": {"rate": "1mbit"}}})
    ifbs = [link["ifname"] for link in host.json("link show type ifb")]
    assert len(ifbs) == 1
    assert ifbs[0].startswith("ifb-long-")
    host.roll({})
    assert host.json("link show type ifb") == []


def test_device_made_again(host: Space) -> None:
    """A device that has to be made again has its limits again, and takes them along in the end."""
    tap = {"tap/t0": {"multi_queue": False}}
    limits = {"shaping/t0": {"egress": {"rate": "10mbit"}, "ingress": {"rate": "5mbit"}}}
    host.roll({**tap, **limits})
    changes = host.roll({"tap/t0": {"multi_queue": True}, **limits}).changes
    assert [change.what for change in changes if change.kind == "shaping"] == ["egress", "ingress"]
    assert "tbf f1ee: root" in shown(host, "t0")
    host.goes_back({})
    host.roll({})
    assert not host.has("ifb-t0")


def test_inside_a_namespace(host: Space) -> None:
    """Limits are set inside a namespace as in the host's own, each with an ifb of its own."""
    inner = f"{host.name}i"
    base = {
        f"namespace/{inner}": {}, "veth/a0": {"peer": "b0", "peer_namespace": inner},
        f"{inner}:veth/b0": {"peer": "a0", "peer_namespace": "host"},
    }  # fmt: skip
    try:
        host.roll({**base, f"{inner}:shaping/b0": {"ingress": {"rate": "5mbit"}},
                   "shaping/a0": {"egress": {"rate": "3mbit"}}})  # fmt: skip
        assert "tbf f1ee: dev ifb-b0 root" in sh("tc", "-n", inner, "qdisc", "show")
        assert "tbf f1ee: root" in shown(host, "a0")
        host.roll(base)
        assert "f1ee" not in sh("tc", "-n", inner, "qdisc", "show") + shown(host, "a0")
    finally:
        sh("ip", "netns", "del", inner)


def test_classes(host: Space) -> None:
    """Classes share what goes out; each part of them is changed; one limit takes their place."""
    host.roll(shaping(**CLASSES))
    text = shown(host)
    assert "qdisc htb f1ee: root r2q 10 default 0x13" in text
    assert re.search(r"class htb f1ee:1 root .*rate 50Mbit ceil 50Mbit", text)
    assert re.search(r"class htb f1ee:10 .*prio 1 .*rate 20Mbit ceil 50Mbit", text)
    assert re.search(r"class htb f1ee:13 .*prio 0 .*rate 5Mbit ceil 10Mbit .*burst 20Kb/1", text)
    assert text.count("flowid f1ee:11") == 2  # IPv4 and IPv6
    assert text.count("flowid f1ee:12") == 1
    assert "match c6120000/ffff0000 at 12" in text
    assert "match 20010db8/ffffffff at 24" in text
    for place, key, value, expected in (
        (0, "rate", "30mbit", "rate 30Mbit ceil 50Mbit"),
        (0, "ceil", "60mbit", "rate 30Mbit ceil 60Mbit"),
        (0, "priority", 5, "prio 5"),
        (3, "burst", "30kb", "burst 30Kb/1"),
        (0, "match", {"destination": "198.19.0.1/32"}, "match c6130001/ffffffff at 16"),
    ):
        CHANGED["classes"][place][key] = value
        plan = host.roll(shaping(**CHANGED))
        assert [change.what for change in plan.changes] == ["classes"]
        assert expected in shown(host)
    host.roll(shaping(classes=CHANGED["classes"][:3], default="six"))
    assert "default 0x12" in shown(host)
    host.roll(shaping(classes=CHANGED["classes"][:3]))
    assert "default 0x" not in shown(host).splitlines()[0]
    assert "class htb f1ee:13" not in shown(host)
    host.roll(shaping(egress={"rate": "3mbit"}))
    assert "tbf f1ee: root" in shown(host)
    host.roll(shaping(**CLASSES))
    host.roll({})
    assert tc(host) == ["qdisc noqueue 0: root"]


CHANGED: dict[str, Any] = {
    **CLASSES, "classes": [dict(item) for item in CLASSES["classes"]],
}  # fmt: skip

FOREIGN = """
qdisc add dev e0 root handle 1: htb default 10 r2q 7
class add dev e0 parent 1: classid 1:1 htb rate 10mbit
class add dev e0 parent 1:1 classid 1:10 htb rate 5mbit ceil 10mbit prio 2 burst 20k
class add dev e0 parent 1:1 classid 1:11 htb rate 2mbit quantum 3000
qdisc add dev e0 parent 1:11 handle 20: tbf rate 1mbit burst 9k latency 50ms
filter add dev e0 parent 1: protocol ip prio 5 u32 match ip dport 80 0xffff flowid 1:10
filter add dev e0 parent 1: protocol ipv6 prio 3 u32 match ip6 dst 2001:db8::/32 flowid 1:11
filter add dev e0 parent 1: protocol ip prio 5 handle 2: u32 divisor 256
filter add dev e0 parent 1: protocol ip prio 5 u32 ht 2:7b: match ip src 198.18.0.123 flowid 1:11
filter add dev e0 parent 1: protocol ip prio 5 u32 ht 800:: match ip tos 4 0xff hashkey mask 0xff at 12 link 2:
qdisc add dev e0 ingress
filter add dev e0 parent ffff: protocol ip prio 2 u32 match ip tos 16 0xff action mirred egress mirror dev e1
"""  # noqa: E501

INTO_IFB7 = """
qdisc add dev ifb7 root tbf rate 9mbit burst 20k latency 50ms
qdisc add dev e0 ingress
filter add dev e0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ifb7
"""
BY_HAND = """
qdisc add dev e0 root handle 1: htb default 20
class add dev e0 parent 1: classid 1:1 htb rate 10mbit
class add dev e0 parent 1:1 classid 1:10 htb rate 4mbit ceil 10mbit prio 2
class add dev e0 parent 1:1 classid 1:20 htb rate 6mbit
filter add dev e0 parent 1: protocol ip prio 7 u32 match ip protocol 6 0xff match ip dport 80 0xffff match ip src 198.18.0.0/15 flowid 1:10
"""  # noqa: E501


def do(host: Space, script: str) -> None:
    for line in script.strip().splitlines():
        host.run("tc", *line.split())


def test_foreign_is_refused(host: Space) -> None:
    """A discipline that somebody else made is refused with what to do, and nothing is changed."""
    do(host, FOREIGN)
    before = tc(host)
    plan = host.plan(shaping(egress={"rate": "1mbit"}, ingress={"rate": "1mbit"}))
    assert [problem.what for problem in plan.problems] == ["egress"]
    assert "htb 1:" in plan.problems[0].actual
    plan = host.plan(shaping(ingress={"rate": "1mbit"}))
    assert [problem.what for problem in plan.problems] == ["ingress"]
    assert tc(host) == before


def test_foreign_tree_goes_back(host: Space) -> None:
    """A tree that somebody else made on a touched device comes back whole, hash tables and all."""
    from fleet.host.reverting.restore import restore
    from fleet.host.reverting.snapshot import capture

    do(host, FOREIGN)
    before = tc(host)
    assert any("order 2048 key ht 2 bkt 7b" in line for line in before)
    taken = capture(host.system, {"devices": ["e0"]})
    for break_it in (
        "qdisc del dev e0 root\nqdisc del dev e0 ingress",
        "class change dev e0 parent 1:1 classid 1:11 htb rate 3mbit\n"
        "filter del dev e0 parent 1: prio 3",
        "qdisc replace dev e0 root handle f1ee: tbf rate 1mbit burst 5k latency 50ms",
        "filter del dev e0 parent ffff: prio 2",
    ):
        do(host, break_it)
        assert tc(host) != before
        assert restore(host.system, taken) == []
        assert tc(host) == before
    host.ip("link del e0")
    assert restore(host.system, taken) == []
    assert tc(host) == before


@pytest.mark.parametrize(
    "now",
    [
        {},
        shaping(egress={"rate": "10mbit"}, ingress={"rate": "5mbit"}),
        shaping(**CLASSES),
    ],
    ids=["none", "limits", "classes"],
)
def test_revert(host: Space, now: dict[str, Any]) -> None:
    """A revert after a creation, a change or a removal leaves what tc shows as it was."""
    others: list[dict[str, Any]] = [
        {},
        shaping(egress={"rate": "20mbit"}, ingress={"rate": "7mbit"}),
        shaping(classes=CLASSES["classes"][:3], default="dns"),
    ]
    host.roll(now)
    before = tc(host), tc(host, "ifb-e0")
    for other in others:
        if other or now:
            host.goes_back(other)
            assert (tc(host), tc(host, "ifb-e0")) == before


def test_adopt_and_release(host: Space) -> None:
    """What does what intent says is adopted as it is, changed at will, and let go as it is."""
    do(host, "qdisc add dev e0 root handle 5: tbf rate 10mbit burst 40k latency 30ms")
    before = tc(host)
    observed = load("shaping").observe(Observation(host.system), "e0")
    assert observed == {"egress": {"rate": "10mbit", "burst": "40kb", "latency": "30ms"}}
    assert host.roll(shaping(egress={"rate": "10mbit"})).changes == ()
    assert tc(host) == before
    assert host.roll({}).changes == ()
    assert tc(host) == before
    assert host.roll(shaping(**observed)).changes == ()
    host.goes_back(shaping(egress={"rate": "20mbit"}))
    assert tc(host) == before
    host.roll(shaping(egress={"rate": "20mbit", "burst": "40kb"}))
    assert "tbf f1ee: root rate 20Mbit burst 40Kb" in shown(host)
    assert host.roll({}).changes == ()
    assert "tbf f1ee: root rate 20Mbit burst 40Kb" in shown(host)


def test_adopt_classes(host: Space) -> None:
    """Classes made by hand are adopted whatever their numbers; a running host's intent is empty."""
    do(host, BY_HAND)
    before = tc(host)
    assert host.roll(shaping(
        classes=[
            {"name": "rest", "rate": "6mbit"},
            {"name": "web", "rate": "4mbit", "ceil": "10mbit", "priority": 2,
             "match": {"source": "198.18.0.0/15", "protocol": "tcp", "port": 80}},
        ],
        default="rest",
    )).changes == ()  # fmt: skip
    assert host.roll({}).changes == ()
    found = load("shaping").observe(Observation(host.system), "e0")
    assert found is not None
    assert found["default"] == "class-20"
    assert found["classes"][0]["match"] == {
        "source": "198.18.0.0/15", "protocol": "tcp", "port": 80,
    }  # fmt: skip
    assert host.roll({"shaping/e0": found}).changes == ()
    assert tc(host) == before


def test_adopt_ingress(host: Space) -> None:
    """An ifb of somebody else's that limits as intent says is adopted, and stays when let go."""
    host.ip("link add ifb7 type ifb")
    host.ip("link set ifb7 up")
    do(host, INTO_IFB7)
    before = tc(host), tc(host, "ifb7")
    assert host.plan(shaping(ingress={"rate": "8mbit"})).problems
    assert host.roll(shaping(ingress={"rate": "9mbit"})).changes == ()
    host.goes_back(shaping(ingress={"rate": "8mbit"}))
    assert (tc(host), tc(host, "ifb7")) == before
    assert host.roll({}).changes == ()
    assert (tc(host), tc(host, "ifb7")) == before


def test_refused_by_the_kernel(host: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses a part of a tree, what was there is put back and its words told."""
    host.roll(shaping(egress={"rate": "10mbit"}))
    before = tc(host)
    made = shaped.htb

    def broken(words: dict[str, Any]) -> list[dict[str, Any]]:
        records = made(words)
        return [*records, {**records[0], "kind": "nosuch", "handle": 0x50000, "parent": 0xF1EE0010}]

    change = host.plan(shaping(**CLASSES)).changes[0]
    monkeypatch.setattr(shaped, "htb", broken)
    with pytest.raises(HostError) as caught:
        apply(host.system, change)
    assert "unknown" in caught.value.problem.actual
    assert tc(host) == before


def test_burst_below_a_frame(host: Space) -> None:
    """A burst that holds no frame of the device is refused: nothing would ever pass."""
    plan = host.plan(shaping(egress={"rate": "1mbit", "burst": "1500b"}))
    assert [problem.what for problem in plan.problems] == ["egress.burst"]
    assert host.plan(shaping(egress={"rate": "1mbit", "burst": "1514b"})).problems == ()


# Real traffic

RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
peer = server.accept()[0]
peer.settimeout(5)
count, start = len(peer.recv(1 << 16)), time.monotonic()
while time.monotonic() < start + 1.2:
    count += len(peer.recv(1 << 16))
print(count / (time.monotonic() - start))
"""
SEND = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
end = time.monotonic() + 3
try:
    while time.monotonic() < end:
        peer.send(bytes(1 << 14))
except OSError:
    pass
"""


def python(there: Space, program: str, *words: str) -> subprocess.Popen[str]:
    argv = ["ip", "netns", "exec", there.name, sys.executable, "-I", "-S", "-c", program, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def mbit(sender: Space, receiver: Space, address: str, port: int) -> float:
    """Send over TCP for a good second, and return the megabits per second that arrived."""
    with python(receiver, RECEIVE, address, str(port)) as taking:
        assert taking.stdout is not None
        assert taking.stdout.readline() == "ready\n"
        with python(sender, SEND, address, str(port)):
            return float(taking.stdout.readline()) * 8 / 1e6


@pytest.fixture
def two() -> Iterator[tuple[Space, Space]]:
    with space() as one, space() as other:
        connect(one, "e0", other, "e1")
        one.ip("addr add 198.18.7.1/24 dev e0")
        other.ip("addr add 198.18.7.2/24 dev e1")
        yield one, other


def test_measured(two: tuple[Space, Space]) -> None:
    """What arrives is what intent says: out by tbf, in by an ifb, and out by port with htb."""
    one, other = two
    rates: dict[str, tuple[float, float]] = {}
    assert mbit(one, other, "198.18.7.2", 5000) > 200
    one.roll(shaping(egress={"rate": "40mbit"}, ingress={"rate": "20mbit"}))
    rates["egress"] = (40, mbit(one, other, "198.18.7.2", 5001))
    rates["ingress"] = (20, mbit(other, one, "198.18.7.1", 5002))
    one.roll(shaping(
        classes=[
            {"name": "fast", "rate": "30mbit", "match": {"protocol": "tcp", "port": 5003}},
            {"name": "slow", "rate": "5mbit", "ceil": "10mbit"},
        ],
        default="slow",
    ))  # fmt: skip
    rates["class by port"] = (30, mbit(one, other, "198.18.7.2", 5003))
    rates["default class, to its ceil"] = (10, mbit(one, other, "198.18.7.2", 5004))
    print({name: f"{got:.1f} of {said} mbit" for name, (said, got) in rates.items()})
    for name, (said, got) in rates.items():
        assert said * 0.5 < got < said * 1.3, (name, said, got)
    one.roll({})
    assert mbit(one, other, "198.18.7.2", 5005) > 200
