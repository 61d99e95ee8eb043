"""A transaction on a real host: armed first, confirmed from outside, or as before."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypervisor import (
    STATE,
    HelperFailed,
    Hypervisor,
    applied,
    armed,
    confirm,
    hypervisor,
    until,
)

pytestmark = pytest.mark.kernel

SYSCTL_FILE = "etc/sysctl.d/90-fleet.conf"


@pytest.fixture
def host() -> Iterator[Hypervisor]:
    with hypervisor() as made:
        yield made


def addresses(host: Hypervisor, device: str) -> list[str]:
    found = json.loads(host.ip(f"-j -4 address show dev {device}"))
    return [each["local"] for link in found for each in link.get("addr_info", [])]


def test_a_confirmed_transaction_stays(host: Hypervisor) -> None:
    """Armed, applied and confirmed from a new connection, the host is as intended and keeps it."""
    helper, digest = applied(host)
    assert [event["index"] for event in helper.events] == list(range(len(helper.events)))
    assert addresses(host, "br0") == ["198.18.0.5"]
    assert host.status()["state"] == "APPLIED"
    assert not (host.root / SYSCTL_FILE).exists()

    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"

    assert (host.root / SYSCTL_FILE).read_text().endswith("net.ipv4.ip_forward = 1\n")
    assert (host.root / "var/lib/fleet/ledger.json").stat().st_mode & 0o777 == 0o600
    assert host.status()["state"] == "COMMITTED"
    again = host.helper().call("plan", state=STATE)
    assert again["plan"]["changes"] == []
    assert again["transaction"] is None
    assert addresses(host, "br0") == ["198.18.0.5"]
    assert host.sh("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"


def test_without_a_confirm_the_host_is_as_before(host: Hypervisor) -> None:
    """When the deadline passes, everything the plan touched is back, by ip(8)'s word."""
    before = host.kernel()
    helper, _ = applied(host, deadline=1.5)
    assert host.kernel() != before
    assert host.wait_for_outcome()["state"] == "REVERTED"
    assert host.kernel() == before
    assert not (host.root / SYSCTL_FILE).exists()
    assert list((host.root / "etc/sysctl.d").iterdir()) == []
    status = host.status()
    assert status["state"] == "REVERTED"
    assert "deadline" in status["outcome"]["reason"]
    helper.close()


def test_a_failing_change_is_taken_back_at_once(host: Hypervisor) -> None:
    """An error in the middle is answered with `reverted` and the problem, at once."""
    before = host.kernel()
    hook = (
        "def fail(name):\n"
        "    if name == 'apply.change.4.before': raise OSError(5, 'Input/output error')\n"
        "crash.HOOK = fail\n"
    )
    helper, _ = armed(host, deadline=60.0, extra=hook)
    with pytest.raises(HelperFailed) as failed:
        helper.call("apply", transaction="tx1")
    assert failed.value.code == "reverted"
    assert "Input/output error" in str(failed.value.problems)
    assert host.kernel() == before
    assert host.status()["state"] == "REVERTED"


def test_what_passes_by_itself_is_tried_again(host: Hypervisor) -> None:
    """EBUSY and EINTR of a change are tried again; the transaction goes through."""
    hook = (
        "from fleet.host.kinds import sysctl\n"
        "real, errors = sysctl.apply, [16, 4]\n"
        "def flaky(system, change):\n"
        "    if errors: raise OSError(errors.pop(), 'passing')\n"
        "    return real(system, change)\n"
        "sysctl.apply = flaky\n"
    )
    helper, digest = applied(host, extra=hook)
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"
    helper.close()


def test_what_does_not_verify_is_taken_back(host: Hypervisor) -> None:
    """Where the host did not become what the plan says, it is put back, with what is different."""
    before = host.kernel()
    hook = (
        "from fleet.host.kinds import sysctl\n"
        "sysctl.apply = lambda system, change: None\n"
        "from fleet.host.planning import plan\n"
        "plan.MOMENT = 0.1\n"
    )
    helper, _ = armed(host, deadline=30.0, extra=hook)
    with pytest.raises(HelperFailed) as failed:
        helper.call("apply", transaction="tx1")
    assert failed.value.code == "reverted"
    assert failed.value.problems[0]["resource"] == "sysctl/net.ipv4.ip_forward"
    assert host.kernel() == before


