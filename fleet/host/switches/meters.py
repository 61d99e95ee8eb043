"""Meters of a bridge (ovs-ofctl(8), "Meter Syntax"): how they are written, and what they mean."""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.switches import openflow
from fleet.host.switches.groups import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleet.host.kernel.system import System

_FLAGS = ("kbps", "pktps", "burst", "stats")
_OF_BAND = ("type", "rate", "burst_size", "prec_level")


class Meter:
    """One meter: its number, its text, and what two meters have in common that mean the same.

    Raises HostError where a text is no meter.
    """

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        self.number = 0
        flags: set[str] = set()
        bands: list[dict[str, str]] = []
        for word in (
            self.text.replace("bands=", " ").replace("band=", " ").replace(",", " ").split()
        ):
            key, separator, value = word.partition("=")
            if key == "meter" and value.isdigit():
                self.number = int(value)
            elif not separator and key in _FLAGS:
                flags.add(key)
            elif key == "type":
                bands.append({key: value})
            elif key in _OF_BAND and value.isdigit() and bands:
                bands[-1][key] = str(int(value))
            else:
                raise _refused(self.text, f"no such word: {word}")
        if not self.number or not bands:
            raise _refused(self.text, "a meter has a number and bands")
        # What ofp-meter.c takes where neither is said.
        if not flags & {"kbps", "pktps"}:
            flags.add("kbps")
        kept = [{k: v for k, v in band.items() if v != "0"} for band in bands]
        self.meaning = frozenset(flags), tuple(frozenset(band.items()) for band in kept)


def _refused(text: str, why: str) -> HostError:
    return HostError(
        "flows", "a meter as ovs-ofctl writes it", f"{text}: {why}", "correct the meter", "meters"
    )


def meters_of(text: str) -> list[Meter]:
    """Return the meters of a text, one a line, without comments; raises HostError."""
    return [Meter(line) for line in openflow.plain_lines(text)]


def dump(system: System, bridge: str) -> list[Meter]:
    """Return a bridge's meters; raises CommandError."""
    argv = [openflow.OFCTL, "-O", VERSION, "dump-meters", bridge]
    # A meter's bands are on lines of their own.
    said = system.run(argv).out.partition("\n")[2].replace("\n", " ")
    return [Meter(f"meter={text}") for text in said.split("meter=")[1:]]


def differing(
    system: System, bridge: str, wanted: list[Meter], own: Iterable[int]
) -> tuple[list[Meter], list[Meter]]:
    """Return fleet's meters that are too much on a bridge, and those that are missing or other."""
    now = {meter.number: meter for meter in dump(system, bridge)}
    named = {meter.number for meter in wanted}
    gone = [now[number] for number in sorted(own) if number in now and number not in named]
    new = [m for m in wanted if m.number not in now or now[m.number].meaning != m.meaning]
    return gone, new


def put(system: System, bridge: str, texts: Iterable[str]) -> None:
    """Make or change meters; raises CommandError."""
    known = {meter.number for meter in dump(system, bridge)} if texts else set()
    for text in texts:
        verb = "mod-meter" if Meter(text).number in known else "add-meter"
        system.run([openflow.OFCTL, "-O", VERSION, verb, bridge, text])


def take_away(system: System, bridge: str, numbers: Iterable[int]) -> None:
    """Delete meters, and with each the flows that use it; raises CommandError."""
    for number in numbers:
        system.run([openflow.OFCTL, "-O", VERSION, "del-meter", bridge, f"meter={number}"])
