"""Nornir as fleet sets it up, and the loading of a project's tasks."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fleet.errors import UsageError

if TYPE_CHECKING:
    import asyncio

    from nornir.core import Nornir
    from nornir.core.inventory import Inventory

STARTER = Path(__file__).parent / "_starter" / "tasks"
PREFIX = "fleet_tasks_"


class Tasks:
    """A project's Nornir tasks by name: ``tasks.push``; the project's own before the starter's.

    A task is the function of a module's name. All modules share one synthetic package whose path
    is the project's ``tasks/`` and then the starter's, so ``from .push import push`` inside a
    starter task gives the project's push where it has one.
    """

    def __init__(self, path: Path) -> None:
        self.folders = [path / "tasks", STARTER]
        # Two projects in one process must not see each other's modules.
        self.package = PREFIX + "".join(c if c.isalnum() else "_" for c in str(path.resolve()))
        package = ModuleType(self.package, "A project's tasks, then the starter's.")
        package.__path__ = [str(folder) for folder in self.folders if folder.is_dir()]
        for name in [name for name in sys.modules if name.startswith(f"{self.package}.")]:
            del sys.modules[name]
        sys.modules[self.package] = package
        importlib.invalidate_caches()

    def names(self) -> list[str]:
        """Return the names of all tasks, each a module with a function of its name."""
        found = {path.stem for folder in self.folders for path in folder.glob("*.py")}
        return sorted(name for name in found if not name.startswith("_"))

    def find(self, name: str) -> Callable[..., Any]:
        """Return a task's function; raises UsageError with the nearest name."""
        if name not in self.names():
            near, all_names = get_close_matches(name, self.names(), 1, 0.5), ", ".join(self.names())
            hint = f"; did you mean {near[0]}?" if near else f"; there are {all_names}"
            raise UsageError(f"there is no task {name!r}{hint}")
        try:
            module = importlib.import_module(f"{self.package}.{name}")
        except Exception as error:
            # An operator's file: whatever is wrong with it is hers to know, with its place.
            raise UsageError(f"the task {name} cannot be loaded: {_place(error)}") from error
        function = getattr(module, name, None)
        if not callable(function):
            raise UsageError(f"{module.__file__} has no function {name}, which is its file's name")
        found: Callable[..., Any] = function
        return found

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.find(name)


def _place(error: Exception) -> str:
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "importlib" not in file and file != __file__:
            place = f"{file}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{place}{type(error).__name__}: {error}"


def load_tasks(path: Path) -> Tasks:
    """Return the tasks of the project at ``path``; modules are imported when first used."""
    return Tasks(Path(path))


def nornir_of(
    inventory: Inventory,
    concurrency: int = 100,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Nornir:
    """Return a Nornir over an inventory that is loaded already, on the loop of the caller.

    It is what InitNornir makes of the plugins ``fleet`` and ``asyncio``, without reading the files
    a second time. Nornir's own logging stays off: it writes task arguments into a file that
    everybody may read.
    """
    from nornir.core import Nornir
    from nornir.core.configuration import Config, LoggingConfig
    from nornir.core.plugins.connections import ConnectionPluginRegister

    from fleet.ssh.connection import AsyncSSH
    from fleet.ssh.runner import AsyncioRunner

    quieten()
    ConnectionPluginRegister.register("asyncssh", AsyncSSH)
    return Nornir(
        inventory=inventory,
        config=Config(logging=LoggingConfig(enabled=False)),
        runner=AsyncioRunner(num_workers=concurrency, loop=loop),
    )


def quieten() -> None:
    """Keep Nornir's tracebacks of failed tasks off stderr; the outcomes say what failed."""
    logger = logging.getLogger("nornir")
    if not logger.handlers:
        # Without a handler Python's last resort prints errors to stderr.
        logger.addHandler(logging.NullHandler())
    logger.propagate = False


def init_nornir(path: Path, **options: Any) -> Nornir:
    """Return a Nornir over a fleet project for a script of one's own; options are InitNornir's."""
    from nornir import InitNornir

    quieten()
    files = {
        f"{name}_file": str(Path(path) / "inventory" / f"{plural}.yaml")
        for name, plural in (("host", "hosts"), ("group", "groups"), ("defaults", "defaults"))
    }
    settings: dict[str, Any] = {
        "inventory": {"plugin": "fleet", "options": files},
        "runner": {"plugin": "asyncio"},
        "logging": {"enabled": False},
    }
    return InitNornir(**{**settings, **options})
