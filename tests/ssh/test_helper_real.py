"""The helper on a real host: pushed, compiled there, checked, run, over a real sshd."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from server import Host

from fleet.errors import HelperError, ProtocolError
from fleet.helper import bootstrap, bundle
from fleet.helper.session import HelperSession, push

PYTHONS = Path("/root/.pyenv/versions")
STATE = {
    "host": "kvm1",
    "management": {"addresses": ["127.0.0.1"]},
    "resources": [{"kind": "ethernet", "name": "lo", "spec": {}}],
}
#: What an audit may cost a host: the bytes of compiled code it reads.
AUDIT_BYTES = 320 << 10
FORBIDDEN = {
    "os", "__future__", "typing", "dataclasses", "json", "re", "socket", "subprocess",
    "collections", "enum", "functools", "logging", "asyncio", "ctypes", "hashlib", "tempfile",
    "bz2", "pathlib", "pyroute2", "zlib", "zipimport", "traceback", "site",
}  # fmt: skip


def ask(host: Host, op: str = "hello", username: str = "root", **fields: Any) -> dict[str, Any]:
    """Connect, ask one thing, and close."""
    extras = fields.pop("extras", {})

    async def main() -> dict[str, Any]:
        plugin = host.connection(username, **extras)
        try:
            session = await HelperSession.open(plugin)
            answer = await session.call(op, **fields)
            await session.close()
            return answer
        finally:
            await plugin.aclose()

    return asyncio.run(main())


def code_file(host: Host) -> Path:
    """Return what the host compiled of the helper."""
    (found,) = host.path(folder()).glob("code-*")
    return found


def folder() -> str:
    return f"{bootstrap.FOLDER}/{bundle.helper_archive().name}"


def start(host: Host, *flags: str, ask: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the bootstrap as sshd would, without it."""
    text = bootstrap.run_text(bundle.helper_archive().name, bundle.pyroute2_archive().name)
    argv = [
        "nsenter",
        "-t",
        str(host.pid),
        "-m",
        "/usr/bin/python3",
        *flags,
        "-I",
        "-S",
        "-c",
        text,
    ]
    return subprocess.run(argv, input=ask, capture_output=True, timeout=30)


def test_the_helper_is_pushed_once(host: Host) -> None:
    """The first run brings the helper to a host that lacks it; the second finds it there."""
    first = ask(host)
    assert first["root"] is True
    assert first["hash"] == bundle.helper_archive().name
    source = host.path(f"{folder()}/source")
    before = [source.stat().st_mtime_ns, code_file(host).stat().st_mtime_ns]
    assert ask(host)["hash"] == first["hash"]
    assert [source.stat().st_mtime_ns, code_file(host).stat().st_mtime_ns] == before


def test_what_lies_on_the_host_is_roots_alone(host: Host) -> None:
    """Directories are 0700, files 0600, all of root."""
    ask(host)
    for line in host.sh("find /var/lib/fleet -printf '%y %m %u\\n'").splitlines():
        assert line in ("d 700 root", "f 600 root")


def test_an_audit_writes_nothing(host: Host) -> None:
    """Once the helper is there, looking at a host leaves no trace on it."""
    ask(host, "audit", state=STATE)
    listing = "find /var/lib /run /home -printf '%p %T@ %C@ %s\\n' | sort"
    before = host.sh(listing)
    assert ask(host, "audit", state=STATE)["plan"]["changes"] == []
    assert host.sh(listing) == before


