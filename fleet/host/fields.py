"""Types of the specs' fields, with their bounds; only the controller imports this.

Each bound is a plain marker that hands pydantic a core schema without importing pydantic, so an
error names the exact field and the JSON Schema carries the limit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any


class Bound:
    """A number's inclusive limits."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return {**handler(source), "ge": self.low, "le": self.high}


class Check:
    """A check of a text: the function returns its normal form or raises ValueError."""

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function = function

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        inner = handler(source)
        schema: dict[str, Any] = {
            "type": "function-after",
            "function": {"type": "no-info", "function": self.function},
            "schema": inner,
        }
        return schema


def check_text(value: str) -> str:
    for character in value:
        if ord(character) < 32 or 127 <= ord(character) < 160 or ord(character) in (0x2028, 0x2029):
            raise ValueError(f"control character {character!r} is not allowed")
    return value


def _block(value: str) -> str:
    for line in value.split("\n"):
        check_text(line.replace("\t", " "))
    return value


def _device_name(value: str) -> str:
    # dev_valid_name() in net/core/dev.c; IFNAMSIZ is 16 with the final NUL.
    if not value:
        raise ValueError("an interface name cannot be empty")
    if len(value.encode()) > 15:
        raise ValueError(
            f"{value!r} is {len(value.encode())} bytes; an interface name has at most 15"
        )
    # sysctl_dev_name_is_allowed() in include/net/ip.h, and the bonding driver's file in sysfs.
    if value in (".", "..", "all", "default", "bonding_masters"):
        raise ValueError(f"{value!r} is not an interface name")
    if not re.fullmatch(r"[A-Za-z0-9_.@+=~-]+", value) or value.startswith("-"):
        raise ValueError(
            f"{value!r} is not an interface name: letters, digits and _ . @ + = ~ -, no leading -"
        )
    return value


def _namespace_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError(f"{value!r} is not a namespace name: letters, digits, _ . - only")
    return value


