"""An nftables table in the kernel's own words, without what packets and time change in it.

Read over nfnetlink (include/uapi/linux/netfilter/nf_tables.h): no program, no namespace, a
millisecond instead of the forty that nft(8) takes twice. The form says whether a table is still
the same; what it means only nft can tell. An attribute that is not known here counts, so what a
later kernel adds can only make two forms differ.
"""

from __future__ import annotations

from fleet.host.kernel.netlink import attribute_list, attributes, number, pack, text_of
from fleet.host.planning.digest import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from fleet.host.kernel.netlink import Netlink
    from fleet.host.kernel.system import System

#: NETLINK_NETFILTER; NFNL_SUBSYS_NFTABLES in the upper byte of a message's type.
_NETFILTER, _SUBSYSTEM = 12, 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM = 1, 4, 7, 10, 13
_GETGEN, _GETOBJ, _GETFLOWTABLE = 16, 19, 23
#: include/uapi/linux/netfilter.h
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}

#: Attributes that the kernel numbers, counts or pads with: of a table USE, HANDLE; of a chain
#: HANDLE, USE, COUNTERS; of a rule HANDLE, POSITION; of a set ID, HANDLE, COUNT; of an object and
#: a flowtable USE, HANDLE.
_COUNTED = {
    _GETTABLE: (3, 4, 5),
    _GETCHAIN: (2, 6, 8, 9),
    _GETRULE: (2, 6, 8),
    _GETSET: (10, 14, 16, 20),
    _GETOBJ: (5, 6, 7),
    _GETFLOWTABLE: (4, 5, 6),
}
#: NFTA_SET_FLAGS: NFT_SET_TIMEOUT and NFT_SET_EVAL, sets whose elements packets and time change.
_FLAGS, _CHANGING = 3, 0x10 | 0x20
#: NFTA_SET_NAME, _EXPR, _EXPRESSIONS; NFTA_OBJ_TYPE, _DATA; NFTA_RULE_EXPRESSIONS.
_NAME, _EXPR, _EXPRESSIONS = 2, 17, 18
_OBJECT_TYPE, _OBJECT_DATA, _RULE = 3, 4, 4
#: Of an element EXPIRATION and padding; EXPR and EXPRESSIONS.
_AGED, _ELEMENT_EXPR, _ELEMENT_EXPRESSIONS = (5, 8), 7, 11
#: Of expressions what they count: BYTES and PACKETS; CONSUMED; SET and MSECS.
_STATE = {"counter": (1, 2), "quota": (3, 4), "last": (1, 2)}
#: Objects of these types have the attributes of the expressions.
_OBJECTS = {1: "counter", 2: "quota"}
_QUOTA_FLAGS = 2


def digest(system: System, name: str) -> str | None:
    """Return the digest of the form of ``family/table``, None where there is no such table.

    Raises OSError where the kernel cannot be asked.
    """
    family, _, table = name.partition("/")
    netlink = system.netlink_of(_NETFILTER)
    found = _form(netlink, bytes((_FAMILIES[family], 0, 0, 0)), table)
    return None if found is None else sha256(found.hex())


def generation(system: System) -> int:
    """Return the number of the ruleset's last change, in this namespace; raises OSError."""
    answers = system.netlink_of(_NETFILTER).get(_SUBSYSTEM | _GETGEN, bytes(4))
    return number(attributes(answers[0][1], 4).get(1, b""))


