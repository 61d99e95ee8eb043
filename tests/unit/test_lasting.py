"""What differs in the files that the next boot reads, on a host that is a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.host import wire
from fleet.host.change import Change, Plan
from fleet.host.planning import ledger
from fleet.host.spec import encode
from fleet.host.state import State, decode_state
from fleet.host.transactions import files
from fleet.host.transactions.lasting import GENERATORS, STATE, SYSCTL, sysctl_text, with_files

NETPLAN = "/etc/netplan/90-fleet.yaml"
TEXT = "# Written by fleet; the next commit replaces it.\nnetwork:\n  version: 2\n"
WORDS: dict[str, Any] = {
    "host": "kvm1",
    "resources": [{"kind": "sysctl", "name": "net.ipv4.ip_forward", "spec": {"value": "1"}}],
}


@pytest.fixture
def host(tmp_path: Path) -> files.Paths:
    """A host on which WORDS and TEXT are committed."""
    state = decode_state(WORDS)
    put(tmp_path, NETPLAN, TEXT, 0o600)
    put(tmp_path, SYSCTL, sysctl_text(state.resources) or "", 0o644)
    put(tmp_path, f"/var/lib/fleet/{STATE}", files.seal(wire.dumps(WORDS)).decode(), 0o600)
    put(tmp_path, GENERATORS[0], "", 0o755)
    return files.Paths(str(tmp_path))


def put(root: Path, path: str, text: str, mode: int) -> Path:
    """Write a file of the host."""
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def entries() -> dict[str, ledger.Entry]:
    """The ledger of WORDS."""
    found = [ledger.Entry(**each) for each in WORDS["resources"]]
    return {entry.key: entry for entry in found}


def looked_at(
    host: files.Paths,
    state: State | None = None,
    manager: dict[str, str] | None = None,
    plan: Plan | None = None,
) -> Plan:
    wanted = {"files": {NETPLAN: TEXT} if manager is None else manager}
    return with_files(plan or Plan(), host, state or decode_state(WORDS), wanted, entries())


def said(plan: Plan) -> list[tuple[str, str, str]]:
    assert {(change.kind, change.impact) for change in plan.changes} <= {("file", "none")}
    return [(change.action, change.name, change.what) for change in plan.changes]


def test_what_is_as_committed_changes_nothing(host: files.Paths) -> None:
    """Where files are as they should be the plan is the very same."""
    plan = Plan(digest="x")
    assert looked_at(host, plan=plan) is plan


def test_each_way_a_file_can_differ(host: files.Paths) -> None:
    """Missing, edited, in another order, too open, a link: each is one change that says so."""
    target = Path(host.root + NETPLAN)
    target.unlink()
    assert said(looked_at(host)) == [("create", NETPLAN, "")]
    put(Path(host.root), NETPLAN, TEXT + "  ethernets: {}\n", 0o600)
    (change,) = looked_at(host).changes
    assert (change.what, change.before, change.after) == ("text", ["ethernets: {}"], [])
    put(Path(host.root), NETPLAN, "".join(reversed(TEXT.splitlines(True))), 0o600)
    (change,) = looked_at(host).changes
    assert change.before == ["the same lines in another order"]
    put(Path(host.root), NETPLAN, TEXT, 0o644)
    (change,) = looked_at(host).changes
    assert (change.what, change.before, change.after) == ("mode", "0644 root", "0600 root")
    target.unlink()
    target.symlink_to("/etc/passwd")
    assert said(looked_at(host)) == [("update", NETPLAN, "type")]


def test_the_digest_is_of_the_whole_text(host: files.Paths) -> None:
    """Two edits that show the same first lines are two plans: what was reviewed is what runs."""
    many = "".join(f"# line {number}\n" for number in range(50))
    put(Path(host.root), NETPLAN, TEXT + many, 0o600)
    one = looked_at(host)
    put(Path(host.root), NETPLAN, TEXT + many + "# one more\n", 0o600)
    other = looked_at(host)
    assert one.changes == other.changes
    assert one.digest != other.digest
    assert looked_at(host, manager={NETPLAN: TEXT + "x"}).digest not in (one.digest, other.digest)


def test_a_file_goes_with_its_manager_and_nobody_elses_does(host: files.Paths) -> None:
    """Where no file is wanted fleet's own is deleted; one that is only named like it stays."""
    put(Path(host.root), "/etc/netplan/90-fleet-of-trucks.yaml", "network: {}\n", 0o600)
    put(Path(host.root), "/etc/systemd/network/90-fleet.network", "# Written by fleet\n", 0o644)
    assert said(looked_at(host, manager={})) == [
        ("delete", NETPLAN, ""),
        ("delete", "/etc/systemd/network/90-fleet.network", ""),
    ]


