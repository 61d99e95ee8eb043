"""libvirtd killed, and hung, at each step of an apply: the host is as before, or says what is not.

What stands for virsh on the host lets the nth command that changes something meet the fault, just
before it or just after it. The judges are the real virsh, sysctl and the clock.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypervisor import HelperFailed, applied, armed, until
from test_kind_network import MOVED, NAT, state
from virtual import DAEMON, MISSING, LibvirtHost, libvirt_host

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}"),
    pytest.mark.timeout(240),
]

OTHER = """<network><name>more</name><bridge name='virbr9'/><ip address='198.18.45.1' prefix='24'>
<dhcp><range start='198.18.45.2' end='198.18.45.9'/></dhcp></ip></network>"""
FILTER = "<filter name='mine'><rule action='accept' direction='inout'><all/></rule></filter>"
#: The commands that change something of the plan below, in their order: the filter, a network that
#: starts again, and one that is new.
COMMANDS = (
    "nwfilter-define",
    *("net-define", "net-destroy", "net-start"),
    *("net-define", "net-autostart", "net-start"),
)
#: Seconds within which a transaction of a dead libvirt has its end: the revert's own 30, twice a
#: call that is waited for 8, and what the processes take.
BOUND = 75.0
WRAPPER = """#!/bin/sh
case "$*" in
*qemu:///system*)
    for step in {steps}; do case "$*" in *"$step"*)
        echo "$step" >> /run/commands
        [ "$(wc -l < /run/commands)" = {number} ] || break
        {before}
        /run/virsh "$@"; code=$?
        {after}
        exit $code
    esac; done;;
