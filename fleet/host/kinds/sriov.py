"""SR-IOV of a NIC: how many virtual functions it has, and what each of them may do.

netplan's words for the NIC, ip-link(8)'s (``vf``) for a function. A function that nobody names is
left alone; a named range, ``0-3``, stands for each of its functions.
"""

from __future__ import annotations

from fleet.host.change import HostError
from fleet.host.kernel.functions import budget
from fleet.host.links.functions_diff import COUNT, DRIVER, EACH, MODE, VFIO, changes
from fleet.host.links.link_diff import device_of
from fleet.host.links.steps import Steps
from fleet.host.spec import ON_HOST, dashed, decode, encode, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fleet.host.change import Change, Resource
    from fleet.host.kernel.observation import Observation
    from fleet.host.kernel.system import System
    from fleet.host.planning.ledger import Entry

    Words = dict[str, Any]

if not ON_HOST:
    from typing import Annotated, Literal

    from fleet.host.fields import MAC, Bound, Uint32, VlanProtocol
    from fleet.host.machine_fields import DriverName, FunctionRange


@spec
class Function:
    """What a function may do; rates are in Mbit/s, 0 for none, and VLAN 0 is none too."""

    macaddress: MAC | None = None
    vlan: Annotated[int, Bound(0, 4094)] | None = None
    qos: Annotated[int, Bound(0, 7)] | None = None
    protocol: VlanProtocol | None = None
    min_tx_rate: Uint32 | None = None
    max_tx_rate: Uint32 | None = None
    spoofchk: bool | None = None
    trust: bool | None = None
    state: Literal["auto", "enable", "disable"] | None = None
    #: ``vfio-pci`` for a guest; unnamed, the kernel chooses when the function is made.
    driver: DriverName | None = None

    def __post_init__(self) -> None:
        """Refuse what no driver takes; the controller alone comes here."""
        if not self.vlan and (self.qos or self.protocol == "802.1ad"):
            raise ValueError("qos and protocol are a VLAN's: name vlan too")
        if self.min_tx_rate and self.max_tx_rate and self.min_tx_rate > self.max_tx_rate:
            raise ValueError(f"min-tx-rate {self.min_tx_rate} is above max-tx-rate")
        if self.macaddress and int(self.macaddress[:2], 16) & 1:
            raise ValueError(f"{self.macaddress} is a group's address, no function's")


@spec
class Functions:
    """The virtual functions of one NIC (netplan-yaml.5)."""

    virtual_function_count: Annotated[int, Bound(0, 65535)] | None = None
    embedded_switch_mode: Literal["legacy", "switchdev"] | None = None
    virtual_functions: dict[FunctionRange, Function] | None = None

    def __post_init__(self) -> None:
        """Refuse functions that are named twice, or that the count leaves out."""
        seen: dict[str, str] = {}
        macs: dict[str, str] = {}
        for words, function in (self.virtual_functions or {}).items():
            if function.macaddress and "-" in words:
                raise ValueError(f"functions {words} cannot all have {function.macaddress}")
            if function.macaddress in macs:
                both = f"functions {macs[function.macaddress]} and {words}"
                raise ValueError(f"{both} cannot both have {function.macaddress}")
            if function.macaddress:
                macs[function.macaddress] = words
            for index in members(words):
                if index in seen:
                    raise ValueError(f"function {index} is in {seen[index]} and in {words}")
                seen[index] = words
        count = self.virtual_function_count
        if count is not None:
            for index, words in seen.items():
                if int(index) >= count:
                    raise ValueError(f"function {words}: there are {count}, the first is 0")


SPEC = Functions

#: What a driver starts with, for what intent names no more.
_DEFAULTS = {
    "macaddress": "00:00:00:00:00:00", "vlan": 0, "qos": 0, "protocol": "802.1q",
    "min-tx-rate": 0, "max-tx-rate": 0, "spoofchk": True, "trust": False, "state": "auto",
}  # fmt: skip


def members(words: str) -> list[str]:
    """Return the numbers of a range of functions, as texts."""
    low, _, high = words.partition("-")
    return [str(index) for index in range(int(low), int(high or low) + 1)]


def names(observation: Observation) -> list[str]:
    """Return the NICs that have virtual functions."""
    found = []
    for name, link in observation.links.items():
        if not link["kind"] and link["pci_address"]:
            have = _read(observation, name)
            if have is not None and have["count"]:
                found.append(name)
    return sorted(found)


def observe(observation: Observation, name: str) -> Words | None:
    """Return a NIC's functions as intent would write them."""
    have = _read(observation, name)
    return _form(have) if have is not None else None


