"""Keeps secrets out of the record."""

from __future__ import annotations

from typing import Any

#: Fields of specs, in netplan's, libvirt's or WireGuard's words, whose values nobody may read.
SECRET = frozenset(
    {
        "password",
        "passphrase",
        "secret",
        "psk",
        "private_key",
        "pre_shared_key",
        "shared_key",
        "key",
        "keys",
        "token",
        "auth_key",
        "client_key_password",
    }
)


def redacted(value: Any, path: str = "") -> tuple[Any, list[str]]:
    """Return plain data without its secrets, and the paths of what was taken out."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        out: list[str] = []
        for key, inner in value.items():
            here = f"{path}.{key}" if path else str(key)
            if str(key).replace("-", "_").lower() in SECRET and inner is not None:
                out.append(here)
                continue
            kept[key], more = redacted(inner, here)
            out += more
        return kept, out
    if isinstance(value, (list, tuple)):
        parts = [redacted(inner, f"{path}[{number}]") for number, inner in enumerate(value)]
        return [part for part, _ in parts], [each for _, out in parts for each in out]
    return value, []