esac
exec /run/virsh "$@"
"""
KILL, STOP = "kill -9 $(cat /run/libvirtd.pid)", "kill -STOP $(cat /run/libvirtd.pid)"


@pytest.fixture
def host() -> Iterator[LibvirtHost]:
    with libvirt_host() as made:
        made.ip("link add br9 type bridge")
        made.sh("sysctl", "-w", "net.ipv4.conf.br9.rp_filter=0")
        yield made


def met_by(host: LibvirtHost, number: int, before: str = ":", after: str = "") -> None:
    """Let the nth command that changes something meet a fault, before or after it."""
    real = shutil.which("virsh")
    assert real is not None
    text = WRAPPER.format(
        steps=" ".join(dict.fromkeys(COMMANDS)), number=number, before=before, after=after
    )
    host.place("/run/virsh").write_bytes(host.place(real).read_bytes())
    host.place("/run/wrapper").write_text(text)
    for name in ("virsh", "wrapper"):
        host.place(f"/run/{name}").chmod(0o755)
    host.sh("mount", "--bind", "/run/wrapper", real)


def ended(host: LibvirtHost, number: int, fault: str) -> threading.Thread:
    """End a fault a while after it was met: start what is dead again, let go on what hangs."""

    def end() -> None:
        commands = host.place("/run/commands")
        until(lambda: commands.exists() and commands.read_text().count("\n") >= number, 60.0)
        daemon = host.daemon
        if fault == KILL:
            until(lambda: not Path(f"/proc/{daemon}").exists() or "Z" in state_of(daemon))
            time.sleep(3.0)
            host.sh("sh", "-c", DAEMON)
        else:
            until(lambda: "T" in state_of(daemon))
            time.sleep(11.0)
            host.signal(signal.SIGCONT)

    thread = threading.Thread(target=end)
    thread.start()
    return thread


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wanted() -> dict[str, Any]:
    """A plan of all: a network starts again, one is made, a filter is, and a sysctl changes."""
    made = state(MOVED)
    made["resources"] += [
        {"kind": "network", "name": "more", "spec": {"xml": OTHER}},
        {"kind": "nwfilter", "name": "mine", "spec": {"xml": FILTER}},
        {"kind": "sysctl", "name": "net.ipv4.conf.br9.rp_filter", "spec": {"value": "2"}},
    ]
    return made


def prepared(host: LibvirtHost) -> list[str]:
    """Give the host a network, as somebody had it, and return all that libvirt has."""
    host.place("/run/net.xml").write_text(NAT)
    for words in (("net-define", "/run/net.xml"), ("net-start", "web"), ("net-autostart", "web")):
        host.virsh(*words)
    return everything(host)


def everything(host: LibvirtHost) -> list[str]:
    listening = host.sh("sh", "-c", "ss -Hlnu | awk '{print $4}' | sort -u")
    links = sorted(line.split()[0] for line in host.ip("-br link").splitlines())
    return [*host.books(), host.virsh("nwfilter-list"), rp_filter(host), listening, *links]


def rp_filter(host: LibvirtHost) -> str:
    return host.sh("sysctl", "-n", "net.ipv4.conf.br9.rp_filter").strip()


def applied_or_failed(host: LibvirtHost) -> float:
    """Apply what is wanted and confirm nothing; return how many seconds it took to be answered."""
    helper, _ = armed(host, 45.0, state=wanted(), allow=["drain"])
    began = time.monotonic()
    with suppress(HelperFailed, EOFError):
        helper.call("apply", transaction="tx1")
    took = time.monotonic() - began
    with suppress(HelperFailed, EOFError):
        helper.call("revert", transaction="tx1")
    helper.close()
    return took


def test_the_plan_gives_libvirt_as_many_commands_as_are_met(host: LibvirtHost) -> None:
    """Without a fault it is applied, with the commands that the others go through."""
    prepared(host)
    met_by(host, 0, ":")
    helper, _ = applied(host, 8.0, state=wanted(), allow=["drain"])
    commands = host.place("/run/commands").read_text().split()
    helper.close()
    host.wait_for_outcome()
    assert tuple(commands) == COMMANDS


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(COMMANDS) + 1))
def test_killed_at_a_step_and_started_again(host: LibvirtHost, number: int, moment: str) -> None:
    """A libvirtd that dies midway and is started again has its old books; all else is as before."""
    before = prepared(host)
    met_by(host, number, **{moment: KILL})
    end = ended(host, number, KILL)
    applied_or_failed(host)
    end.join()
    outcome = host.wait_for_outcome(seconds=BOUND)
    assert outcome["state"] == "REVERTED", outcome
    assert everything(host) == before


@pytest.mark.parametrize("seconds", [0.03, 0.06, 0.1, 0.2])
@pytest.mark.parametrize("number", [3, 4, 7])
def test_killed_while_it_works(host: LibvirtHost, number: int, seconds: float) -> None:
    """Neither a bridge nor a dnsmasq is left of a network that a killed libvirtd had half started
    or half ended."""
    before = prepared(host)
    met_by(host, number, f"(sleep {seconds}; {KILL}) >/dev/null 2>&1 &")
    end = ended(host, number, KILL)
    applied_or_failed(host)
    end.join()
    outcome = host.wait_for_outcome(seconds=BOUND)
    assert outcome["state"] == "REVERTED", outcome
    assert everything(host) == before


@pytest.mark.parametrize("number", range(1, len(COMMANDS) + 1))
def test_hung_at_a_step_and_going_on(host: LibvirtHost, number: int) -> None:
    """A libvirtd that hangs midway and goes on has its old books; all else is as before."""
    before = prepared(host)
    met_by(host, number, STOP)
    end = ended(host, number, STOP)
    applied_or_failed(host)
    end.join()
    outcome = host.wait_for_outcome(seconds=BOUND)
    assert outcome["state"] == "REVERTED", outcome
    assert everything(host) == before


@pytest.mark.parametrize("fault", [KILL, STOP], ids=["dead", "hung"])
def test_what_never_comes_back_is_said_in_time(host: LibvirtHost, fault: str) -> None:
    """Where libvirtd stays dead or hung the rest of the host goes back, and the outcome names what
    does not, within a bound; once libvirtd is there again, a revert finishes."""
    before = prepared(host)
    met_by(host, 5, fault)
    took = applied_or_failed(host)
    outcome = host.wait_for_outcome(seconds=BOUND)
    assert took < BOUND
    assert outcome["state"] == "REVERT_FAILED"
    assert "web" in str(outcome)
    assert rp_filter(host) == "0"
    if fault == STOP:
        host.signal(signal.SIGCONT)
    else:
        host.run_daemon()
    until(lambda: "web" in host.virsh("net-list", "--all", check=False))
    helper = host.helper()
    helper.call("revert", transaction="tx1")
    helper.close()
    assert everything(host) == before