def _form(netlink: Netlink, head: bytes, table: str) -> bytes | None:
    wanted = table.encode() + b"\0"
    parts: list[bytes] = []
    filled: set[bytes] = set()
    read: dict[int, list[list[tuple[int, bytes]]]] = {}
    for kind in (_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETOBJ, _GETFLOWTABLE):
        filter_ = pack(1, wanted)
        listed = netlink.dump(_SUBSYSTEM | kind, head, filter_ if kind != _GETTABLE else b"")
        found = [attribute_list(payload, 4) for _, payload in listed]
        # Not every kernel filters; the name of its table is the first attribute of each.
        read[kind] = [each for each in found if (1, wanted) in each[:1]]
        if not read[kind] and kind == _GETTABLE:
            return None
    for kind, found in read.items():
        for each in found:
            kept = [item for item in each if item[0] not in _COUNTED[kind]]
            parts.append(pack(kind, _joined(_plain(kind, kept, filled))))
    for each in read[_GETSET]:
        words = dict(each)
        flags = int.from_bytes(words.get(_FLAGS, b""), "big")
        if not flags & _CHANGING and words[_NAME] not in filled:
            asked = head + pack(1, wanted) + pack(2, words[_NAME])
            parts.append(pack(_GETSETELEM, _joined([(2, words[_NAME])])))
            parts += sorted(_elements(netlink, asked, filled))
    return b"".join(parts)


def _joined(items: list[tuple[int, bytes]]) -> bytes:
    return b"".join([pack(kind, payload) for kind, payload in items])


def _plain(
    kind: int, items: list[tuple[int, bytes]], filled: set[bytes]
) -> list[tuple[int, bytes]]:
    """Return a message's attributes with the expressions in them as plain as they are."""
    if kind == _GETRULE:
        return [(k, _list(v, filled) if k == _RULE else v) for k, v in items]
    if kind == _GETSET:
        return _with_expressions(items, _EXPR, _EXPRESSIONS, filled)
    if kind == _GETOBJ:
        named = _OBJECTS.get(int.from_bytes(dict(items).get(_OBJECT_TYPE, b""), "big"), "")
        return [(k, _stateless(named, v) if k == _OBJECT_DATA else v) for k, v in items]
    return items


def _with_expressions(
    items: list[tuple[int, bytes]], one: int, several: int, filled: set[bytes]
) -> list[tuple[int, bytes]]:
    found = []
    for kind, value in items:
        if kind == one:
            value = _expression(value, filled)
        elif kind == several:
            value = _list(value, filled)
        found.append((kind, value))
    return found


def _list(payload: bytes, filled: set[bytes]) -> bytes:
    return _joined([(k, _expression(v, filled)) for k, v in attribute_list(payload)])


def _expression(payload: bytes, filled: set[bytes]) -> bytes:
    """Return one expression without what it has counted; collect the sets that rules fill."""
    words = attributes(payload)
    name = text_of(words.get(1, b""))
    if name in _STATE:
        return _joined([(1, words[1]), (2, _stateless(name, words.get(2, b"")))])
    if name == "dynset":
        items = attribute_list(words.get(2, b""))
        # NFTA_DYNSET_SET_NAME, _EXPR, _EXPRESSIONS
        filled.add(dict(items).get(1, b""))
        return _joined([(1, words[1]), (2, _joined(_with_expressions(items, 7, 10, filled)))])
    return payload


def _stateless(name: str, payload: bytes) -> bytes:
    left_out: Collection[int] = _STATE.get(name, ())
    items = [item for item in attribute_list(payload) if item[0] not in left_out]
    if name == "quota":
        # NFT_QUOTA_F_DEPLETED is told among the flags once it is.
        items = [(k, bytes((v[-1] & 1,)) if k == _QUOTA_FLAGS else v) for k, v in items]
    return _joined(items)


def _elements(netlink: Netlink, asked: bytes, filled: set[bytes]) -> list[bytes]:
    """Return a set's elements, in no order: the kernel's tables of them grow and move."""
    found = []
    for _, payload in netlink.dump(_SUBSYSTEM | _GETSETELEM, asked):
        for _, element in attribute_list(attributes(payload, 4).get(3, b"")):
            items = [item for item in attribute_list(element) if item[0] not in _AGED]
            plain = _with_expressions(items, _ELEMENT_EXPR, _ELEMENT_EXPRESSIONS, filled)
            found.append(pack(1, _joined(plain)))
    return found