def check_mac(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
        raise ValueError(f"{value!r} is not a MAC address such as 52:54:00:12:34:56")
    if int(value[:2], 16) & 1:
        raise ValueError(f"{value!r} is a group address; an interface needs a unicast one")
    if value == "00:00:00:00:00:00":
        raise ValueError("an interface cannot have the zero MAC address")
    return value.lower()


def _ethernet_address(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
        raise ValueError(f"{value!r} is not a MAC address such as 52:54:00:12:34:56")
    return value.lower()


def _group(value: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
        if not int(value[:2], 16) & 1:
            raise ValueError(f"{value!r} is no group address: the first byte is odd in those")
        return value.lower()
    address = ipaddress.ip_address(_unscoped(value))
    if not address.is_multicast:
        raise ValueError(f"{value!r} is no multicast address")
    # br_mdb_config_init(): what every port gets anyhow.
    if str(address) == "ff02::1" or str(address).startswith("224.0.0."):
        raise ValueError(f"{value!r} leaves by every port, whoever has joined it")
    return str(address)


def _name_pattern(value: str) -> str:
    # fnmatch's and netplan's wildcards, with what dev_valid_name() lets a name have.
    if not re.fullmatch(r"[A-Za-z0-9_.@+=~:*?\[\]!^-]+", value) or value.startswith("-"):
        raise ValueError(f"{value!r} is not a name, or a pattern such as eth* or ens[12]")
    return value


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@/-]*", value):
        raise ValueError(f"{value!r} is not a word: letters, digits, _ . : @ / -, no leading -")
    return value


def _number(value: str) -> str:
    if not value.isascii() or not value.isdecimal() or int(value) >= 1 << 32:
        raise ValueError(f"{value!r} is not a whole number")
    return str(int(value))


def _account(value: str) -> str:
    # useradd(8), and the directories' names that adduser(8) would refuse.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}", value):
        raise ValueError(f"{value!r} is not a name or number of a user or group")
    return value


def _controller(value: str) -> str:
    # ovs-vsctl(8), set-controller.
    if not re.fullmatch(r"p?(tcp|ssl|unix):[A-Za-z0-9_.:%@/\[\]-]+", value):
        raise ValueError(f"{value!r} is not a controller such as tcp:192.0.2.1:6653")
    return value


def _device_pattern(value: str) -> str:
    if value.strip("*"):
        return _device_name(value.rstrip("*")) + "*" * value.endswith("*")
    raise ValueError(f"{value!r} is not an interface name, or the start of one and *")


def _address_or_mac(value: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
        return value.lower()
    return _address(value)


def _rate(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,11}( [km]?bytes)?/(second|minute|hour|day|week)", value):
        raise ValueError(f"{value!r} is not a rate such as 100/second or 10 mbytes/second")
    return value


def _bit_rate(value: str) -> str:
    from fleet.host.shapes import rates

    return rates.rate_words(rates.bytes_per_second(value))


def _byte_size(value: str) -> str:
    from fleet.host.shapes import rates

    return rates.size_words(rates.size(value))


def _duration(value: str) -> str:
    from fleet.host.shapes import rates

    return rates.time_words(rates.microseconds(value))


def _label(value: str) -> str:
    # IFA_LABEL is IFNAMSIZ long; ip-address(8) wants the device's name, then ``:`` and a word.
    if not re.fullmatch(r"[A-Za-z0-9_.@+=~][A-Za-z0-9_.@+=~-]*(:[A-Za-z0-9_.-]+)?", value) or (
        len(value) > 15
    ):
        raise ValueError(f"{value!r} is not a label such as eth0:web, of at most 15 bytes")
    return value


def check_pci_address(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-1][0-9A-Fa-f]\.[0-7]", value):
        raise ValueError(f"{value!r} is not a PCI address such as 0000:01:00.0")
    return value.lower()


def _unscoped(value: str) -> str:
    if "%" in value:
        raise ValueError(f"{value!r} names a device; the resource it stands in says which")
    return value


def _interface_address(value: str) -> str:
    _unscoped(value)
    if "/" not in value:
        raise ValueError(f"{value!r} needs a prefix length, for example {value}/24")
    interface = ipaddress.ip_interface(value)
    if interface.ip.is_multicast or interface.ip.is_unspecified:
        raise ValueError(f"{value!r} cannot be the address of an interface")
    return str(interface)


def _address(value: str) -> str:
    return str(ipaddress.ip_address(_unscoped(value)))


def _prefix(value: str) -> str:
    return value if value == "default" else _address_or_network(value)


def _address_or_network(value: str) -> str:
    return str(ipaddress.ip_network(_unscoped(value)))


def _table_name(value: str) -> str:
    family, _, table = value.partition("/")
    families = ("inet", "ip", "ip6", "arp", "bridge", "netdev")
    if family not in families or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", table):
        raise ValueError(
            f"{value!r} is not a table such as inet/fleet: a family ({', '.join(families)}), "
            "a slash and a name"
        )
    return value


def _libvirt_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", value):
        raise ValueError(f"{value!r} is not a name for libvirt: letters, digits, _ . + - only")
    return value


def _interface_key(value: str) -> str:
    if ":" in value:
        return check_mac(value)
    # virDomainDeviceAliasIsUserAlias() and its characters in src/conf/domain_conf.c.
    if not re.fullmatch(r"ua-[A-Za-z0-9_.-]{1,60}", value):
        raise ValueError(f"{value!r} is no MAC address, and no alias such as ua-uplink")
    return value


def check_number_set(value: str) -> str:
    from fleet.host.kernel.cpus import members, words

    if not re.fullmatch(r"\^?\d{1,5}(-\d{1,5})?(,\^?\d{1,5}(-\d{1,5})?)*", value):
        raise ValueError(f"{value!r} is no set of numbers such as 0-3,8")
    found = words(members(value))
    if not found:
        raise ValueError(f"{value!r} leaves no number")
    return found


def _vlan_range(value: str) -> str:
    low, _, high = value.partition("-")
    numbers = [int(each) for each in (low, high or low) if re.fullmatch(r"\d{1,4}", each)]
    if len(numbers) < 2 or not 1 <= numbers[0] <= numbers[1] <= 4094:
        raise ValueError(f"{value!r} is neither a VLAN id of 1 to 4094 nor a range such as 100-199")
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}-{numbers[1]}"


def _ports(value: str) -> str:
    low, _, high = value.partition("-")
    numbers = [int(each) for each in (low, high or low) if re.fullmatch(r"\d{1,5}", each)]
    if len(numbers) < 2 or not 1 <= numbers[0] <= numbers[1] <= 65535:
        raise ValueError(f"{value!r} is neither a port nor a range of ports such as 6000-6063")
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}-{numbers[1]}"


def _feature_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", value):
        raise ValueError(f"{value!r} is not a feature such as tcp-segmentation-offload")
    return value


def _flag_name(value: str) -> str:
    # ETH_GSTRING_LEN; drivers name them freely, but none with a mark.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,30}", value):
        raise ValueError(f"{value!r} is not a private flag such as flow-director-atr")
    return value


def _policy_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,47}", value):
        raise ValueError(f"{value!r} is not a name of a policy: letters, digits, _ . - only")
    return value


