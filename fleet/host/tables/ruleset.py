"""nft(8) as a library: the tables there are, what one means, and its replacement."""

from __future__ import annotations

import posix

from fleet.host import wire
from fleet.host.change import HostError
from fleet.host.kernel.system import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System

NFT = "/usr/sbin/nft"
TAB = "\t"
#: What the kernel counts, numbers or ages; none of it is what an operator wrote.
COUNTED = ("handle", "index", "packets", "bytes", "used", "expires")


def require(system: System, resource: str) -> None:
    """Raise HostError where the host has no nft."""
    if not posix.access(system.root + NFT, posix.X_OK):
        raise HostError(resource, NFT, "no such program", "install the package nftables")


def tables(system: System) -> list[str]:
    """Return every table as ``family/name``; none where the host has no nft."""
    if not posix.access(system.root + NFT, posix.X_OK):
        return []
    listed = wire.loads(system.run([NFT, "-j", "list", "tables"]).out or '{"nftables":[]}')
    found = (item.get("table") for item in listed["nftables"])
    return [f"{table['family']}/{table['name']}" for table in found if table]


def split(name: str) -> tuple[str, str]:
    """Return the family and the table of ``family/table``."""
    family, _, table = name.partition("/")
    return family, table


def listing(system: System, name: str, stateless: bool = False) -> str | None:
    """Return a table as nft lists it, None where absent; stateful objects as they are now."""
    argv = [NFT, *(("-s",) if stateless else ()), "list", "table", *split(name)]
    done = system.run(argv, check=False)
    if done.code and "No such file or directory" not in done.err:
        raise HostError(f"nftables/{name}", "to be listed", done.err.strip()[:300])
    return None if done.code else done.out


def picture(system: System, name: str) -> dict[str, Any] | None:
    """Return a table as a snapshot keeps it, ``text`` and ``meaning``; None where absent."""
    if not posix.access(system.root + NFT, posix.X_OK):
        return None
    text = listing(system, name)
    return None if text is None else {"text": text, "meaning": live(system, name)}


def put_back(system: System, pictures: dict[str, dict[str, Any] | None]) -> None:
    """Make tables what they were, all in one transaction; raises CommandError."""
    system.run([NFT, "-f", "-"], input=_as_they_were(pictures))


def require_way_back(system: System, pictures: dict[str, dict[str, Any] | None]) -> None:
    """Raise HostError for a table that nft lists in words which it does not read back.

    nft prints a quote inside a string as it is, and what a program loaded as JSON may have one.
    """
    for name, then in pictures.items():
        if then is None:
            continue
        text = _as_they_were({name: then})
        done = system.run([NFT, "-c", "-f", "-"], input=text, check=False)
        if done.code:
            family, table = split(name)
            raise HostError(
                f"nftables/{name}",
                "a listing that nft reads back, for the way back of this change",
                reason(CommandError(done, "")),
                f"mend the rule that 'nft list table {family} {table}' shows there",
            )


def _as_they_were(pictures: dict[str, dict[str, Any] | None]) -> str:
    parts = []
    for name, then in pictures.items():
        family, table = split(name)
        parts.append(f"add table {family} {table}\ndelete table {family} {table}\n")
        parts.append(then["text"] if then else "")
    return "".join(parts)


def body(text: str) -> str:
    """Return what stands between a listed table's braces, without the indentation."""
    lines = text.strip().splitlines()[1:-1]
    return "".join(f"{line[1:] if line.startswith(TAB) else line}\n" for line in lines)


def unfilled(text: str) -> str:
    """Return a listed table without the elements that packets put into its sets."""
    kept: list[str] = []
    filled = inside = False
    for line in text.splitlines():
        word = line.strip()
        if not inside and word.endswith("{") and not word.startswith("elements"):
            filled = False
        elif word.startswith("flags ") and "dynamic" in word:
            filled = True
        inside = inside or (filled and word.startswith("elements"))
        if not inside:
            kept.append(line)
        elif word.endswith("}"):
            inside = False
    return "\n".join(kept) + "\n"


def script(name: str, rules: str | None) -> str:
    """Return the transaction that makes a table what rules say; None deletes it.

    Adding before deleting makes the deletion succeed where there is no such table, and all of it
    is one netlink batch: packets meet the old rules or the new ones (nft(8), -f).
    """
    family, table = split(name)
    start = f"add table {family} {table}\ndelete table {family} {table}\n"
    return start if rules is None else f"{start}table {family} {table} {{\n{rules}\n}}\n"


def replace(system: System, name: str, rules: str | None) -> None:
    """Replace or delete a table in one transaction; raises HostError with nft's reason."""
    require(system, f"nftables/{name}")
    try:
        system.run([NFT, "-f", "-"], input=script(name, rules))
    except CommandError as error:
        raise HostError(
            f"nftables/{name}", "rules that the kernel takes", reason(error), "correct the rules"
        ) from error


def reason(error: CommandError) -> str:
    """Return what nft complained of, without the echo of the script."""
    text = error.completed.err or str(error)
    said = [line for line in text.splitlines() if "rror" in line] or text.splitlines()[:1]
    return "; ".join(said)[:400]


