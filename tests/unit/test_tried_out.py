"""The manager tries files out under /run: what goes there, what it says, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.host.transactions import files, manager, recover, units
from fleet.host.transactions.lasting import GENERATORS

NETWORKD, NETPLAN = "/etc/systemd/network/05-fleet-", "/etc/netplan/90-fleet.yaml"


class Networkd:
    """A host on which systemd runs, and a networkd that configures as its files say."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.ran: list[list[str]] = []
        self.announced: list[int] = []
        self.states: dict[str, str] = {}
        self.route: Any = self
        (root / "run/systemd/system").mkdir(parents=True)

    def link(self, verb: str, index: int, group: int) -> None:
        """Take note of a device that is announced."""
        assert (verb, group) == ("set", 0)
        self.announced.append(index)

    def run(self, argv: list[str], **_: Any) -> Any:
        """Take note of a program; a reload makes the states of the links."""
        self.ran.append(argv)
        if argv[0] == "networkctl":
            for index, (name, state) in enumerate(self.states.items(), 1):
                self._say(index, name, state)

        class Done:
            code, err = 0, ""

        return Done

    def _say(self, index: int, name: str, state: str) -> None:
        root = Path(self.root)
        (root / "run/systemd/netif/links").mkdir(parents=True, exist_ok=True)
        folder = root / "sys/class/net" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ifindex").write_text(f"{index}\n")
        (folder / "netdev_group").write_text("0\n")
        found = [
            f"{place}/{file}"
            for place in ("run", "etc")
            for file in (f"04-fleet-{name}.network", f"05-fleet-{name}.network", "20-site.network")
            if (root / place / "systemd/network" / file).exists()
        ]
        path = f"/{found[0].replace('/', '/systemd/network/', 1)}" if found else ""
        admin, _, oper = state.partition(" ")
        (root / "run/systemd/netif/links" / str(index)).write_text(
            f"ADMIN_STATE={admin}\nOPER_STATE={oper or 'routable'}\nNETWORK_FILE={path}\n"
        )


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Networkd:
    monkeypatch.setattr(manager, "STILL", 0.0)
    monkeypatch.setattr(manager, "BUDGET", 0.3)
    (tmp_path / "sys/class/net").mkdir(parents=True)
    return Networkd(tmp_path)


class Open:
    """As much of a transaction as the manager looks at."""

    def __init__(self, host: Networkd) -> None:
        self.paths = files.Paths(host.root)
        self.live = f"{self.paths.run}/tx1"
        files.make_private(self.paths.run)
        files.make_private(self.live)


def entry(host: Networkd, path: str, text: str | None) -> dict[str, Any]:
    """Return a staged file of a transaction."""
    staged = f"{path}.staged"
    target = Path(host.root + staged)
    target.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        target.write_text(text)
    return {"path": path, "staged": staged, "after": text and files.sha256(text)}


def tried(host: Networkd) -> list[str]:
    """Return the files under /run that the manager reads."""
    return sorted(manager.look(host.root))


def try_out(host: Networkd, *entries: dict[str, Any]) -> list[dict[str, str]]:
    transaction: Any = Open(host)
    system: Any = host
    manager.remember(transaction.live, host.root, system, list(entries))
    assert manager.remembered(transaction) is not None
    return manager.try_out(transaction, system, list(entries), lambda: None)


def test_files_go_before_those_of_etc_and_are_read(host: Networkd) -> None:
    """A tried file has a name of its own, for one of /etc goes before one of /run that has the
    same; networkd reads it, and hears of its devices again."""
    host.states = {"br0": "configured"}
    problems = try_out(
        host,
        entry(host, f"{NETWORKD}br0.netdev", "[NetDev]\nName=br0\nKind=bridge\n"),
        entry(host, f"{NETWORKD}br0.network", "[Match]\nName=br0\n"),
        entry(host, "/var/lib/fleet/state.json", "{}"),
    )
    assert problems == []
    assert tried(host) == [
        "/run/systemd/network/04-fleet-br0.netdev",
        "/run/systemd/network/04-fleet-br0.network",
    ]
    assert ["networkctl", "reload"] in host.ran
    assert host.announced == [1]


