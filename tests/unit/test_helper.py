"""The helper as a program: its protocol, its limits, and what an audit may import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fleet.host
from fleet.helper import bundle
from fleet.host import helper, wire
from fleet.host.transactions import rehearsal

#: The packages of the host's code, whose modules are imported by name.
PACKAGES = {
    "fleet.host",
    *(
        f"fleet.host.{path.parent.name}"
        for path in Path(fleet.host.__path__[0]).glob("*/__init__.py")
    ),
}
REPOSITORY = str(Path(fleet.host.__path__[0]).parents[1])
FORBIDDEN = {
    "os",
    "typing",
    "dataclasses",
    "json",
    "re",
    "socket",
    "subprocess",
    "collections",
    "enum",
    "functools",
    "logging",
    "asyncio",
    "ctypes",
    "hashlib",
    "tempfile",
    "pathlib",
    "pyroute2",
}
STATE = {
    "host": "kvm1",
    "resources": [{"kind": "sysctl", "name": "kernel.ostype", "spec": {"value": "Linux"}}],
}


def talk(lines: list[Any], end: str = "") -> tuple[list[Any], str, int]:
    """Run the helper as a host does, without site-packages; return answers, stderr, exit code."""
    program = (
        f"import sys; sys.path.insert(0, {REPOSITORY!r})\n"
        f"from fleet.host.helper import main\ncode = main('hash')\n{end}\nsys.exit(code)"
    )
    given = b"".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], input=given, capture_output=True, timeout=30
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return answers, done.stderr.decode(), done.returncode


def test_an_audit_imports_nothing_that_applying_needs() -> None:
    """From start to reply an audit loads none of the modules that cost a host its milliseconds."""
    asks = [{"id": 1, "op": "audit", "state": STATE}, {"id": 2, "op": "plan"}]
    answers, errors, code = talk(asks, "sys.stderr.write(' '.join(sys.modules))")
    assert [answer["ok"] for answer in answers] == [True, True], answers
    assert code == 0
    assert set(errors.split()) & FORBIDDEN == set()
    core = {name.rstrip(".") for name in bundle.CORE}
    assert core <= set(errors.split()), "the core of the archive has only what every audit runs"


def test_hello_says_what_the_host_is() -> None:
    """hello answers with python, hash, root, boot id, tools and what is missing."""
    answers, _, _ = talk([{"id": "a", "op": "hello"}])
    (answer,) = answers
    assert answer["id"] == "a"
    assert answer["hash"] == "hash"
    assert answer["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert answer["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage\n", "failed"),
        (b"\xff\xfe\n", "failed"),
        (b"[]\n", "failed"),
        (b'{"op": "nonsense"}\n', "failed"),
        (b'{"op": ["plan"]}\n', "failed"),
        (b'{"op": "plan", "state": 3}\n', "failed"),
        (b'{"op": "plan", "state": {"nonsense": 1}}\n', "failed"),
        (b'{"op": "plan"}\n', "failed"),
        (b'{"op": "apply", "transaction": "x"}\n', "refused"),
        (b'{"op": "arm", "transaction": "../x", "state": {}}\n', "refused"),
        (b'{"op": "confirm", "transaction": "/etc"}\n', "refused"),
        (b'{"op": "plan", "state": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "failed"),
        (b'{"op": "plan", "state": ' + b"[" * 40 + b"]" * 40 + b"}\n", "failed"),
    ],
    ids=range(13),
)
def test_a_wrong_request_is_answered(line: bytes, code: str) -> None:
    """Whatever comes, there is one answer with a code, no traceback in it, and the next works."""
    answers, _, exit_code = talk([line, {"id": 2, "op": "status"}])
    assert [answer["ok"] for answer in answers] == [False, True]
    assert answers[0]["error"]["code"] == code
    assert "Traceback" not in json.dumps(answers)
    assert exit_code == 0


def test_a_fault_of_ours_is_told_in_short() -> None:
    """An unforeseen error is `internal` with a sentence; the traceback goes to stderr."""
    patch = "from fleet.host import protocol\nprotocol.OPERATIONS['status'] = lambda *a: 1 / 0\n"
    program = (
        f"import sys; sys.path.insert(0, {REPOSITORY!r})\n{patch}"
        "from fleet.host.helper import main\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        input=b'{"id":1,"op":"status"}\n',
        capture_output=True,
        timeout=30,
    )
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert answer["error"]["code"] == "internal"
    assert "division" in answer["error"]["message"]
    assert b"Traceback" in done.stderr


def test_a_request_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the cap is refused instead of filling the host's memory."""
    import os

    monkeypatch.setattr(helper, "LONGEST", 1000)
    read, write = os.pipe()
    os.write(write, b"x" * 4000)
    channel = helper.Channel(read, write)
    with pytest.raises(helper.TooLong):
        channel.receive()
    os.close(read)
    os.close(write)


def test_depth_is_capped() -> None:
    """A state's own depth passes, a deeper one does not."""
    fine = wire.dumps({"state": {"resources": [{"spec": {"ports": {"eth0": {"cost": 1}}}}]}})
    assert helper.parse(fine.encode())["state"]
    with pytest.raises(ValueError, match="nested"):
        helper.parse(("[" * 34 + "]" * 34).encode())


def test_a_watchdog_knows_all_imports_of_the_way_back() -> None:
    """What restore and its parts import inside functions is loaded before anything is armed."""
    late = set()
    for path in Path(fleet.host.__path__[0]).rglob("*.py"):
        if path.stem.startswith(
            ("restore", "raw", "snapshot", "differences", "persist", "bridge_timers")
        ):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    late |= _imports(function)
    assert late - {"typing", "collections.abc"} <= {
        *rehearsal.NEEDED,
        *rehearsal.PROGRAMS,
        *rehearsal.SETTINGS,
        *rehearsal.FUNCTIONS,
        *rehearsal.MOUNTS,
        "fleet.host.reverting.restore_values",
        *rehearsal.SWITCHES,
        *rehearsal.NETWORKS,
    }


def _imports(function: ast.FunctionDef) -> set[str]:
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module in PACKAGES
            named = {f"{node.module}.{each.name}" for each in node.names}
            found |= named if whole else {node.module}
    return found
