"""Static routes of a device: what intent names against what the kernel has."""

from __future__ import annotations

from fleet.host.kernel import ip
from fleet.host.links.link import Route
from fleet.host.spec import dashed, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fleet.host.links.steps import Steps

    Key = tuple[int, str, int, int]

MAIN = 254
#: Types that lead nowhere and so belong to no device (networkd writes them while it configures
#: the link that lists them; the kernel shows IPv6's on lo).
NOWHERE = ("blackhole", "unreachable", "prohibit", "throw")
#: rtnetlink(7): what an administrator's own tools write (unspec, boot, static); the rest is the
#: kernel's, a lease's, router advertisements' or a routing daemon's.
_OURS = (0, 3, 4)
KERNEL = 2
#: Linux: IP6_RT_PRIO_USER; an IPv4 route without a metric has 0.
_METRIC = {4: 0, 6: 1024}
_COMPARED = (
    "via",
    "type",
    "scope",
    "from",
    "on-link",
    "mtu",
    "congestion-window",
    "advertised-receive-window",
    "advertised-mss",
)


def foreign(observed: dict[str, Any]) -> bool:
    """Say whether a route is somebody else's to manage."""
    return observed["protocol"] not in _OURS


def family_of(route: Route) -> int:
    """Return 4 or 6; ``default`` takes its gateway's or source's family, and otherwise IPv4."""
    for text in (route.to if route.to != "default" else None, route.via, route.from_):
        if text:
            return ip.family(text)
    return 4


def normal(route: Route) -> dict[str, Any]:
    """Return a wanted route in the observation's words; None where intent leaves it open."""
    family = family_of(route)
    to = ip.normal(route.to) if route.to != "default" else "default"
    if to in ("0.0.0.0/0", "::/0"):
        to = "default"
    return {
        "family": family,
        "to": whole(to),
        "via": ip.normal(route.via) if route.via else None,
        "metric": route.metric or _METRIC[family],
        "table": route.table or MAIN,
        "type": route.type or "unicast",
        "scope": route.scope if family == 4 else None,
        "from": ip.normal(route.from_) if route.from_ else None,
        "on-link": route.on_link,
        "mtu": route.mtu,
        "congestion-window": route.congestion_window,
        "advertised-receive-window": route.advertised_receive_window,
        "advertised-mss": route.advertised_mss,
    }


def whole(to: str) -> str:
    """Return a destination with its prefix length, whatever its spelling."""
    return to if to == "default" or "/" in to else f"{to}/{ip.bits(to)}"


def key_of(route: dict[str, Any]) -> Key:
    """Return what the kernel tells routes apart by: family, destination, table and metric."""
    return route["family"], whole(route["to"]), route["table"], route["metric"] or 0


def token_of(key: Key) -> str:
    """Return the graph's name of a route's place."""
    return f"route:{key[0]}/{key[1]}/{key[2]}/{key[3]}"


def listed(items: Iterable[Any] | None) -> dict[Key, Route]:
    """Return routes of a spec, records or plain data, by their key."""
    found: dict[Key, Route] = {}
    for item in items or ():
        if isinstance(item, dict):
            item = route_of(item)
        found[key_of(normal(item))] = item
    return found


def route_of(words: dict[str, Any]) -> Route:
    """Return a route from intent's words; ``dev`` and ``moved`` are no words of intent."""
    fields = {
        "from_" if name == "from" else name.replace("-", "_"): value
        for name, value in words.items()
        if name not in ("dev", "moved")
    }
    return Route(**fields)


def plain(route: Route) -> dict[str, Any]:
    """Return a wanted route as intent writes it."""
    return {dashed(name): value for name, value in encode(route).items()}


