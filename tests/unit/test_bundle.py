"""Archives: the same bytes for the same sources, and nothing in them that a host does not need."""

from __future__ import annotations

import ast
import bz2
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from fleet.helper import bootstrap, bundle


def unpacked(archive: bundle.Archive) -> dict[str, str]:
    """Return an archive's sources by module."""
    found: dict[str, str] = json.loads(bz2.decompress(archive.data))
    return found


def test_an_archive_is_named_by_its_content() -> None:
    """Its name is the SHA-256 of what its bytes decompress to."""
    for archive in (bundle.helper_archive(), bundle.pyroute2_archive()):
        assert archive.name == hashlib.sha256(bz2.decompress(archive.data)).hexdigest()


def test_the_same_sources_give_the_same_bytes() -> None:
    """In another process, with another hash seed, the archive is the same; order is nothing."""
    program = (
        "from fleet.helper import bundle\n"
        "print(bundle.helper_archive().name, bundle.pyroute2_archive().name)"
    )
    names = {
        subprocess.check_output(
            [sys.executable, "-c", program],
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        for seed in ("1", "2")
    }
    assert names == {f"{bundle.helper_archive().name} {bundle.pyroute2_archive().name}\n"}
    one, other = bundle.pack({"a": "1", "b": "2"}), bundle.pack({"b": "2", "a": "1"})
    assert (one.name, one.data) == (other.name, other.data)


def test_one_changed_byte_is_another_archive(tmp_path: Path) -> None:
    """A source root of one's own is packed, and every byte of it counts."""
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "__init__.py").write_text("")
    first = bundle.helper_archive(tmp_path)
    bundle.helper_archive.cache_clear()
    (tmp_path / "helper.py").write_text("x = 2\n")
    second = bundle.helper_archive(tmp_path)
    bundle.helper_archive.cache_clear()
    assert first.name != second.name
    assert set(unpacked(first)) == {"", ".", "fleet.", "fleet.host.", "fleet.host.helper"}


def test_the_helper_carries_all_of_the_host_but_the_controllers_types() -> None:
    """Every module of fleet/host is there, save what only the controller uses."""
    found = set(unpacked(bundle.helper_archive()))
    here = {
        "fleet.host." + ".".join(path.relative_to(bundle.HOST).with_suffix("").parts)
        for path in bundle.HOST.rglob("*.py")
    }
    here = {name.removesuffix("__init__") if name.endswith("__init__") else name for name in here}
    assert here - found == set(bundle.LEFT_OUT)
    assert found - here == {"", ".", "fleet."}


def test_nothing_left_out_is_imported_at_run_time() -> None:
    """What is left out is imported only for type checkers and on the controller."""
    modules = unpacked(bundle.helper_archive())
    modules.pop(".")
    for name, text in modules.items():
        for node in runtime_nodes(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert not names & set(bundle.LEFT_OUT), name


def runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes but those that only a type checker or the controller comes to."""
    found, rest = [], [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.If) and {"TYPE_CHECKING", "ON_HOST"} & names_in(node.test):
            rest += node.orelse
            continue
        found.append(node)
        rest += ast.iter_child_nodes(node)
    return found


def names_in(node: ast.AST) -> set[str]:
    """Return the plain names in an expression."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def test_pyroute2s_own_init_is_left_out() -> None:
    """It would import all of pyroute2; an empty one serves."""
    found = unpacked(bundle.pyroute2_archive())
    assert found["pyroute2."] == ""
    assert "pyroute2.iproute.linux" in found
    assert len(found) < 150


def test_programs_are_python_39_and_leave_no_word_open() -> None:
    """What is run by a host's Python parses for the oldest, and every placeholder is filled."""
    library = bundle.pyroute2_archive()
    for text in (
        bootstrap.run_text("a" * 64, "b" * 64),
        bootstrap.take_text("a" * 64, 10, library.kind),
        bootstrap.LOADER,
    ):
        ast.parse(text, feature_version=(3, 9))
        assert "$" not in text
        assert text.isascii()