def test_pyroute2_comes_only_with_a_change(host: Host) -> None:
    """An audit and a plan push one archive; arming pushes the second before it begins."""
    ask(host, "audit", state=STATE)
    assert len(list(host.path(bootstrap.FOLDER).iterdir())) == 1
    with pytest.raises(HelperError):
        ask(host, "arm", state=STATE, transaction="tx1", plan_digest="stale")
    found = {path.name for path in host.path(bootstrap.FOLDER).iterdir()}
    assert found == {bundle.helper_archive().name, bundle.pyroute2_archive().name}


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_python_compiles_and_runs_it(host: Host, version: str) -> None:
    """A host's own Python runs the helper, whichever it is from 3.9 on, and an audit with it."""
    found = sorted(PYTHONS.glob(f"{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} under {PYTHONS}")
    extras = {"python": str(found[-1])}
    assert ask(host, extras=extras)["python"].startswith(f"{version}.")
    assert ask(host, "audit", state=STATE, extras=extras)["plan"]["changes"] == []
    text = bootstrap.run_text(bundle.helper_archive().name, bundle.pyroute2_archive().name)
    push_here(host, bundle.pyroute2_archive(), str(found[-1]))
    library = text.replace(
        "exec(h[3],", "h=(*h[:3],compile('exec(LOADER)','','exec'),*h[4:]);exec(h[3],"
    ).replace("'name':", f"'LOADER':{LIBRARY!r},'name':")
    argv = ["nsenter", "-t", str(host.pid), "-m", str(found[-1]), "-I", "-S", "-c", library]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.stdout == "IPRoute\n", done.stderr


#: The loader as it is, but for what it runs.
LIBRARY = (
    bootstrap.LOADER.partition("from fleet.host import helper")[0]
    + "from pyroute2.iproute.linux import IPRoute\nprint(IPRoute.__name__)\n"
)


def push_here(host: Host, archive: bundle.Archive, python: str = "/usr/bin/python3") -> None:
    """Push an archive without ssh."""
    text = bootstrap.take_text(archive.name, len(archive.data), archive.kind)
    argv = ["nsenter", "-t", str(host.pid), "-m", python, "-I", "-S", "-c", text]
    done = subprocess.run(argv, input=archive.data, capture_output=True, timeout=30)
    assert json.loads(done.stdout.splitlines()[-1]) == {"fleet": "taken"}, done


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_an_old_python_is_refused_by_name(host: Host, version: str) -> None:
    """A host whose Python is older than 3.9 says which it has; nothing is written there."""
    found = sorted(PYTHONS.glob(f"{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} under {PYTHONS}")
    with pytest.raises(
        HelperError, match=rf"Python 3\.9 or later, found: Python {version}"
    ) as info:
        ask(host, extras={"python": str(found[-1])})
    assert info.value.code == "preflight"
    assert not host.path("/var/lib/fleet").exists()


# What keeps a host from running it


def refused(host: Host, match: str, **options: Any) -> HelperError:
    """Ask, and return the preflight error."""
    with pytest.raises(HelperError, match=match) as info:
        ask(host, **options)
    assert info.value.code == "preflight"
    assert info.value.problems[0].remedy
    return info.value


def test_a_host_without_python_says_so(host: Host) -> None:
    """No python3 is one clear refusal with a remedy."""
    refused(host, "expected python3, found: .*nowhere", extras={"python": "/nowhere/python3"})


def test_sudo_runs_the_helper_for_another_login(host: Host) -> None:
    """A login that sudo lets without a password runs the helper as root."""
    if not shutil.which("sudo"):
        pytest.skip("no sudo here")
    assert ask(host, username="operator")["root"] is True


def test_a_sudo_that_asks_is_refused(host: Host) -> None:
    """sudo -n that would ask for a password is a refusal that says what to do; nothing is left."""
    if not shutil.which("sudo"):
        pytest.skip("no sudo here")
    refused(host, "expected sudo without a password", username="stranger")
    assert not host.path("/var/lib/fleet").exists()


def test_a_host_without_sudo_says_so(host: Host) -> None:
    """No sudo for a login that is not root's is a refusal too."""
    host.sh("mount --bind /dev/null /usr/bin/sudo" if shutil.which("sudo") else ":")
    try:
        refused(host, "sudo", username="stranger")
    finally:
        host.sh("umount /usr/bin/sudo" if shutil.which("sudo") else ":")


def test_a_full_disk_is_refused(host: Host) -> None:
    """Where the helper does not fit the host says so, and the next run on a freed disk works."""
    host.sh("mkdir -m 700 /var/lib/fleet; mount -t tmpfs -o size=64k,mode=700 tmpfs /var/lib/fleet")
    try:
        refused(host, r"expected space under /var/lib/fleet, found: .*No space left")
    finally:
        host.sh("umount /var/lib/fleet")
    assert ask(host)["root"] is True


@pytest.mark.parametrize(
    "plant",
    [
        "mkdir /tmp/elsewhere.$$; ln -s /tmp/elsewhere.$$ /var/lib/fleet",
        "mkdir -m 755 /var/lib/fleet",
        "mkdir -m 700 /var/lib/fleet; chown stranger /var/lib/fleet",
        "echo > /var/lib/fleet",
    ],
    ids=["symlink", "readable", "foreign", "file"],
)
def test_a_folder_that_is_not_roots_alone_is_refused(host: Host, plant: str) -> None:
    """Nothing is put where somebody else may write or has planted something."""
    host.sh(plant)
    refused(host, "/var/lib/fleet is not a directory of root alone|/var/lib/fleet")
    assert not host.path(bootstrap.FOLDER).exists()


def test_a_login_shell_that_talks_is_told_apart(host: Host) -> None:
    """What a shell's start-up file prints is named as such, its control characters escaped."""
    host.sh("printf 'printf \"hello\\\\033[2J\\\\n\"' > /home/.bashrc")
    try:
        with pytest.raises(ProtocolError, match=r"hello\\\\+x1b\[2J.*login shell must print"):
            ask(host)
    finally:
        host.sh("rm /home/.bashrc")


# Tampered with


def test_flipped_bits_do_not_run(host: Host) -> None:
    """Wherever a bit of the compiled file flips, what runs is what was pushed, or nothing does."""
    ask(host)
    whole = code_file(host).read_bytes()
    head = 40 + int.from_bytes(whole[32:40], "big")
    request = json.dumps({"id": 1, "op": "audit", "state": STATE}).encode() + b"\n"
    places = [0, 31, 32, 39, 40, head - 1, head, len(whole) - 1]
    for place in [*places, *range(50, len(whole), len(whole) // 8)]:
        path = code_file(host)
        path.write_bytes(flipped(whole, place))
        first, *rest = [json.loads(line) for line in start(host, ask=request).stdout.splitlines()]
        assert (first == {"fleet": "miss"}) == (place < head), place
        assert [answer["ok"] for answer in rest] == ([] if place < head else [True])
        path.write_bytes(whole)
        path.chmod(0o600)


def flipped(data: bytes, place: int) -> bytes:
    """Return data with one bit turned."""
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("place", [45, -1])
def test_a_flipped_bit_is_put_right(host: Host, place: int) -> None:
    """A host whose compiled file is damaged answers, and has a good one again."""
    ask(host)
    whole = code_file(host).read_bytes()
    bad = flipped(whole, place % len(whole))
    code_file(host).write_bytes(bad)
    assert ask(host, "audit", state=STATE)["ok"]
    push_here(host, bundle.helper_archive())
    assert code_file(host).read_bytes() != bad
    assert ask(host, "audit", state=STATE)["ok"]


def test_a_flipped_source_is_pushed_again(host: Host) -> None:
    """Source that is not what its name says is never compiled: it is sent anew."""
    ask(host)
    source = host.path(f"{folder()}/source")
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 4
    source.write_bytes(data)
    code_file(host).unlink()
    assert ask(host)["root"] is True
    assert source.read_bytes() == bundle.helper_archive().data


@pytest.mark.parametrize(
    "plant",
    [
        "mv $F /var/lib/fleet/x; ln -s /var/lib/fleet/x $F",
        "ln $F /var/lib/fleet/x",
        "chown stranger $F",
        "chmod 644 $F",
        "chmod u+s $F",
        "rm $F; mkdir $F",
        "rm $F; mkfifo $F",
    ],
)
def test_a_planted_file_is_not_run(host: Host, plant: str) -> None:
    """A code file that is a link, has a second name, another owner or mode counts as missing."""
    ask(host)
    host.sh(f"F=$(echo {folder()}/code-*); {plant}")
    done = start(host)
    assert json.loads(done.stdout) == {"fleet": "miss"}
    assert done.stderr == b""


def test_a_tampered_archive_is_not_taken(host: Host) -> None:
    """What arrives otherwise than announced is refused."""
    archive = bundle.Archive(b"{}", "0" * 64)

    async def main() -> None:
        plugin = host.connection()
        try:
            await push(plugin, archive)
        finally:
            await plugin.aclose()

    with pytest.raises(HelperError, match="what came is not what was announced"):
        asyncio.run(main())
    assert not host.path(f"{bootstrap.FOLDER}/{'0' * 64}/source").exists()


# What stays


def test_old_archives_go_but_those_a_journal_needs(host: Host) -> None:
    """Two versions of each kind stay, and any that an unsettled transaction names."""
    versions = [bundle.pack({"": "", "fleet.": f"# {number}"}) for number in range(6)]
    library = bundle.pack({"pyroute2.": ""}, "pyroute2")
    push_here(host, library)
    for number, archive in enumerate(versions):
        push_here(host, archive)
        os.utime(host.path(f"{bootstrap.FOLDER}/{archive.name}"), (number, number))
        if number == 0:
            journal = "/var/lib/fleet/journal/tx1"
            host.sh(f"mkdir -p {journal}; echo {archive.name} > {journal}/log")
    kept = {path.name for path in host.path(bootstrap.FOLDER).iterdir()}
    assert kept == {library.name, versions[0].name, versions[4].name, versions[5].name}
    host.sh("touch /var/lib/fleet/journal/tx1/outcome")
    push_here(host, bundle.helper_archive())
    kept = {path.name for path in host.path(bootstrap.FOLDER).iterdir()}
    assert kept == {library.name, versions[5].name, bundle.helper_archive().name}


# What it costs


def test_an_audit_imports_what_it_needs(host: Host) -> None:
    """From the host's first instruction to the reply no module is loaded that applying needs, and
    the compiled code that is read stays small."""
    ask(host)
    request = json.dumps({"id": 1, "op": "audit", "state": STATE}).encode() + b"\n"
    done = start(host, "-X", "importtime", ask=request)
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is True
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert loaded & FORBIDDEN - {"zipimport"} == set()
    ours = {name for name in loaded if name.partition(".")[0] == "fleet"}
    assert ours == {"fleet.host.kinds.ethernet"}  # the rest comes at once, as the core
    size = sum(length for name, length in compiled(host).items() if name in {"", *ours})
    assert size < AUDIT_BYTES


def compiled(host: Host) -> dict[str, int]:
    """Return the modules in the host's compiled file and their sizes, by that host's Python; the
    core goes by the empty name."""
    program = (
        "import json, marshal, sys; data = open(sys.argv[1], 'rb').read()\n"
        "_, index, core = marshal.loads(data[40:])\n"
        "sizes = {name: place[1] for name, place in index.items()}\n"
        "print(json.dumps({'': len(marshal.dumps(core)), **sizes}))"
    )
    argv = ["/usr/bin/python3", "-c", program, str(code_file(host))]
    found: dict[str, int] = json.loads(subprocess.check_output(argv))
    return found


def test_archives_stay_small() -> None:
    """What is pushed to every host, and what goes to those that change, has a limit."""
    assert len(bundle.helper_archive().data) < 256 << 10
    assert len(bundle.pyroute2_archive().data) < 192 << 10
    text = bootstrap.run_text(bundle.helper_archive().name, bundle.pyroute2_archive().name)
    assert len(text) < 1400
