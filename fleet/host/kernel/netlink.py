"""A small netlink client on ``_socket``: dumps, requests and attributes (netlink(7)).

It is what an audit reads with and what a revert writes with, so it imports nothing that costs an
interpreter's start and needs nothing from the disk. All numbers are in the machine's byte order
unless an attribute says otherwise.
"""

from __future__ import annotations

import errno
import posix
import sys
import time
from _socket import AF_NETLINK, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from _struct import Struct

ROUTE, GENERIC = 0, 16

#: include/uapi/linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_CAPPED, _ACK_TLVS = 0x100, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _EXT_ACK, _STRICT = 270, 11, 12
NESTED, _TYPE = 0x8000, 0x3FFF

#: How often a dump is asked for again when the kernel's tables changed under it.
TRIES = 20
#: Seconds the kernel may take to answer; it holds the rtnl lock while it creates devices.
PATIENCE = 30

_header = Struct("=IHHII")
_attribute = Struct("=HH")
_int = Struct("=i")
_timeval = Struct("@ll")
_AGAIN = (errno.ENOBUFS, errno.EINTR, errno.EAGAIN, errno.EBUSY)


class Interrupted(Exception):
    """The kernel's tables changed during a dump, or the socket overflowed: ask again."""


class Truncated(Interrupted):
    """A message was larger than the buffer."""


class Netlink:
    """A netlink socket of one protocol, bound to the namespace of the thread that opens it."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        for option in (_EXT_ACK, _STRICT):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                # Linux before 4.12 and 4.20: no error texts, no filters; the answers are the same.
                pass
        self._socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, _timeval.pack(PATIENCE, 0))
        self._socket.bind((0, 0))
        self._sequence = int(time.time()) & 0x7FFFFFFF
        self._size = 1 << 16

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def dump(
        self, message_type: int, header: bytes, attributes: bytes = b""
    ) -> list[tuple[int, bytes]]:
        """Return every message of a dump as (type, payload).

        A dump that the kernel marks as inconsistent is asked for again, up to TRIES times; raises
        OSError, with the kernel's own words where it has any.
        """
        failure = OSError(errno.EINTR, "the kernel's tables kept changing while they were read")
        for _ in range(TRIES):
            sequence = self._send(message_type, NLM_F_DUMP, header + attributes)
            try:
                return self._collect(sequence, single=False)
            except Truncated:
                self._size *= 2
            except Interrupted:
                pass
            except OSError as error:
                self._drain()
                if error.errno not in _AGAIN:
                    raise
                failure = error
        raise failure

    def get(self, message_type: int, payload: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """Return the answer to a request for one object as (type, payload); raises OSError."""
        for _ in range(TRIES):
            sequence = self._send(message_type, NLM_F_ACK | flags, payload)
            try:
                return self._collect(sequence, single=True)
            except Truncated:
                self._size *= 2
        raise OSError(errno.EMSGSIZE, "an answer larger than any buffer")

    def request(self, message_type: int, flags: int, payload: bytes) -> None:
        """Ask for a change and wait for the kernel's answer; raises OSError with its words."""
        self._collect(self._send(message_type, NLM_F_ACK | flags, payload), single=True)

    def _send(self, message_type: int, flags: int, payload: bytes) -> int:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        length = 16 + len(payload)
        head = _header.pack(length, message_type, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.sendto(head + payload, (0, 0))
        return self._sequence

    def _receive(self) -> bytes:
        while True:
            data, _, flags, sender = self._socket.recvmsg(self._size)
            if sender[0] != 0:
                continue  # only the kernel answers; another process may address this socket
            if flags & 0x20:  # MSG_TRUNC
                self._drain()
                raise Truncated
            return data

    def _drain(self) -> None:
        """Read away what is left of a dump that is given up."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(self._size)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        finally:
            self._socket.setblocking(True)

    def _collect(self, sequence: int, single: bool) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            data = self._receive()
            offset, end = 0, len(data)
            while offset + 16 <= end:
                length, kind, flags, number, _ = _header.unpack_from(data, offset)
                if length < 16 or offset + length > end:
                    raise OSError(errno.EBADMSG, "a malformed netlink message")
                start, stop = offset + 16, offset + length
                offset += (length + 3) & ~3
                if number != sequence:
                    continue  # the rest of a dump that was given up
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (_ERROR, _DONE):
                    _check(data[start:stop], flags, kind)
                    if interrupted:
                        raise Interrupted
                    return found
                found.append((kind, data[start:stop]))
            # Without NLM_F_MULTI an answer is complete, but its acknowledgement follows.
            if not single and not found and not data:
                raise OSError(errno.ECONNRESET, "the netlink socket was closed")


def _check(payload: bytes, flags: int, kind: int) -> None:
    """Raise OSError where an acknowledgement, or the end of a dump, carries an error."""
    code = _int.unpack_from(payload)[0] if len(payload) >= 4 else 0
    if code == 0 or (kind == _DONE and code > 0):
        return
    text = ""
    if flags & _ACK_TLVS:
        offset = 4
        if kind == _ERROR:
            inner = _header.unpack_from(payload, 4)[0] if len(payload) >= 20 else 16
            offset = 20 if flags & _CAPPED else 4 + ((inner + 3) & ~3)
        text = text_of(attributes(payload, offset).get(1, b""))  # NLMSGERR_ATTR_MSG
    raise OSError(-code, f"{posix.strerror(-code)}: {text}" if text else posix.strerror(-code))


def attributes(buffer: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes from offset on by type, flags taken off; of a repeated one the last."""
    found = {}
    end = len(buffer)
    unpack = _attribute.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(buffer, offset)
        if length < 4 or offset + length > end:
            break  # the kernel pads a message's end with zeros; nothing after that is an attribute
        found[kind & _TYPE] = buffer[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute_list(buffer: bytes, offset: int = 0, mask: int = _TYPE) -> list[tuple[int, bytes]]:
    """Return the attributes from offset on as (type, payload), in order, repeated ones too."""
    found = []
    end = len(buffer)
    while offset + 4 <= end:
        length, kind = _attribute.unpack_from(buffer, offset)
        if length < 4 or offset + length > end:
            break
        found.append((kind & mask, buffer[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Return one attribute, padded to four bytes."""
    length = 4 + len(payload)
    return _attribute.pack(length, kind) + payload + b"\0" * (-length & 3)


def nest(kind: int, *inner: bytes) -> bytes:
    """Return an attribute that holds others, marked NLA_F_NESTED."""
    return pack(kind | NESTED, b"".join(inner))


def pack_text(kind: int, text: str) -> bytes:
    """Return an attribute with a text that ends in NUL."""
    return pack(kind, text.encode("utf-8", "surrogateescape") + b"\0")


def pack_u32(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number in the machine's order; negative ones as signed."""
    return pack(kind, (value & 0xFFFFFFFF).to_bytes(4, sys.byteorder))


def number(payload: bytes, default: int = 0) -> int:
    """Return an unsigned number of any width in the machine's order; default where it is empty."""
    return int.from_bytes(payload, sys.byteorder) if payload else default


def text_of(payload: bytes) -> str:
    """Return a text up to its NUL; bytes that are not UTF-8 survive a round trip."""
    return payload.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def mac_of(payload: bytes) -> str:
    """Return a link-layer address as ``aa:bb:...``; empty for a device that has none."""
    return payload.hex(":") if payload else ""
