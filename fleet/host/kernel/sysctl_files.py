"""The sysctl files an administrator writes (sysctl.d(5)); what packages bring is under /usr/lib."""

from __future__ import annotations

import posix
from _stat import S_ISDIR, S_ISREG

_PLACES = ("/etc/sysctl.conf", "/etc/sysctl.d")


def written(root: str = "") -> dict[str, str]:
    """Return the keys that files under /etc set, spelt with dots, and the value each ends with.

    systemd-sysctl(8) reads /etc/sysctl.d by name; /etc/sysctl.conf is 99-sysctl.conf there.
    Patterns of keys are left out, and so is a key that only may fail (``-``) and has no value.
    """
    files: dict[str, str] = {}
    for place in _PLACES:
        path = root + place
        try:
            mode = posix.stat(path).st_mode
        except OSError:
            continue
        if S_ISDIR(mode):
            listed = [name for name in posix.listdir(path) if name.endswith(".conf")]
            files.update({name: f"{path}/{name}" for name in listed})
        elif S_ISREG(mode):
            files["99-sysctl.conf"] = path
    found: dict[str, str] = {}
    for name in sorted(files):
        try:
            with open(files[name], encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    _read(line, found)
        except OSError:
            continue  # a link that leads nowhere
    return found


def _read(line: str, found: dict[str, str]) -> None:
    key, equals, value = line.strip().partition("=")
    key = key.strip().lstrip("-")
    if equals and key and not key.startswith(("#", ";")) and "*" not in key:
        found[_dotted(key)] = " ".join(value.split())


def _dotted(key: str) -> str:
    """Return a key as sysctl(8) prints it: where a slash comes first, the two are swapped."""
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or (0 <= dot < slash):
        return key
    return key.translate({ord("/"): ".", ord("."): "/"})
