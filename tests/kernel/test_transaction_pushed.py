"""The helper as it is on a real host: pushed as an archive and compiled there."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypervisor import NONCE, STATE, Hypervisor, applied, confirm, hypervisor, until

from fleet.helper import bootstrap, bundle

pytestmark = pytest.mark.kernel


def push(host: Hypervisor, archive: bundle.Archive) -> None:
    program = bootstrap.take_text(archive.name, len(archive.data))
    done = subprocess.run(
        [*host.inside, "python3", "-I", "-S", "-c", program],
        input=archive.data,
        capture_output=True,
        timeout=60,
    )
    assert b'"taken"' in done.stdout, done


def talk(process: subprocess.Popen[str], **words: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"id": 1, **words}) + "\n")
    process.stdin.flush()
    while True:
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        if "event" not in answer:
            assert answer["ok"], answer
            return answer


@contextmanager
def pushed(host: Hypervisor) -> Iterator[subprocess.Popen[str]]:
    """A helper that runs from the pushed archives alone, with the plan of STATE applied."""
    helper, library = bundle.helper_archive(), bundle.pyroute2_archive()
    host.sh("mkdir", "-m", "700", "/var/lib/fleet")
    for archive in (helper, library):
        push(host, archive)
    run = bootstrap.run_text(helper.name, library.name)
    process = subprocess.Popen(
        [*host.inside, "python3", "-I", "-S", "-c", run],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert "ready" in process.stdout.readline()
        digest = talk(process, op="plan", state=STATE)["plan"]["digest"]
        talk(
            process,
            op="arm",
            transaction="tx1",
            plan_digest=digest,
            deadline=1,
            nonce_hash=hashlib.sha256(NONCE.encode()).hexdigest(),
            owner="ops@desk",
        )
        assert talk(process, op="apply", transaction="tx1")["applied"] is True
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_what_is_staged_of_a_pushed_helper_takes_back() -> None:
    """With the pushed archives gone, the staged copy of their sources reverts."""
    with hypervisor() as host:
        before = host.kernel()
        with pushed(host):
            assert host.kernel() != before
            (staged,) = (host.root / "var/lib/fleet/boot").iterdir()
            host.sh("rm", "-r", "/var/lib/fleet/helper")
            program = f"python3 -I -S -B /var/lib/fleet/boot/{staged.name} recover tx1 2>&1"
            assert '"state":"REVERTED"' in host.sh("sh", "-c", program)
            assert host.kernel() == before


def test_the_watchdog_of_a_pushed_helper_needs_no_disk() -> None:
    """The loader reads code when it is imported; the watchdog has imported all of it."""
    with hypervisor() as host:
        before = host.kernel()
        with pushed(host) as process:
            host.sh("mount", "-t", "tmpfs", "none", "/var/lib/fleet")
            host.sh("mount", "-t", "tmpfs", "none", "/usr/lib/python3.11")
            process.kill()
            # Helper and all: the deadline is the shortest there is, about six seconds.
            until(lambda: host.kernel() == before, 15.0)
            assert host.wait_for_outcome()["state"] == "REVERTED"


def test_the_committed_state_is_applied_again_at_boot() -> None:
    """After a boot the unit's program brings back what no network manager keeps."""
    with hypervisor() as host:
        for archive in (bundle.helper_archive(), bundle.pyroute2_archive()):
            if not (host.root / "var/lib/fleet").exists():
                host.sh("mkdir", "-m", "700", "/var/lib/fleet")
            push(host, archive)
        _, digest = applied(host)
        confirm(host.confirming(), digest)
        # As after a boot: no bridge, the address back on the NIC, the key at its default.
        host.sh("sysctl", "-qw", "net.ipv4.ip_forward=0")
        host.ip("link del br0")
        host.ip("address add 198.18.0.5/24 dev eth0")
        (staged,) = (host.root / "var/lib/fleet/boot").iterdir()
        for phase in ("early", "late"):
            archive_path = f"/var/lib/fleet/boot/{staged.name}"
            host.sh("python3", "-I", "-S", "-B", archive_path, "boot", phase)
        assert host.sh("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
        assert "198.18.0.5/24" in host.ip("-4 address show dev br0")
        assert host.helper().call("audit", state=STATE)["plan"]["changes"] == []
