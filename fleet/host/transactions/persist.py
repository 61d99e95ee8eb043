"""Files that must outlive the transaction: staged before it arms, renamed when it is confirmed.

Staging next to the target proves that there is room, that the directory is writable and root's,
and leaves for the commit nothing but renames, which need no space. What each target was before is
in the journal's directory first, so the rename can be taken back even after a power cut.
"""

from __future__ import annotations

import errno
import os
import stat

from fleet.host import wire
from fleet.host.transactions import crash, files
from fleet.host.transactions.lasting import SYSCTL as SYSCTL
from fleet.host.transactions.lasting import is_private_enough, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fleet.host.transactions.files import Paths


def stage(
    paths: Paths,
    directory: str,
    wanted: dict[str, tuple[str | None, int]],
    record: Callable[[list[Any]], dict[str, tuple[str | None, int]]] | None = None,
) -> list[Any]:
    """Stage every file and record what its target is now; return the entries, sealed on the disk.

    ``wanted`` maps a path (without the root) to its new text and mode; text None removes the
    file. ``record`` returns more of them, made of the entries. Raises OSError where there is no
    room or a directory is not root's alone to write.
    """
    entries = _entries(paths, directory, wanted)
    if record is not None:
        more = record(entries)
        wanted = {**wanted, **more}
        entries += _entries(paths, directory, more)
    files.create(f"{directory}/undo", files.seal(wire.dumps(entries)))
    for entry in entries:
        text, mode = wanted[entry["path"]]
        _check_folder(f"{paths.root}{entry['path']}")
        if text is not None:
            staged = f"{paths.root}{entry['staged']}"
            files.remove(staged)
            files.create(staged, text.encode("utf-8", "surrogatepass"), mode)
    return entries


def _entries(
    paths: Paths, directory: str, wanted: dict[str, tuple[str | None, int]]
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for path in sorted(wanted):
        text, mode = wanted[path]
        before = _look(f"{paths.root}{path}")
        if _same(before, text, mode):
            continue
        entries.append(
            {
                "path": path,
                "before": before,
                "mode": mode,
                "staged": _staged(path, directory),
                "after": None if text is None else files.sha256(text),
            }
        )
    return entries


def _staged(path: str, directory: str) -> str:
    folder, _, name = path.rpartition("/")
    # No manager reads it: it is hidden, and ends in neither .conf nor .yaml.
    return f"{folder}/.{name}.{os.path.basename(directory)}.fleet-staged"


def _check_folder(target: str) -> None:
    folder = os.path.dirname(target)
    os.makedirs(folder, 0o755, exist_ok=True)
    status = os.stat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(errno.EPERM, "others than root may write into this directory", folder)


def _look(target: str) -> dict[str, Any] | None:
    """What a target is: its text and owner, or where it points; None where there is nothing."""
    found = look(target)
    if found == {}:
        raise OSError(errno.EPERM, "not a regular file", target)
    return found


def _same(before: dict[str, Any] | None, text: str | None, mode: int) -> bool:
    if before is None or text is None:
        return before is None and text is None
    return before.get("text") == text and is_private_enough(before, mode)


def load(directory: str) -> list[Any]:
    """Return the entries of a transaction's undo record.

    Raises FileNotFoundError where none was written yet, ValueError where it is damaged.
    """
    entries = wire.loads(files.unseal(files.read(f"{directory}/undo")))
    assert isinstance(entries, list)
    return entries


def carry_out(paths: Paths, entries: list[Any]) -> None:
    """Rename every staged file into place; again after a crash, and without any space."""
    for index, entry in enumerate(entries):
        crash.point(f"persist.file.{index}.before")
        target = f"{paths.root}{entry['path']}"
        if entry["after"] is None:
            files.remove(target)
        else:
            try:
                os.rename(f"{paths.root}{entry['staged']}", target)
            except FileNotFoundError:
                if not _is_after(target, entry):
                    raise
        files.sync_directory(os.path.dirname(target))
        crash.point(f"persist.file.{index}.after")


def _is_after(target: str, entry: dict[str, Any]) -> bool:
    found = _look(target)
    if found is None or entry["after"] is None:
        return found is None and entry["after"] is None
    return "text" in found and files.sha256(found["text"]) == entry["after"]


def take_back(paths: Paths, entries: list[Any]) -> list[str]:
    """Put back what was renamed and drop what was staged; return what could not be put back.

    A file that is neither as it was nor as fleet wrote it was changed by someone else, and stays.
    """
    left = []
    for entry in entries:
        target = f"{paths.root}{entry['path']}"
        try:
            files.remove(f"{paths.root}{entry['staged']}")
            if _look(target) == entry["before"]:
                continue
            if not _is_after(target, entry):
                left.append(f"{target}: changed by someone else, left as it is")
                continue
            _put(target, entry["before"])
        except OSError as error:
            left.append(f"{target}: {error.strerror}")
    return left


def _put(target: str, before: dict[str, Any] | None) -> None:
    if before is None:
        files.remove(target)
        return
    staged = f"{target}.fleet-before"
    files.remove(staged)
    if "link" in before:
        os.symlink(before["link"], staged)
    else:
        text = before["text"].encode("utf-8", "surrogateescape")
        files.create(staged, text, before["mode"])
        os.chown(staged, before["uid"], before["gid"])
    os.rename(staged, target)
    files.sync_directory(os.path.dirname(target))


def drop_staged(paths: Paths, entries: list[Any]) -> None:
    """Remove what was staged for a transaction that never armed."""
    for entry in entries:
        files.remove(f"{paths.root}{entry['staged']}")