def test_sysctls_file_is_the_committed_keys(host: files.Paths) -> None:
    """sysctl.d's file must exist and match; it goes with the last key."""
    Path(host.root + SYSCTL).write_text("net.ipv4.ip_forward = 0\n")
    assert said(looked_at(host)) == [("update", SYSCTL, "text")]
    none = looked_at(host, decode_state({**WORDS, "resources": []}))
    assert said(none) == [("delete", SYSCTL, "")]


def test_what_the_sites_own_files_say_needs_no_file(host: files.Paths) -> None:
    """Where the site's files bring every key at boot, fleet has none to miss."""
    site = put(Path(host.root), "/etc/sysctl.d/30-site.conf", "net.ipv4.ip_forward=1\n", 0o644)
    assert said(looked_at(host)) == []
    Path(host.root + SYSCTL).unlink()
    assert said(looked_at(host)) == []
    site.unlink()
    assert said(looked_at(host)) == [("create", SYSCTL, "")]


def test_the_committed_state_counts_where_nothing_else_changes(host: files.Paths) -> None:
    """A state that is missing, damaged or another is drift; a commit of anything writes it anew."""
    link = {"kind": "ethernet", "name": "eth0", "spec": {"mtu": 1400}}
    other = decode_state({**WORDS, "resources": [*WORDS["resources"], link]})
    name = f"/var/lib/fleet/{STATE}"
    (change,) = looked_at(host, other).changes
    assert (change.name, change.what) == (name, "resources")
    assert change.after == ["ethernet/eth0, as intended now"]
    kernel = Plan((Change(kind="ethernet", name="eth0", what="mtu", before=1500, after=1400),), "x")
    assert looked_at(host, other, plan=kernel) is kernel
    Path(host.root + name).write_text("fleet-sealed-1 0\n{}")
    assert said(looked_at(host)) == [("update", name, "text")]
    Path(host.root + name).unlink()
    assert said(looked_at(host)) == [("create", name, "")]


def test_boot_units_are_missed_where_systemd_runs(host: files.Paths) -> None:
    """On a host that systemd has booted, the units that bring the state back have to be there."""
    (Path(host.root) / "run/systemd/system").mkdir(parents=True)
    assert [name.rpartition("/")[2] for _, name, _ in said(looked_at(host))] == [
        "fleet-recover.service", "fleet-recover-ovs.service", "fleet-recover-libvirt.service",
        "fleet-apply-early.service", "fleet-apply-switch.service", "fleet-apply.service",
        "fleet-prove.service",
    ]  # fmt: skip


def test_a_host_without_netplan_cannot_have_its_file(host: files.Paths) -> None:
    """The plan has a problem that names what to install."""
    Path(host.root + GENERATORS[0]).unlink()
    (problem,) = looked_at(host).problems
    assert "netplan.io" in problem.remedy
    assert looked_at(host).digest
    assert looked_at(host, manager={}).problems == ()


def test_no_other_file_is_written(host: files.Paths) -> None:
    """A path outside the manager's directories is refused."""
    for path in ("/etc/passwd", "/etc/netplan/../passwd", "/etc/netplan/.x", "/etc/netplan/a/b"):
        with pytest.raises(ValueError, match="manager"):
            looked_at(host, manager={path: "x"})


def test_changes_survive_the_wire(host: files.Paths) -> None:
    """A plan with file changes is plain data."""
    Path(host.root + NETPLAN).unlink()
    assert wire.loads(wire.dumps(encode(looked_at(host))))["changes"][0]["kind"] == "file"