def written(observed: dict[str, Any], device: str = "") -> dict[str, Any]:
    """Return an observed route as intent would write it; ``dev`` where it is not this device's."""
    family, defaults = observed["family"], {"type": "unicast", "table": MAIN, "scope": None}
    defaults["metric"] = _METRIC[family]
    words: dict[str, Any] = {"to": observed["to"]}
    scope = observed.get("scope")
    if family == 4 and observed.get("type") in (None, "unicast"):
        defaults["scope"] = "global" if observed.get("via") else "link"
    elif scope in ("global", "host", "link", "nowhere", None):
        scope = None
    for name in ("via", "from", "metric", "type", "scope", "table", *_COMPARED[5:]):
        value = scope if name == "scope" else observed.get(name)
        if value is not None and value != defaults.get(name):
            words[name] = value
    if on_link(observed):
        words["on-link"] = True
    if observed.get("dev") and observed["dev"] != device and observed.get("type") not in NOWHERE:
        words["dev"] = observed["dev"]
    return words


def on_link(observed: dict[str, Any]) -> bool:
    """Say whether a route's gateway was declared to be on the link (RTNH_F_ONLINK, 4)."""
    flags = observed.get("flags") or 0
    if isinstance(flags, int):
        return bool(flags & 4)
    return "onlink" in flags


def of_device(routes: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Return the routes out of one device that a person or fleet may have written."""
    return [
        route
        for route in routes
        if route["dev"] == device
        and route.get("type") not in NOWHERE
        and route["protocol"] != KERNEL
    ]


def diff_routes(
    steps: Steps,
    wanted: tuple[Route, ...] | None,
    previous: Iterable[Any] | None,
    original: Iterable[Any] | None,
    routes: list[dict[str, Any]],
) -> None:
    """Add the changes of ``routes`` to steps; ``routes`` are all the namespace's."""
    own = of_device(routes, steps.device)
    nowhere = [route for route in routes if route.get("type") in NOWHERE]
    have = {key_of(route): route for route in reversed(own)}
    lost = {key_of(route): route for route in nowhere}
    before, names = listed(previous), listed(wanted)
    for key, route in names.items():
        place = lost if (route.type or "unicast") in NOWHERE else have
        found = place.get(key)
        if found is None and key in before:
            # Fleet's own route of another type is in its place.
            found = have.get(key) or lost.get(key)
        if found is None:
            _add(steps, key, route)
        elif _differs(normal(route), before.get(key), found):
            steps.add(
                "routes",
                written(found, steps.device),
                plain(route),
                impact="blip",
                provides=(token_of(key),),
                requires=_needs(steps, route),
            )
    put = [key for key in before if key not in listed(original)]
    for item in own + nowhere:
        key = key_of(item)
        ours = key in put and item["protocol"] != KERNEL
        exclusive = wanted is not None and item in own and not foreign(item)
        if key not in names and (ours or exclusive):
            _remove(steps, key, item)


def _needs(steps: Steps, route: Route) -> list[str]:
    if (route.type or "unicast") in NOWHERE:
        return []
    needs = [f"up:{steps.device}", f"addresses:{steps.device}"]
    if route.from_:
        needs.append(f"address:{ip.host(route.from_)}")
    return needs


def _add(steps: Steps, key: Key, route: Route) -> None:
    steps.add(
        "routes",
        None,
        plain(route),
        provides=(token_of(key),),
        requires=(*_needs(steps, route), f"free-{token_of(key)}"),
    )


def _remove(steps: Steps, key: Key, item: dict[str, Any]) -> None:
    steps.add(
        "routes",
        written(item, steps.device),
        None,
        impact="blip",
        provides=(f"free-{token_of(key)}",),
    )


def _differs(wanted: dict[str, Any], before: Route | None, observed: dict[str, Any]) -> bool:
    old = normal(before) if before is not None else {}
    for name in _COMPARED:
        value = on_link(observed) if name == "on-link" else observed.get(name)
        value = value or None
        if wanted[name] in (None, False):
            # Named at the last commit and no longer: back to the kernel's default.
            kept = name == "scope" or (name == "type" and value in (None, "unicast"))
            if old.get(name) and value and not kept:
                return True
            continue
        if (value or ("unicast" if name == "type" else None)) != wanted[name]:
            return True
    return False
