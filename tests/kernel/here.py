"""The machine itself, for tests of what no namespace has: devices on a bus, interrupts."""

from __future__ import annotations

import json
from typing import Any

from namespaces import Space, sh


class Here(Space):
    """The machine's own namespace."""

    def __init__(self) -> None:
        super().__init__("")

    def ip(self, *words: str, check: bool = True) -> str:
        return sh("ip", *" ".join(words).split(), check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        return sh(*argv, check=check)

    def json(self, *words: str) -> Any:
        return json.loads(sh("ip", "-j", "-d", *" ".join(words).split()) or "[]")
