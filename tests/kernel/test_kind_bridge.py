"""Bridges in a real kernel, judged by ip(8), bridge(8) and ping."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from namespaces import Space, connect, sh, space, until


@pytest.fixture
def host() -> Iterator[Space]:
    with space() as made:
        yield made


def info(host: Space, bridge: str = "br0") -> dict[str, object]:
    data: dict[str, object] = host.link(bridge)["linkinfo"]["info_data"]
    return data


ALL = {
    "stp": True, "priority": 4096, "forward_delay": 4.0, "hello_time": 1.0, "max_age": 10.0,
    "ageing_time": 60.0, "multicast_snooping": False, "group_fwd_mask": 8,
}  # fmt: skip


def settings(host: Space) -> dict[str, object]:
    found = info(host)
    return {
        "stp": bool(found["stp_state"]), "priority": found["priority"],
        "forward_delay": found["forward_delay"] / 100, "hello_time": found["hello_time"] / 100,
        "max_age": found["max_age"] / 100, "ageing_time": found["ageing_time"] / 100,
        "multicast_snooping": bool(found["mcast_snooping"]),
        "group_fwd_mask": int(str(found["group_fwd_mask"]), 16),
    }  # fmt: skip


def test_create_change_delete(host: Space) -> None:
    """A bridge is created with every parameter, each can change, and it goes with its intent."""
    mac = "02:aa:00:00:00:01"
    host.roll({"bridge/br0": {"parameters": ALL, "macaddress": mac, "mtu": 1400}})
    assert settings(host) == ALL
    assert host.link("br0")["address"] == mac
    assert host.link("br0")["mtu"] == 1400
    assert "UP" in host.link("br0")["flags"]

    other = {
        "stp": False, "priority": 8192, "forward_delay": 0.0, "hello_time": 3.0, "max_age": 12.0,
        "ageing_time": 0.0, "multicast_snooping": True, "group_fwd_mask": 0,
    }  # fmt: skip
    for name in ("stp", *[name for name in other if name != "stp"]):
        plan = host.roll({"bridge/br0": {"parameters": {name: other[name]}, "mtu": 1400}})
        assert settings(host)[name] == other[name], plan
    host.roll({"bridge/br0": {"macaddress": "02:aa:00:00:00:02", "activation_mode": "off"}})
    assert host.link("br0")["address"] == "02:aa:00:00:00:02"
    assert "UP" not in host.link("br0")["flags"]
    # What is no longer named is back at the kernel's default.
    assert settings(host)["priority"] == 32768
    assert host.link("br0")["mtu"] == 1500

    plan = host.roll({})
    assert [(c.action, c.key) for c in plan.changes] == [("delete", "bridge/br0")]
    assert not host.has("br0")


def test_adopt_and_release(host: Space) -> None:
    """A bridge that was there is changed where intent says so, and stays when intent lets go."""
    host.ip("link add br0 type bridge ageing_time 12300 priority 1")
    host.ip("link add v0 type veth peer name v1")
    host.ip("link set v0 master br0")
    host.ip("addr add 198.18.0.1/24 dev br0")
    host.roll({"bridge/br0": {"parameters": {"priority": 2}}})
    assert settings(host)["priority"] == 2
    assert settings(host)["ageing_time"] == 123
    assert host.ledger["bridge/br0"].created is False
    assert host.ledger["bridge/br0"].before["parameters"]["priority"] == 1
    plan = host.roll({})
    assert plan.changes == ()
    assert settings(host)["priority"] == 2
    assert host.link("v0")["master"] == "br0"
    assert host.addresses("br0") == ["198.18.0.1/24"]


FLAGS = {
    "isolated": True, "learning": False, "flood": False, "mcast_flood": False,
    "bcast_flood": False, "hairpin": True, "guard": True, "root_block": True, "fastleave": True,
    "neigh_suppress": True, "locked": True, "cost": 77, "priority": 9,
}  # fmt: skip


def test_port_flags(host: Space) -> None:
    """Every flag of a port is set as it joins, can change alone, and goes back when unnamed."""
    host.ip("link add v0 type veth peer name v1")
    base = {"interfaces": ["v0"]}
    host.roll({"bridge/br0": {**base, "ports": {"v0": FLAGS}}})
    now = host.port("v0")
    assert {name: now[name] for name in FLAGS} == FLAGS
    for name in FLAGS:
        if name in ("cost", "priority"):
            value: object = int(FLAGS[name]) + 1
        else:
            value = not FLAGS[name]
        host.roll({"bridge/br0": {**base, "ports": {"v0": {**FLAGS, name: value}}}})
        assert host.port("v0")[name] == value
    host.roll({"bridge/br0": base})
    now = host.port("v0")
    fresh = {name: now[name] for name in FLAGS if name != "cost"}
    assert fresh == {
        "isolated": False, "learning": True, "flood": True, "mcast_flood": True,
        "bcast_flood": True, "hairpin": False, "guard": False, "root_block": False,
        "fastleave": False, "neigh_suppress": False, "locked": False, "priority": 32,
    }  # fmt: skip
    # netplan's own words for the same.
    host.roll(
        {"bridge/br0": {**base, "parameters": {"path_cost": {"v0": 5}, "port_priority": {"v0": 6}}}}
    )
    assert (host.port("v0")["cost"], host.port("v0")["priority"]) == (5, 6)


def test_port_moves_between_bridges(host: Space) -> None:
    """A port goes from one bridge to another in one step, with the flags intent gives it there."""
    host.ip("link add v0 type veth peer name v1")
    host.roll({"bridge/br0": {"interfaces": ["v0"]}, "bridge/br1": {"interfaces": []}})
    plan = host.roll(
        {
            "bridge/br0": {"interfaces": []},
            "bridge/br1": {"interfaces": ["v0"], "ports": {"v0": {"isolated": True}}},
        }
    )
    assert [c.what for c in plan.changes] == ["interfaces", "ports.v0"]
    assert host.link("v0")["master"] == "br1"
    assert host.port("v0")["isolated"] is True
    host.roll({"bridge/br1": {}})
    assert "master" not in host.link("v0")
    assert not host.has("br0")


def tap(host: Space, name: str) -> subprocess.Popen[bytes]:
    """Start a process that holds a tap, as a guest's QEMU does."""
    program = (
        "import fcntl,struct,sys;f=open('/dev/net/tun','r+b',buffering=0);"
        f"fcntl.ioctl(f,0x400454ca,struct.pack('16sH',b'{name}',0x1002));"
        "print('held',flush=True);sys.stdin.read()"
    )
    process = subprocess.Popen(
        ["ip", "netns", "exec", host.name, "python3", "-I", "-S", "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_guests_ports_stay(host: Space) -> None:
    """A port that a process holds is never detached, and counts; deleting its bridge is drain."""
    host.ip("link add br0 type bridge")
    host.ip("link add v0 type veth peer name v1")
    host.ip("link add v2 type veth peer name v3")
    host.ip("tuntap add dev idle0 mode tap")
    guest = tap(host, "vnet0")
    try:
        for port in ("vnet0", "v0", "idle0"):
            host.ip(f"link set {port} master br0 up")
        plan = host.roll({"bridge/br0": {"interfaces": ["v2"]}})
        assert "master" not in host.link("v0")
        assert "master" not in host.link("idle0")
        assert host.link("vnet0")["master"] == "br0"
        assert host.link("v2")["master"] == "br0"
        joins = [c for c in plan.changes if c.what == "interfaces"]
        assert all(c.impact == "blip" and len(c.guests) == 1 for c in joins), joins

        host.ip("link del br0")
        host.ledger = {}
        host.roll({"bridge/br1": {}})
        host.ip("link set vnet0 master br1")
        from fleet.host.planning.plan import allowed

        plan = host.plan({})
        assert [(c.action, c.impact) for c in plan.changes] == [("delete", "drain")]
        assert len(allowed(plan, ())) == 1
        assert allowed(plan, ("drain",)) == allowed(plan, ("bridge/br1",)) == ()
    finally:
        assert guest.stdin is not None
        guest.stdin.close()
        guest.wait(10)
        assert guest.stdout is not None
        guest.stdout.close()


def test_isolated_ports_cannot_talk() -> None:
    """Two isolated ports do not reach each other but both reach a port that is not isolated."""
    with space() as host, space() as a, space() as b, space() as c:
        for number, (other, name) in enumerate(((a, "pa"), (b, "pb"), (c, "pc")), 1):
            connect(host, name, other, "eth0")
            other.ip(f"addr add 198.18.7.{number}/24 dev eth0")
        ports = {"interfaces": ["pa", "pb", "pc"]}
        host.roll({"bridge/br0": ports})
        assert a.pings("198.18.7.2")
        host.roll(
            {"bridge/br0": {**ports, "ports": {"pa": {"isolated": True}, "pb": {"isolated": True}}}}
        )
        assert not a.pings("198.18.7.2", 0.5)
        assert a.pings("198.18.7.3")
        assert b.pings("198.18.7.3")
        host.roll({"bridge/br0": ports})
        assert a.pings("198.18.7.2")


def test_stp_blocks_a_loop(host: Space) -> None:
    """Two bridges joined by two cables: STP blocks one, and what is sent once arrives once."""
    host.ip("link add la type veth peer name lb")
    host.ip("link add name ma type veth peer name mb")
    for port in ("la", "lb", "ma", "mb"):
        host.ip(f"link set dev {port} up")
    stp = {"stp": True, "forward_delay": 2.0, "hello_time": 1.0, "max_age": 6.0}
    plan = host.roll({
        "bridge/bra": {"interfaces": ["la", "ma"], "parameters": {**stp, "priority": 4096},
                       "addresses": [{"address": "198.18.8.1/24"}]},
        "bridge/brb": {"interfaces": ["lb", "mb"],
                       "parameters": {**stp, "priority": 8192, "path_cost": {"lb": 100, "mb": 10}}},
    })  # fmt: skip
    assert plan.settle >= 4

    def states() -> dict[str, str]:
        return {port: host.port(port)["state"] for port in ("la", "lb", "ma", "mb")}

    wanted = {"la": "forwarding", "ma": "forwarding", "lb": "blocking", "mb": "forwarding"}
    until(lambda: states() == wanted, 15)
    # One broadcast into the loop. In a storm each cable would carry it thousands of times.
    before = received(host, "lb") + received(host, "mb")
    host.run("ping", "-n", "-c", "1", "-W", "0.3", "198.18.8.77", check=False)
    assert received(host, "lb") + received(host, "mb") - before < 20
    # The costs the other way round: the blocked port is the other one.
    costs = {**stp, "priority": 8192, "path_cost": {"lb": 10, "mb": 100}}
    host.roll(
        {
            "bridge/bra": {"interfaces": ["la", "ma"], "parameters": {**stp, "priority": 4096}},
            "bridge/brb": {"interfaces": ["lb", "mb"], "parameters": costs},
        }
    )
    until(lambda: states() == {**wanted, "lb": "forwarding", "mb": "blocking"}, 15)


def received(host: Space, device: str) -> int:
    return int(host.json("-s link show dev", device)[0]["stats64"]["rx"]["packets"])


def test_mtu_of_stacked_devices(host: Space) -> None:
    """MTUs are raised from below and lowered from above, and a bridge keeps the one it is given."""
    host.ip("link add v0 type veth peer name v1")
    host.ip("link add v2 type veth peer name v3")
    for device in ("v0", "v1", "v2", "v3"):
        host.ip(f"link set {device} up")

    def intent(low: int, high: int) -> dict[str, object]:
        return {
            "ethernet/v0": {"mtu": low},
            "bridge/br0": {"interfaces": ["v0"], "mtu": high},
        }

    host.roll(intent(1500, 1500))
    up = host.roll(intent(9000, 9000))
    assert [c.key for c in up.changes] == ["ethernet/v0", "bridge/br0"]
    # A macvlan on the bridge must never be larger than it: the kernel itself is the judge.
    host.ip("link add link br0 name mv0 type macvlan mode bridge")
    host.ip("link set mv0 mtu 1400")
    down = host.roll(intent(1400, 1400))
    assert [c.key for c in down.changes] == ["bridge/br0", "ethernet/v0"]
    assert (host.link("v0")["mtu"], host.link("br0")["mtu"]) == (1400, 1400)
    # A smaller port joins: the kernel would lower a bridge that nobody gave an MTU.
    with_small = {"ethernet/v2": {"mtu": 1300}, "bridge/br1": {"interfaces": ["v2"], "mtu": 1500}}
    host.roll({**intent(1400, 1400), **with_small})
    assert host.link("br1")["mtu"] == 1500
    # One by one, as another program would see it.
    sh("ip", "-n", host.name, "link", "set", "v2", "mtu", "1280")
    assert host.link("br1")["mtu"] == 1500
