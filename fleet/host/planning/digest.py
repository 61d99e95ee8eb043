"""The digest that binds a plan to what was observed when it was made."""

from __future__ import annotations

from fleet.host import wire
from fleet.host.change import IMPACTS
from fleet.host.spec import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Problem
    from fleet.host.kernel.observation import Observation
    from fleet.host.state import State


def sha256(text: str) -> str:
    """Return the SHA-256 of a text, in hex.

    ``import hashlib`` costs a host 5 ms, most of it OpenSSL; CPython's own module costs nothing.
    """
    for name in ("_sha256", "_sha2", "hashlib"):
        try:
            module: Any = __import__(name)
        except ImportError:
            continue
        digest: str = module.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return digest
    raise ImportError("this Python has no SHA-256")


def digest(
    state: State,
    changes: tuple[Change, ...],
    problems: tuple[Problem, ...],
    observations: dict[str, Observation],
) -> str:
    """Return the digest of a plan: its changes, what they stand on, and the way to the host.

    Each change carries the value it starts from, so the attributes a plan touches are in it. A
    guest counts only where it would notice: a change of no impact names none. Counters, indexes,
    lifetimes and learned addresses are nowhere in it.
    """
    stands_on = [
        [namespace, device, _standing(observations[namespace], device)]
        for namespace, device in sorted({(c.namespace, d) for c in changes for d in c.touches})
        if namespace in observations
    ]
    words = {
        "host": state.host,
        "changes": [_words(change) for change in changes],
        "problems": encode(problems),
        "stands-on": stands_on,
        "management": management_path(observations.get("")),
    }
    return sha256(wire.dumps(words))


def _words(change: Change) -> Any:
    words = encode(change)
    if IMPACTS.index(change.impact) == 0:
        words.pop("guests", None)
    return words


def _standing(observation: Observation, device: str) -> Any:
    link = observation.links.get(device)
    if link is None:
        return None
    return [link["kind"], link["master"], link["up"], link.get("perm_mac") or ""]


def management_path(observation: Observation | None) -> Any:
    """Return what carries management now: addresses, their devices and the ways out of them."""
    if observation is None:
        return []
    path = []
    for item in observation.management:
        device = item["dev"]
        link = observation.links.get(device) if device else None
        ways = sorted(
            [str(route["to"]), str(route["via"]), str(route["table"]), str(route["metric"])]
            for route in (observation.routes if link else [])
            if route["dev"] == device and route["to"] == "default"
        )
        here = [link["mac"], link["up"], link["master"], link["mtu"]] if link else None
        addresses = observation.addresses.get(device, ()) if device else ()
        held = any(other["address"].partition("/")[0] == item["address"] for other in addresses)
        path.append([item["address"], held, device, here, ways])
    return sorted(path, key=str)