def live(system: System, name: str) -> list[Any] | None:
    """Return what the kernel's table means now, None where there is none."""
    require(system, f"nftables/{name}")
    done = system.run([NFT, "-j", "list", "table", *split(name)], check=False)
    if done.code:
        return None
    try:
        return meaning(wire.loads(done.out))
    except ValueError:
        # nft 1.0.6 breaks off its JSON at a table's flags.
        plain = system.run([NFT, "-s", "list", "table", *split(name)])
        return [["table", plain.out]]


def meaning(document: dict[str, Any]) -> list[Any]:
    """Return a listing's objects in an order and form that equal rules share; pure.

    Rules keep their order within a chain, everything else is sorted; what the kernel counts is
    left out, and so are the elements of sets that packets fill.
    """
    objects: list[Any] = []
    rules: list[Any] = []
    filled = _filled_by_packets(document["nftables"])
    for item in document["nftables"]:
        for kind, value in item.items():
            if kind == "metainfo":
                continue
            told = _stripped(value, kind)
            if kind in ("set", "map", "meter") and value.get("name") in filled:
                told.pop("elem", None)
            (rules if kind == "rule" else objects).append([kind, told])
    objects.sort(key=lambda each: (each[0], str(each[1].get("name", "")), wire.dumps(each[1])))
    # Stable: within a chain the kernel's order stays.
    rules.sort(key=lambda each: str(each[1].get("chain", "")))
    return objects + rules


def _filled_by_packets(value: Any) -> set[str]:
    """Return the sets whose elements rules add; nft 1.0.6 does not list the flag ``dynamic``."""
    if isinstance(value, list):
        return {name for inner in value for name in _filled_by_packets(inner)}
    if not isinstance(value, dict):
        return set()
    found = {name for inner in value.values() for name in _filled_by_packets(inner)}
    if "op" in value and str(value.get("set", value.get("map", ""))).startswith("@"):
        found.add(str(value.get("set", value.get("map")))[1:])
    return found


def escapes(rules: str) -> str:
    """Return how a text would leave the braces of its table, an empty string if it does not."""
    depth, quoted = 0, ""
    for line in rules.split("\n"):
        for character in line:
            if quoted:
                quoted = "" if character == quoted else quoted
            elif character == "#":
                break
            elif character in "\"'":
                quoted = character
            elif character in "{}":
                depth += 1 if character == "{" else -1
                if depth < 0:
                    return "a brace closes that no brace opened"
        if not quoted and line.split("#")[0].strip().startswith("include"):
            return "include reads a file that only the host has"
    if depth or quoted:
        return "a quote is not closed" if quoted else "a brace is not closed"
    return ""


def _stripped(value: Any, kind: str = "") -> Any:
    if isinstance(value, dict):
        kept = {key: _stripped(inner) for key, inner in value.items() if key not in COUNTED}
        if kind in ("set", "map", "meter"):
            if {"dynamic", "timeout"} & set(value.get("flags", ())):
                kept.pop("elem", None)
            elif isinstance(kept.get("elem"), list):
                kept["elem"].sort(key=wire.dumps)
        return kept
    if isinstance(value, list):
        return [_stripped(inner) for inner in value]
    return value


def devices(rules: str) -> list[str]:
    """Return the devices that a table's chains or flowtables hook; they must exist to load it."""
    words = "".join(" " if c in '{},;="' else c for c in rules).split()
    found = []
    for position, word in enumerate(words[:-1]):
        if word in ("device", "devices") and words[position + 1] not in found:
            found.append(words[position + 1])
    return found


def meaning_of(name: str, rules: str, observation: Observation) -> list[Any]:
    """Return what a text would mean once loaded, by loading it in a namespace of the moment.

    The kernel is the one authority on what a rule becomes. Raises HostError with nft's reason
    where the text cannot be loaded, and where it hooks a device the host does not have.
    """
    from fleet.host.kernel.scratch import Scratch

    require(observation.system, f"nftables/{name}")
    wrong = escapes(rules)
    if wrong:
        raise HostError(
            f"nftables/{name}",
            "rules of this table alone",
            wrong,
            "write what stands between the table's braces",
            "rules",
        )
    with Scratch() as system:
        _load(system, name, rules, observation)
        return live(system, name) or []


def spelled(name: str, rules: str, observation: Observation) -> str:
    """Return a text that ``meaning_of`` took as nft would list it, without what it counts."""
    from fleet.host.kernel.scratch import Scratch

    with Scratch() as system:
        _load(system, name, rules, observation)
        return listing(system, name, stateless=True) or ""


def _load(system: System, name: str, rules: str, observation: Observation) -> None:
    _stand_in(system, name, rules, observation)
    try:
        system.run([NFT, "-f", "-"], input=script(name, rules))
    except CommandError as error:
        raise HostError(
            f"nftables/{name}",
            "rules that the kernel takes",
            reason(error),
            "correct the rules, or load the kernel module they need",
            "rules",
        ) from error
    made = tables(system)
    if made != [name]:
        raise HostError(
            f"nftables/{name}",
            "rules of this table alone",
            f"tables {', '.join(made)}",
            "close no brace that the rules did not open",
            "rules",
        )


def _stand_in(system: System, name: str, rules: str, observation: Observation) -> None:
    for device in devices(rules):
        if device == "lo":
            continue
        system.run(["/usr/sbin/ip", "link", "add", "name", device, "type", "bridge"])