def lean(form: Words, observation: Observation, name: str) -> Words | None:
    """Return a form without what a driver starts with."""
    functions = {}
    for index, words in form.get(EACH, {}).items():
        kept = {word: v for word, v in words.items() if _DEFAULTS.get(word) != v}
        if kept.get("driver") != VFIO:
            kept.pop("driver", None)
        if kept:
            functions[index] = kept
    lean_form = {COUNT: form[COUNT], **({EACH: functions} if functions else {})}
    return lean_form if form.get(MODE) in (None, "legacy") else {**lean_form, MODE: form[MODE]}


def original(resource: Resource, observation: Observation) -> Words | None:
    """Return what a NIC had of SR-IOV before fleet adopted it."""
    have = _read(observation, device_of(observation, resource.name))
    return _form(have) if have is not None else None


def _form(have: Words) -> Words:
    form: Words = {COUNT: have["count"]}
    if have["mode"]:
        form[MODE] = have["mode"]
    functions = {index: _of_function(each) for index, each in have["functions"].items()}
    return {**form, EACH: functions} if functions else form


def _of_function(each: Words) -> Words:
    words = {word: each[word] for word in _DEFAULTS if word in each}
    return {**words, DRIVER: each["driver"]} if each["driver"] else words


def _read(observation: Observation, device: str) -> Words | None:
    link = observation.links.get(device)
    if link is None or link["kind"] or not link["pci_address"]:
        return None
    from fleet.host.kernel.functions import read

    address = link["pci_address"]
    found: Words | None = observation.once(
        f"functions {device}", lambda system: read(system, device, address)
    )
    return found


def devices(resource: Resource, observation: Observation) -> list[str]:
    """Return the network devices of a NIC's functions that are in this namespace."""
    have = _read(observation, device_of(observation, resource.name))
    return [name for each in have["functions"].values() for name in each["devices"]] if have else []


def diff(resource: Resource, entry: Entry | None, observation: Observation) -> list[Change]:
    """Return the changes that make a NIC's functions what its spec says; raises HostError for what
    the NIC cannot have."""
    device = device_of(observation, resource.name)
    if device not in observation.links:
        return []  # the NIC's own resource says so
    have = _read(observation, device)
    if have is None:
        driver = observation.links[device]["driver"] or "no PCI device"
        raise HostError(
            resource.key,
            "a NIC with SR-IOV",
            f"{device} ({driver}) has none",
            "take the virtual functions away, or enable SR-IOV in the firmware of host and card",
        )
    wanted = _wanted(resource.spec or {})
    if entry is not None:
        _take_back(wanted, entry, have)
    return changes(Steps(resource, device), wanted, have, observation)


def _wanted(data: Words) -> Words:
    """Return the words of a spec, its functions one by one."""
    said = encode(decode(Functions, data))
    found: Words = {
        dashed(w): v for w, v in said.items() if v is not None and w != "virtual_functions"
    }
    found[EACH] = {
        index: {dashed(word): value for word, value in function.items() if value is not None}
        for words, function in (said.get("virtual_functions") or {}).items()
        for index in members(words)
    }
    return found


def _take_back(wanted: Words, entry: Entry, have: Words) -> None:
    """Add what a function had before fleet set it, for what intent names no more."""
    before = (entry.before or {}).get(EACH) or {}
    count: int = wanted[COUNT] if COUNT in wanted else have["count"]
    for index, words in _wanted(entry.spec or {})[EACH].items():
        now = wanted[EACH].setdefault(index, {}) if int(index) < count else {}
        for word in words.keys() - now.keys() - {DRIVER}:
            now[word] = before.get(index, {}).get(word, _DEFAULTS[word])


def settle(resource: Resource, observation: Observation) -> float:
    """Return the seconds that drivers may need for the functions, by their number."""
    return budget(int((resource.spec or {}).get("virtual_function_count") or 0))


def remove(entry: Entry, observation: Observation) -> list[Change]:
    """Return the changes that give a NIC the functions it had before fleet came."""
    device = device_of(observation, entry.name)
    have = _read(observation, device)
    before = entry.before
    if have is None or not before:
        return []
    wanted: Words = {EACH: {}}
    data = _wanted(entry.spec or {})
    for word in (COUNT, MODE):
        if word in data and word in before:
            wanted[word] = before[word]
    count: int = wanted[COUNT] if COUNT in wanted else have["count"]
    same = count == have["count"]
    for index, words in (before.get(EACH) or {}).items():
        if int(index) < count:
            named = data[EACH].get(index, {}) if same else words
            wanted[EACH][index] = {word: v for word, v in words.items() if word in named}
    if same:
        for index, words in data[EACH].items():
            told = wanted[EACH].setdefault(index, {}) if int(index) < count else {}
            for word in words.keys() - told.keys() - {DRIVER}:
                told[word] = _DEFAULTS[word]
    return changes(Steps(entry, device), wanted, have, observation)


def apply(system: System, change: Change) -> None:
    """Carry out one change; raises HostError with the driver's refusal."""
    from fleet.host.links import functions_apply

    functions_apply.apply(system, change)
