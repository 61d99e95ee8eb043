"""Modules that a library imports at its start and fleet hardly ever needs."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """Stands for a module until something is asked of it.

    importlib's LazyLoader loads at the next ``import`` of the name already, before Python 3.12.
    """

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)


def defer(name: str) -> None:
    """Let a module be loaded when it is first used; does nothing where it is loaded already.

    Nornir imports ruamel.yaml (70 ms) for configuration files and inventories that fleet reads
    itself.
    """
    if name in sys.modules or importlib.util.find_spec(name) is None:
        return
    module = Deferred(name)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
