"""Netlink attributes and answers as bytes: what is odd must neither be lost nor break a read."""

from __future__ import annotations

import errno
import struct
import sys
from typing import Any

import pytest

from fleet.host.kernel import netlink as module
from fleet.host.kernel.netlink import (
    Netlink,
    attribute_list,
    attributes,
    mac_of,
    nest,
    number,
    pack,
    pack_u32,
    text_of,
)


def test_empty_attributes_are_kept() -> None:
    """An attribute without payload is there, and the one after it too."""
    assert attributes(pack(1) + pack(2, b"abc") + pack(3)) == {1: b"", 2: b"abc", 3: b""}


def test_flags_are_taken_off() -> None:
    """A nested attribute is found under its type, and a mask can keep the flags."""
    inner = nest(5, pack(1, b"x"))
    assert attributes(attributes(inner)[5]) == {1: b"x"}
    assert attribute_list(inner, 0, 0xFFFF)[0][0] == 5 | 0x8000


def test_repeated_attributes() -> None:
    """A list keeps repeated attributes in order; a mapping the last."""
    data = pack(1, b"a") + pack(1, b"b")
    assert attribute_list(data) == [(1, b"a"), (1, b"b")]
    assert attributes(data) == {1: b"b"}


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 4, b"\x03\0\1\0", b"\xff\xff\1\0", b"\x08\0\1"])
def test_broken_tails_end_a_read(tail: bytes) -> None:
    """Padding and an attribute that leads out of its buffer end a read without an error."""
    assert attributes(pack(7, b"good") + tail) == {7: b"good"}


def test_numbers_and_texts() -> None:
    """Numbers of any width are read; a text ends at NUL and keeps bytes that are not UTF-8."""
    assert number(struct.pack("=Q", 1 << 40)) == 1 << 40
    assert number(b"\7") == 7
    assert number(b"", 9) == 9
    assert attributes(pack_u32(1, -1)) == {1: b"\xff" * 4}
    assert text_of(b"eth0\0junk") == "eth0"
    assert text_of(b"\xff\0").encode("utf-8", "surrogateescape") == b"\xff"
    assert mac_of(b"\x02\0\0\0\0\xfe") == "02:00:00:00:00:fe"
    assert mac_of(b"") == ""
    assert sys.byteorder in ("little", "big")


class FakeSocket:
    """Plays a kernel: each request is answered by the next of the prepared answers."""

    def __init__(self, answers: list[list[Any]]) -> None:
        self.answers, self.queue = answers, []
        self.requests = 0

    def sendto(self, data: bytes, address: tuple[int, int]) -> None:
        self.sequence = struct.unpack_from("=I", data, 8)[0]
        self.queue = list(self.answers[min(self.requests, len(self.answers) - 1)])
        self.requests += 1

    def recvmsg(self, size: int) -> tuple[bytes, list[Any], int, tuple[int, int]]:
        item = self.queue.pop(0)
        if isinstance(item, OSError):
            raise item
        sender = item.pop("sender", 0) if isinstance(item, dict) else 0
        flags = item.get("flags", 0) if isinstance(item, dict) else 0
        parts = item["parts"] if isinstance(item, dict) else item
        data = b"".join(
            struct.pack("=IHHII", 16 + len(body), kind, flag, self.sequence + shift, 0) + body
            for kind, flag, body, shift in parts
        )
        return data, [], flags, (sender, 0)

    def recv(self, size: int) -> bytes:
        raise BlockingIOError

    def setblocking(self, on: bool) -> None:
        pass


DONE = (3, 2, struct.pack("=i", 0), 0)


def client(answers: list[list[Any]]) -> tuple[Netlink, FakeSocket]:
    netlink = Netlink.__new__(Netlink)
    fake = FakeSocket(answers)
    netlink._socket = fake  # type: ignore[assignment]
    netlink._sequence, netlink._size = 1, 4096
    return netlink, fake


def test_an_interrupted_dump_is_taken_again() -> None:
    """A dump that the kernel marks as inconsistent counts for nothing."""
    broken = [[(16, 2, b"old!", 0), (16, 2 | 0x10, b"half", 0), DONE]]
    netlink, fake = client([broken, [[(16, 2, b"good", 0)], [DONE]]])
    assert netlink.dump(18, b"") == [(16, b"good")]
    assert fake.requests == 2


def test_tables_that_never_rest() -> None:
    """A dump that is always interrupted is an error in the end, not an endless loop."""
    netlink, fake = client([[[(16, 2 | 0x10, b"half", 0), DONE]]])
    with pytest.raises(OSError, match="kept changing"):
        netlink.dump(18, b"")
    assert fake.requests == module.TRIES


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EBUSY])
def test_an_overflow_is_taken_again(number: int) -> None:
    """A socket that overflows loses messages, so the dump is asked for again."""
    netlink, fake = client([[OSError(number, "x")], [[(16, 2, b"good", 0), DONE]]])
    assert netlink.dump(18, b"") == [(16, b"good")]
    assert fake.requests == 2


def test_other_errors_are_told() -> None:
    """An error at the end of a dump is an error, with the kernel's text."""
    words = pack(1, b"no such table\0")
    end = (3, 2 | 0x200, struct.pack("=i", -errno.ENOENT) + words, 0)
    netlink, _ = client([[[(16, 2, b"part", 0), end]]])
    with pytest.raises(OSError, match="no such table") as error:
        netlink.dump(18, b"")
    assert error.value.errno == errno.ENOENT


def test_strangers_and_stale_answers_are_skipped() -> None:
    """Messages from another process and of an earlier request are not taken for the answer."""
    stranger = {"parts": [(16, 2, b"evil", 0)], "sender": 4711}
    netlink, _ = client([[stranger, [(16, 2, b"late", -1)], [(16, 2, b"good", 0), DONE]]])
    assert netlink.dump(18, b"") == [(16, b"good")]


def test_a_cut_message_is_asked_for_again_with_more_room() -> None:
    """MSG_TRUNC doubles the buffer."""
    cut = {"parts": [(16, 2, b"part", 0)], "flags": 0x20}
    netlink, _ = client([[cut], [[(16, 2, b"good", 0), DONE]]])
    assert netlink.dump(18, b"") == [(16, b"good")]
    assert netlink._size == 8192


def test_a_refusal_carries_errno_and_text() -> None:
    """The text comes after the request, or right after its header where the kernel capped it."""
    for flags, echo in (
        (0x200, struct.pack("=IHHII", 20, 16, 5, 2, 0) + b"body"),
        (0x300, bytes(16)),
    ):
        body = struct.pack("=i", -errno.EINVAL) + echo + pack(1, b"bad mode\0")
        netlink, _ = client([[[(2, flags, body, 0)]]])
        with pytest.raises(OSError, match="bad mode") as error:
            netlink.request(16, 0, b"body")
        assert error.value.errno == errno.EINVAL