def test_a_stale_plan_is_refused(host: Hypervisor) -> None:
    """A host that changed after it was reviewed is left alone, and nothing stays of the attempt."""
    helper = host.helper()
    digest = helper.call("plan", state=STATE)["plan"]["digest"]
    host.ip("link add br0 type bridge")
    before = host.kernel()
    with pytest.raises(HelperFailed) as failed:
        helper.call(
            "arm", transaction="tx1", plan_digest=digest, deadline=5, nonce_hash="0" * 64, owner="x"
        )
    assert failed.value.code == "stale"
    assert host.kernel() == before
    assert host.status() == {}


def test_the_session_may_die_during_apply(host: Hypervisor) -> None:
    """With every pipe to the controller closed the plan is carried out, and can be confirmed."""
    helper, digest = armed(host)
    helper.send("apply", transaction="tx1")
    helper.close()
    until(lambda: host.status()["state"] == "APPLIED")
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"


def test_a_peer_that_does_not_read_holds_nothing_up(host: Hypervisor) -> None:
    """Nobody reads the events, the pipe is full: the plan is carried out all the same."""
    hook = (
        "import fcntl\n"
        "from fleet.host import helper\n"
        "real = helper.Channel.stop_blocking\n"
        "def full(self):\n"
        "    real(self)\n"
        "    fcntl.fcntl(1, 1031, 4096)\n"
        "    helper._PATIENCE = 0.1\n"
        "helper.Channel.stop_blocking = full\n"
        "from fleet.host.transactions import apply\n"
        "say = apply._say\n"
        "def verbose(pipe, words):\n"
        "    say(pipe, {**words, 'padding': 'x' * 5000} if words['event'] == 'change' else words)\n"
        "apply._say = verbose\n"
    )
    helper, digest = armed(host, extra=hook)
    helper.send("apply", transaction="tx1")
    until(lambda: host.status()["state"] == "APPLIED")
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"


def test_a_helper_that_ends_before_it_applies_frees_the_host(host: Hypervisor) -> None:
    """The armed helper's end is noticed at once, not at the deadline."""
    helper, _ = armed(host, deadline=60.0)
    helper.close()
    assert host.wait_for_outcome(seconds=3.0)["state"] == "REVERTED"


def test_a_second_controller_is_refused(host: Hypervisor) -> None:
    """While a transaction is open nobody else arms; the refusal names owner, age and time left."""
    _, digest = applied(host, deadline=20.0)
    with pytest.raises(HelperFailed) as failed:
        armed(host, name="tx2", state=STATE)
    assert failed.value.code == "locked"
    assert "ops@desk" in failed.value.message
    assert "tx1" in failed.value.message
    assert "s left" in failed.value.message
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"


def test_an_operator_reverts(host: Hypervisor) -> None:
    """The op revert puts the host back before anybody confirms; afterwards confirm is refused."""
    before = host.kernel()
    _, digest = applied(host, deadline=30.0)
    assert host.helper().call("revert", transaction="tx1")["state"] == "REVERTED"
    assert host.kernel() == before
    with pytest.raises(HelperFailed, match="REVERTED already"):
        confirm(host.confirming(), digest)


def test_what_is_confirmed_is_not_reverted(host: Hypervisor) -> None:
    """After the commit point there is only forward."""
    _, digest = applied(host)
    confirm(host.confirming(), digest)
    with pytest.raises(HelperFailed) as failed:
        host.helper().call("revert", transaction="tx1")
    assert failed.value.code == "refused"
    assert addresses(host, "br0") == ["198.18.0.5"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"plan": "0" * 64}, "digest"),
        ({"name": "tx9"}, "no transaction tx9"),
        ({"address": "198.18.0.6"}, "arrived at"),
    ],
)
def test_a_forged_confirm_is_refused(host: Hypervisor, fields: dict[str, Any], why: str) -> None:
    """Without nonce, digest, name and address of this transaction nothing is confirmed."""
    _, digest = applied(host, deadline=10.0)
    with pytest.raises(HelperFailed, match=why) as failed:
        confirm(host.confirming(), fields.pop("plan", digest), **fields)
    assert failed.value.code == "refused"
    assert host.status()["state"] == "APPLIED"