def test_what_the_manager_makes_of_it_is_a_problem(host: Networkd) -> None:
    """Another file that goes first, a failure, a link that is not through: each is told; a link
    without a carrier is not waited for."""
    site = Path(host.root) / "run/systemd/network/20-site.network"
    site.parent.mkdir(parents=True)
    site.write_text("")
    host.states = {"eth0": "failed", "eth1": "configuring", "eth2": "configuring no-carrier"}
    entries = [
        entry(host, f"{NETWORKD}{name}.network", f"[Match]\nName={name}\n")
        for name in ("eth0", "eth1", "eth2")
    ]
    problems = {each["resource"]: each["actual"] for each in try_out(host, *entries)}
    assert set(problems) == {"link eth0", "link eth1"}
    assert "failed" in problems["link eth0"]
    found = {"eth3": {"NETWORK_FILE": "/etc/x.network", "ADMIN_STATE": "configured"}}
    (words,) = manager._left(found, {"eth3": "/run/systemd/network/04-fleet-eth3.network"})
    assert words == "eth3: configured by /etc/x.network, which goes before fleet's"


def test_a_file_that_goes_is_hidden(host: Networkd) -> None:
    """A device that is intended no more is left as it is; netplan's file is hidden by its name."""
    generator = Path(host.root + GENERATORS[0])
    generator.parent.mkdir(parents=True)
    generator.write_text("")
    generator.chmod(0o755)
    assert try_out(
        host,
        entry(host, f"{NETWORKD}eth9.network", None),
        entry(host, f"{NETWORKD}br9.netdev", None),
        entry(host, NETPLAN, None),
    ) == []  # fmt: skip
    found = manager.look(host.root)
    assert sorted(found) == [
        "/run/netplan/90-fleet.yaml",
        "/run/systemd/network/04-fleet-eth9.network",
    ]
    assert "Unmanaged=yes" in found["/run/systemd/network/04-fleet-eth9.network"][0]
    assert found["/run/netplan/90-fleet.yaml"][0].endswith("network: {}\n")
    assert [GENERATORS[0], "--root-dir", host.root] in host.ran


def test_the_way_back_is_what_was_there(host: Networkd) -> None:
    """Files under /run are as they were, others' too, and networkd has read them; where nothing
    had been tried it is left in peace."""
    other = Path(host.root) / "run/systemd/network/10-netplan-eth0.network"
    other.parent.mkdir(parents=True)
    other.write_text("before")
    system: Any = host
    before = manager.look(host.root)
    assert manager.take_back(system, host.root, before) == []
    assert host.ran == []
    try_out(host, entry(host, f"{NETWORKD}br0.network", "[Match]\nName=br0\n"))
    other.write_text("netplan has made it anew")
    host.ran.clear()
    assert manager.take_back(system, host.root, before) == []
    assert manager.look(host.root) == before
    assert host.ran == [["networkctl", "reload"]]


def test_a_commit_leaves_nothing_under_run(host: Networkd) -> None:
    """What was tried out goes once it is in /etc."""
    entries = [entry(host, f"{NETWORKD}br0.network", "[Match]\nName=br0\n")]
    try_out(host, *entries)
    manager.drop(host.root, entries)
    assert tried(host) == []


def test_without_a_running_manager_nothing_is_tried(tmp_path: Path) -> None:
    """Where systemd is not PID 1, as in a namespace lab, nothing is kept for a way back."""
    system: Any = None
    entries = [{"path": NETPLAN}]
    manager.remember(str(tmp_path), str(tmp_path), system, entries)
    assert list(tmp_path.iterdir()) == []


def test_another_version_of_the_helper_settles_by_its_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that another version armed is settled by the copy that it staged."""
    archive = tmp_path / "fleet-old.pyz"
    archive.write_text("")
    ran: list[list[str]] = []

    class Host:
        def run(self, argv: list[str], **_: Any) -> None:
            ran.append(argv)

    class Armed:
        facts = {"archive": str(archive)}
        paths, name, terminal = files.Paths(str(tmp_path)), "tx1", False

        def read(self) -> None:
            pass

    monkeypatch.setattr(recover, "settle", lambda *_, **__: {"state": "REVERTED"})
    transaction: Any = Armed()
    system: Any = Host()
    assert recover.settle_as_armed(transaction, system, "why") == {"state": "REVERTED"}
    assert ran == [[units.PYTHON, "-I", "-S", "-B", str(archive), "recover", "tx1", "why"]]
    monkeypatch.setattr(units, "own_archive", lambda _: str(archive))
    recover.settle_as_armed(transaction, system, "why")
    assert len(ran) == 1
