"""A fleet project: a directory with inventory/, templates/ and tasks/."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fleet.errors import IntentError, UsageError
from fleet.intent.convert import joined
from fleet.intent.source import Source, nearest
from fleet.intent.tree import Mapping, Scalar, Sequence, find, leaves, path_text, plain

if TYPE_CHECKING:
    from nornir.core.inventory import Inventory

    from fleet.intent.assemble import Assembler
    from fleet.intent.settings import Settings
    from fleet.render import Renderer
    from fleet.state import State

STARTER = Path(__file__).parents[1] / "_starter"


class Revision(NamedTuple):
    """The inventory's place in git's history; ``commit`` is empty where it is in none."""

    commit: str
    dirty: bool = False

    def __str__(self) -> str:
        if not self.commit:
            return "not in git"
        return f"{self.commit}-dirty" if self.dirty else self.commit


class Explained(NamedTuple):
    """One value of a host's intent and where it is written."""

    path: str
    value: object
    file: str
    line: int


class Project:
    """A project as loaded; what is made from it is made when asked for and kept."""

    def __init__(self, path: Path, source: Source) -> None:
        self.path, self.source = path, source

    @functools.cached_property
    def inventory(self) -> Inventory:
        """Nornir's inventory."""
        from fleet.intent.inventory import nornir_inventory

        return nornir_inventory(self.source)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The ``fleet:`` settings that all hosts share, as the defaults write them."""
        data = self.source.defaults.get("data")
        node = data.get("fleet") if isinstance(data, Mapping) else None
        found = plain(node) if node is not None else {}
        return found if isinstance(found, dict) else {}

    @property
    def template_folders(self) -> list[Path]:
        """Where templates are looked up: the project, then what fleet carries."""
        return [self.path / "templates", STARTER / "templates"]

    @property
    def task_folders(self) -> list[Path]:
        """Where tasks are looked up: the project, then what fleet carries."""
        return [self.path / "tasks", STARTER / "tasks"]

    @functools.cached_property
    def tasks(self) -> frozenset[str]:
        """The names of all tasks; none is loaded."""
        return frozenset(
            file.stem
            for folder in self.task_folders
            for file in folder.glob("*.py")
            if not file.stem.startswith("_")
        )

    @functools.cached_property
    def renderer(self) -> Renderer:
        """Jinja2 over the project's templates."""
        from fleet.render import Renderer

        return Renderer(self.template_folders)

    @functools.cached_property
    def revision(self) -> Revision:
        """The git revision of the inventory."""
        folder = self.path / "inventory"
        commit = _git(folder, "rev-parse", "HEAD")
        if not commit:
            return Revision("")
        return Revision(commit, bool(_git(folder, "status", "--porcelain", "--", ".")))

    @functools.cached_property
    def assembler(self) -> Assembler:
        """Makes the states, and remembers what hosts share."""
        from fleet.intent.assemble import Assembler

        return Assembler(self.renderer)


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def load_project(path: Path | str = ".") -> Project:
    """Load a project; raises InventoryError or IntentError with file and line."""
    root = Path(path)
    folder = root / "inventory"
    if not folder.is_dir():
        raise UsageError(f"{root} is not a fleet project: it has no inventory/ directory")
    hosts, groups, defaults = (folder / f"{name}.yaml" for name in ("hosts", "groups", "defaults"))
    return Project(root, Source(hosts, groups, defaults, root))


def intent_of(project: Project, host: str) -> Mapping:
    """Return a host's merged data, fleet's sections rendered, every value with its place."""
    source = project.source
    if host not in source.hosts:
        near = nearest(host, source.hosts)
        meant = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"there is no host {host!r}{meant}")
    about = {
        "name": host,
        "hostname": source.connection(host, "hostname") or host,
        "groups": list(source.groups_of(host)),
    }
    try:
        return project.assembler.render(source.data(host), about)
    except IntentError as error:
        raise _of_host(error, host) from None


def render_state(project: Project, host: str) -> State:
    """Return the state of a host; raises one IntentError that carries all that is wrong."""
    data = intent_of(project, host)
    hostname = str(project.source.connection(host, "hostname") or host)
    try:
        errors = list(_unknown_tasks(data, project.tasks))
        if errors:
            raise joined(errors)
        return project.assembler.state(host, hostname, data)
    except IntentError as error:
        raise _of_host(error, host) from None


def settings_of(project: Project, host: str) -> Settings:
    """Return the ``fleet:`` settings of a host, validated."""
    try:
        return project.assembler.settings(intent_of(project, host))
    except IntentError as error:
        raise _of_host(error, host) from None


def explain(project: Project, host: str) -> list[Explained]:
    """Return every value of a host's intent with the file and line it comes from."""
    return [
        Explained(path_text(path), plain(node), node.place.file, node.place.line)
        for path, node in leaves(intent_of(project, host))
    ]


def validate(project: Project, hosts: Iterable[str] | None = None) -> list[IntentError]:
    """Return what is wrong with the intent of some hosts or all, each error once.

    An error that many hosts have, for it is in their group, names the first of them.
    """
    errors: dict[str, IntentError] = {}
    for host in project.source.hosts if hosts is None else hosts:
        try:
            render_state(project, host)
        except IntentError as error:
            for each in (error, *error.others):
                each.others = ()
                errors.setdefault(str(each), each)
    return list(errors.values())


def manager_file(project: Project, host: str) -> str:
    """Return the netplan file that a commit puts on a host, empty where there is none."""
    return "".join(render_state(project, host).files.values())


def _unknown_tasks(data: Mapping, tasks: frozenset[str]) -> Iterator[IntentError]:
    """Yield an error for each gate and drain task that is named and that nobody wrote.

    A rollout would find out between arming a host and confirming it.
    """
    for path in (("gates",), ("drain",), ("rollout", "fleet-gates")):
        where = ("fleet", *path)
        node, found = find(data, where)
        for item in node.items if isinstance(node, Sequence) else [node]:
            if found != where or not isinstance(item, Scalar) or item.null or item.text in tasks:
                continue
            # What can be no task's name at all, the settings refuse.
            if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", item.text):
                yield IntentError(
                    f"there is no task {item.text!r} in tasks/",
                    item.place,
                    path_text(where),
                    nearest=nearest(item.text, tasks),
                )


def _of_host(error: IntentError, host: str) -> IntentError:
    for each in (error, *error.others):
        each.host = host
    return error