def test_an_old_connection_proves_nothing(host: Hypervisor) -> None:
    """A connection from before APPLIED, one to another address, or none at all is refused."""
    began = host.boottime()
    _, digest = applied(host, deadline=10.0)
    with pytest.raises(HelperFailed, match="before APPLIED"):
        confirm(host.confirming(began), digest)
    with pytest.raises(HelperFailed, match="none of the declared"):
        confirm(host.confirming(address="198.18.0.7"), digest, address="")
    with pytest.raises(HelperFailed, match="sshd"):
        confirm(host.helper(), digest)
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"


def test_a_confirm_is_used_once(host: Hypervisor) -> None:
    """The same confirm again is refused, on the same host at any later time."""
    _, digest = applied(host)
    confirm(host.confirming(), digest)
    with pytest.raises(HelperFailed, match="COMMITTED already"):
        confirm(host.confirming(), digest)


def test_a_late_confirm_is_refused(host: Hypervisor) -> None:
    """After the deadline nothing is confirmed any more, whatever the watchdogs are doing."""
    _, digest = applied(host, deadline=1.5)
    for pid in host.watchdogs():
        os.kill(pid, signal.SIGSTOP)
    deadline = host.status()["deadline"]
    until(lambda: host.boottime() > deadline)
    with pytest.raises(HelperFailed, match="deadline has passed"):
        confirm(host.confirming(), digest)
    for pid in host.watchdogs():
        os.kill(pid, signal.SIGCONT)
    assert host.wait_for_outcome()["state"] == "REVERTED"


def test_every_management_address_confirms(host: Hypervisor) -> None:
    """With two declared addresses the first confirm waits for the second, and counts once."""
    host.ip("address add 198.18.0.9/24 dev cable0")
    management = {"addresses": ["198.18.0.5", "198.18.0.9"]}
    state = {**STATE, "management": management}
    _, digest = applied(host, state=state, management=management)
    first = confirm(host.confirming(), digest)
    assert (first["state"], first["waiting"]) == ("APPLIED", ["198.18.0.9"])
    with pytest.raises(HelperFailed, match="confirmed already"):
        confirm(host.confirming(), digest)
    second = confirm(host.confirming(address="198.18.0.9"), digest, address="198.18.0.9")
    assert second["state"] == "COMMITTED"


