"""What is pushed to hosts: archives of sources, named by their content.

Two archives: ``helper`` is fleet's own host code; ``pyroute2`` is the part of pyroute2 that
applying needs, pushed to a host when it first has something to change. An archive is JSON of
``{module: source}``, a package's name ending in a dot, the loader's empty; what ``"."`` stands for
are the names of the core. It is named by the
SHA-256 of that text, whatever library compresses it for the way.
"""

from __future__ import annotations

import bz2
import hashlib
import importlib.util
import json
from functools import cache, cached_property
from pathlib import Path

from fleet.helper.bootstrap import LOADER

HOST = Path(__file__).resolve().parent.parent / "host"
#: Field types are the controller's alone: a host never evaluates an annotation.
LEFT_OUT = ("fleet.host.fields", "fleet.host.machine_fields", "fleet.host.kind")
#: What every audit runs, each after what it imports; see bootstrap.
CORE = (
    "fleet.", "fleet.host.", "fleet.host.kernel.", "fleet.host.links.", "fleet.host.planning.",
    "fleet.host.transactions.", "fleet.host.kinds.",
    "fleet.host.wire", "fleet.host.kernel.netlink", "fleet.host.kernel.system", "fleet.host.spec",
    "fleet.host.registry", "fleet.host.change", "fleet.host.planning.ledger", "fleet.host.refusal",
    "fleet.host.state", "fleet.host.planning.digest", "fleet.host.transactions.files",
    "fleet.host.protocol", "fleet.host.helper", "fleet.host.pattern", "fleet.host.kernel.ip",
    "fleet.host.links.link", "fleet.host.links.address", "fleet.host.links.route",
    "fleet.host.links.steps", "fleet.host.links.link_diff", "fleet.host.planning.draft",
    "fleet.host.planning.conflict", "fleet.host.planning.inside", "fleet.host.planning.plan",
    "fleet.host.transactions.lasting", "fleet.host.kernel.link_attributes",
    "fleet.host.kernel.route_attributes", "fleet.host.kernel.observation",
)  # fmt: skip
#: What ``pyroute2.iproute.linux`` imports, as files and folders of pyroute2.
PYROUTE2 = (
    "common.py", "config", "iproute", "netlink/__init__.py", "netlink/core.py",
    "netlink/coredata.py", "netlink/exceptions.py", "netlink/marshal.py", "netlink/nlsocket.py",
    "netlink/rt_files.py", "netlink/rtnl", "netns", "process", "process.py",
    "protocols", "protocols.py", "requests", "statsd.py", "statsd",
)  # fmt: skip


class Archive:
    """Sources to push, the name they go by (the SHA-256 of their text, in hex), and their kind."""

    def __init__(self, text: bytes, name: str = "", kind: str = "helper") -> None:
        self.text, self.kind = text, kind
        self.name = name or hashlib.sha256(text).hexdigest()

    @cached_property
    def data(self) -> bytes:
        """The bytes to push: compressed only when a host lacks them, for it takes a while."""
        return bz2.compress(self.text)


def pack(modules: dict[str, str], kind: str = "helper") -> Archive:
    """Return an archive of sources by module; the same sources have the same name."""
    core = " ".join(name for name in CORE if name in modules)
    text = json.dumps({"": LOADER, ".": core, **modules}, sort_keys=True, separators=(",", ":"))
    return Archive(text.encode(), kind=kind)


def sources(folder: Path, package: str) -> dict[str, str]:
    """Return the sources below a package's folder by module name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] == "__init__":
            found[".".join((package, *parts[:-1])) + "."] = path.read_text()
        else:
            found[".".join((package, *parts))] = path.read_text()
    return found


@cache
def helper_archive(host: Path = HOST) -> Archive:
    """Return fleet's host code as an archive."""
    modules = {
        name: text for name, text in sources(host, "fleet.host").items() if name not in LEFT_OUT
    }
    return pack({"fleet.": "", **modules})


@cache
def pyroute2_archive() -> Archive:
    """Return what applying needs of pyroute2; its own ``__init__`` would import all of it."""
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or spec.origin is None:
        raise ImportError("pyroute2 is not installed on this machine")
    home = Path(spec.origin).parent
    modules = {"pyroute2.": ""}
    for entry in PYROUTE2:
        path = home / entry
        if path.is_dir():
            modules |= sources(path, "pyroute2." + entry.replace("/", "."))
        elif path.exists():
            name = "pyroute2." + entry.removesuffix(".py").replace("/", ".")
            name = name.removesuffix("__init__") if name.endswith("__init__") else name
            modules[name] = path.read_text()
    return pack(modules, "pyroute2")
