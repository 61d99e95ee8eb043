"""What an inventory's files become when running hosts are taken into it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.adopt import Adopted, Words, beyond, merged, only_new, shared, text_of
from fleet.intent import Project, intent_of
from fleet.intent.insert import insert
from fleet.intent.tree import plain

HOSTS, GROUPS = Path("inventory/hosts.yaml"), Path("inventory/groups.yaml")


class Draft:
    """The files as they would be: ``files`` by their path in the project, only those that change.

    ``refused`` holds (file, block, reason) for what a person has to put in.
    """

    def __init__(
        self, project: Project, found: Mapping[str, Adopted], groups: Sequence[str]
    ) -> None:
        """``groups`` are those that take what all of their hosts share; each is asked whole."""
        self.project = project
        self.files: dict[Path, str] = {}
        self.refused: list[tuple[Path, str, str]] = []
        own, up = placed(project, found, groups)
        for path, parts in ((GROUPS, up), (HOSTS, own)):
            wanted = {name: {"data": part} for name, part in parts.items() if part}
            if wanted:
                self._put(path, wanted)

    def _put(self, path: Path, wanted: dict[str, Words]) -> None:
        old = self._old(path)
        new, refused = insert(old, wanted, text_of)
        for name, reason in refused.items():
            self.refused.append((path, text_of({name: wanted[name]}), f"{name}: {reason}"))
        if new != old:
            self.files[path] = new

    def _old(self, path: Path) -> str:
        file = self.project.path / path
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def diff(self) -> str:
        """Return the unified diff of all files."""
        lines: list[str] = []
        for path, text in self.files.items():
            old = self._old(path).splitlines(keepends=True)
            new = text.splitlines(keepends=True)
            lines += difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def write(self) -> None:
        """Replace the files, each as one step; raises OSError."""
        for path, text in self.files.items():
            file = self.project.path / path
            staged = file.with_name(f".{file.name}.{os.getpid()}")
            staged.write_text(text, encoding="utf-8")
            if file.exists():
                staged.chmod(file.stat().st_mode & 0o7777)
            staged.replace(file)


def placed(
    project: Project, found: Mapping[str, Adopted], groups: Sequence[str]
) -> tuple[dict[str, Words], dict[str, Words]]:
    """Return what is added to each host's data, and what to each group's.

    Only what goes beyond the inventory is added. A group takes what all its hosts say alike and
    the inventory says nothing of; what contradicts the inventory stands with the host.
    """
    new: dict[str, Words] = {}
    other: dict[str, Words] = {}
    for host, each in found.items():
        base: Any = plain(intent_of(project, host))
        new[host], other[host] = only_new(beyond(each.intent, base), base)
    up: dict[str, Words] = {}
    taken: set[str] = set()
    for group in groups:
        everyone = {n for n, h in project.inventory.hosts.items() if h.has_parent_group(group)}
        if len(everyone) < 2 or not everyone <= set(new) or everyone & taken:
            continue
        up[group] = shared([new[host] for host in sorted(everyone)])
        for host in everyone:
            new[host] = beyond(new[host], up[group])
        taken |= everyone
    return {host: merged(new[host], other[host]) for host in new}, up