def test_a_probe_that_passed_must_pass_again(host: Hypervisor) -> None:
    """A TCP target that answered before arming and is gone now keeps the confirm from counting."""
    host.ip("address add 198.18.7.1/32 dev lo")
    listener = (
        "import socket, time; s = socket.create_server(('198.18.7.1', 7777));"
        "print('up', flush=True); time.sleep(600)"
    )
    import subprocess

    server = subprocess.Popen(
        [*host.inside, "python3", "-S", "-c", listener], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    probes = {"gateway": False, "targets": ["198.18.7.1:7777", "198.18.7.1:7778"]}
    _, digest = applied(host, state={**STATE, "probes": probes}, deadline=20.0)
    server.kill()
    server.wait()
    server.stdout.close()
    with pytest.raises(HelperFailed, match=r"198\.18\.7\.1:7777") as failed:
        confirm(host.confirming(), digest)
    assert "7778" not in failed.value.message
    host.ip("link set cable0 down")
    with pytest.raises(HelperFailed, match="link"):
        confirm(host.confirming(), digest)
    assert host.status()["state"] == "APPLIED"


def test_a_bridge_without_ports_may_lose_its_carrier(host: Hypervisor) -> None:
    """The last port of a bridge goes by the plan: that its carrier goes with it is no failure."""
    host.ip("link add p5 type veth peer name q5")
    host.ip("link set q5 up")
    host.ip("link set p5 up")
    ports = {"kind": "bridge", "name": "br5", "spec": {"interfaces": ["p5"]}}
    state = {**STATE, "resources": [*STATE["resources"], ports]}
    _, digest = applied(host, deadline=20.0, state=state)
    assert confirm(host.confirming(), digest)["state"] == "COMMITTED"
    until(lambda: "LOWER_UP" in host.ip("link show br5"))
    state["resources"][-1] = {**ports, "spec": {"interfaces": []}}
    _, digest = applied(host, deadline=20.0, name="tx2", state=state)
    until(lambda: "NO-CARRIER" in host.ip("link show br5"))  # the kernel tells it up to 1 s later
    assert confirm(host.confirming(), digest, "tx2")["state"] == "COMMITTED"


def test_the_managers_files_are_renamed_by_the_commit_only(host: Hypervisor) -> None:
    """The text for netplan is staged beside its target, mode 0600, and appears with the commit."""
    folder = host.root / "etc/systemd/network"
    if not folder.exists():
        pytest.skip("no /etc/systemd/network here")
    host.sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/etc/systemd/network")
    path = "/etc/systemd/network/10-fleet.network"
    state = {**STATE, "manager": {"files": {path: "[Match]\nName=eth0\n"}}}
    _, digest = applied(host, state=state)
    assert not (folder / "10-fleet.network").exists()
    assert [name.suffix for name in folder.iterdir()] == [".fleet-staged"]
    confirm(host.confirming(), digest)
    assert (folder / "10-fleet.network").read_text() == "[Match]\nName=eth0\n"
    assert [name.name for name in folder.iterdir()] == ["10-fleet.network"]


def test_no_file_elsewhere_is_written(host: Hypervisor) -> None:
    """A path outside the manager's directories is refused before anything is prepared."""
    for path in ("/etc/passwd", "/etc/netplan/../passwd", "/etc/netplan/.x", "etc/netplan/a.yaml"):
        with pytest.raises(HelperFailed, match="manager"):
            armed(host, state={**STATE, "manager": {"files": {path: "x"}}})
    assert host.status() == {}


def test_no_room_is_refused_before_the_change(host: Hypervisor) -> None:
    """A full disk refuses the transaction and changes nothing."""
    with hypervisor(size="4500k") as small:
        before = small.kernel()
        helper = small.helper("from fleet.host import preflight\npreflight.SPACE = 0\n")
        digest = helper.call("plan", state=STATE)["plan"]["digest"]
        small.sh("dd", "if=/dev/zero", "of=/var/lib/fill", "bs=4k", check=False)
        with pytest.raises(HelperFailed) as failed:
            helper.call(
                "arm", transaction="tx1", plan_digest=digest, nonce_hash="0" * 64, owner="x"
            )
        assert failed.value.code == "refused"
        assert os.strerror(errno.ENOSPC) in failed.value.message
        assert small.kernel() == before
        with pytest.raises(HelperFailed, match="free"):
            small.helper().call(
                "arm", transaction="tx1", plan_digest=digest, nonce_hash="0" * 64, state=STATE
            )


def test_a_revert_needs_no_room(host: Hypervisor) -> None:
    """With every file system full from APPLIED on, the host is put back all the same."""
    before = host.kernel()
    applied(host, deadline=2.0)
    for directory in ("/var/lib", "/run"):
        host.sh("dd", "if=/dev/zero", f"of={directory}/fill", "bs=4k", check=False)
    until(lambda: host.kernel() == before, 5.0)
    host.sh("rm", "/run/fill", "/var/lib/fill")
    assert host.status()["state"] == "REVERTED"


def test_a_watchdog_that_cannot_start_refuses(host: Hypervisor) -> None:
    """No timer, no change: where a watchdog does not answer, nothing is armed."""
    before = host.kernel()
    hook = (
        "from fleet.host.transactions import watchdog\n"
        "def gone(*ignored): os._exit(1)\n"
        "watchdog._prepare_process = gone\n"
    )
    with pytest.raises(HelperFailed, match="cannot arm") as failed:
        armed(host, extra=hook)
    assert failed.value.code == "refused"
    assert host.kernel() == before
    assert host.status()["state"] == "ABANDONED"
    helper, digest = applied(host, name="tx2")
    assert confirm(host.confirming(), digest, name="tx2")["state"] == "COMMITTED"
    helper.close()


def test_planted_links_are_not_followed(host: Hypervisor) -> None:
    """A symlink in place of fleet's directory is refused, by name, and stays untouched."""
    host.sh("ln", "-s", "/etc", "/var/lib/fleet")
    with pytest.raises(HelperFailed) as failed:
        armed(host)
    assert failed.value.code in ("preflight", "refused", "failed")
    assert "var/lib/fleet" in str(failed.value)