def _vlan_protocol(value: str) -> str:
    if value.lower() not in ("802.1q", "802.1ad"):
        raise ValueError(f"{value!r} is not a protocol of VLAN tags: 802.1q or 802.1ad")
    return value.lower()


def _sysctl_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+([./][A-Za-z0-9_.@:+-]+)+", value) or ".." in value:
        raise ValueError(f"{value!r} is not a sysctl such as net.ipv4.ip_forward")
    return value


Text = Annotated[str, Check(check_text)]
#: Text of several lines.
Block = Annotated[str, Check(_block)]
DeviceName = Annotated[str, Check(_device_name)]
Label = Annotated[str, Check(_label)]
PCIAddress = Annotated[str, Check(check_pci_address)]
NamespaceName = Annotated[str, Check(_namespace_name)]
#: An nftables table: its family, a slash and its name.
TableName = Annotated[str, Check(_table_name)]
#: A network of libvirt's.
LibvirtName = Annotated[str, Check(_libvirt_name)]
#: An interface of a guest of libvirt's: its MAC address, or the alias that its definition has.
InterfaceKey = Annotated[str, Check(_interface_key)]
#: CPUs or memory nodes: ``0-3,8``.
NumberSet = Annotated[str, Check(check_number_set)]
#: A flag that only its driver knows.
FlagName = Annotated[str, Check(_flag_name)]
#: A feature by the kernel's name, ethtool's or netplan's.
FeatureName = Annotated[str, Check(_feature_name)]
PolicyName = Annotated[str, Check(_policy_name)]
MAC = Annotated[str, Check(check_mac)]
#: Any destination of a frame: of one device, of a group, or all zeros for a default entry.
EthernetAddress = Annotated[str, Check(_ethernet_address)]
#: A multicast group: an IP address, or a group's MAC address.
MulticastGroup = Annotated[str, Check(_group)]
#: A device name, or the start of one and ``*``.
DevicePattern = Annotated[str, Check(_device_pattern)]
#: A name with wildcards in it.
NamePattern = Annotated[str, Check(_name_pattern)]
#: A word of another program's: a type, a key.
Word = Annotated[str, Check(_word)]
Number = Annotated[str, Check(_number)]
#: A user or a group, by name or number.
Account = Annotated[str, Check(_account)]
Controller = Annotated[str, Check(_controller)]
AddressOrMAC = Annotated[str, Check(_address_or_mac)]
#: As nft(8) writes it: packets, or bytes, a unit of time.
Rate = Annotated[str, Check(_rate)]
#: As tc(8) writes them: ``100mbit``, ``64kb``, ``50ms``.
BitRate = Annotated[str, Check(_bit_rate)]
ByteSize = Annotated[str, Check(_byte_size)]
Duration = Annotated[str, Check(_duration)]
InterfaceAddress = Annotated[str, Check(_interface_address)]
IPAddress = Annotated[str, Check(_address)]
Address = IPAddress
#: A destination: a network with no host bits, an address, or ``default``.
Prefix = Annotated[str, Check(_prefix)]
AddressOrNetwork = Annotated[str, Check(_address_or_network)]
SysctlName = Annotated[str, Check(_sysctl_name)]
#: RFC 791: every IPv4 link carries 68 bytes; 65535 is the most a frame can be told to carry.
MTU = Annotated[int, Bound(68, 65535)]
VlanId = Annotated[int, Bound(1, 4094)]
#: One VLAN id or a range of them.
VlanRange = Annotated[str, Check(_vlan_range)]
VlanProtocol = Annotated[str, Check(_vlan_protocol)]
Uint8 = Annotated[int, Bound(0, 255)]
Uint16 = Annotated[int, Bound(0, 65535)]
Port = Annotated[int, Bound(1, 65535)]
#: A port, or a range such as ``6000-6063``.
Ports = Annotated[str, Check(_ports)]
#: TC_HTB_NUMPRIO in net/sched/sch_htb.c.
ClassPriority = Annotated[int, Bound(0, 7)]
Uint32 = Annotated[int, Bound(0, 4294967295)]
#: A routing table of an operator's: 0 stands for none (include/uapi/linux/rtnetlink.h).
TableNumber = Annotated[int, Bound(1, 4294967295)]
Metric = Uint32
Seconds = Annotated[float, Bound(0, 1_000_000)]
