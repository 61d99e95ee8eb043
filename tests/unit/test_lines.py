"""A host's lines, taken apart without a host."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import ProtocolError
from fleet.helper import lines
from fleet.helper.lines import Lines, parse
from fleet.printable import printable


class Channel:
    """A channel that only knows that it was dropped."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def receiving(*parts: bytes, datatype: int | None = None) -> Lines:
    """Return the receiving end after so many pieces."""
    found = Lines()
    found.connection_made(Channel())
    for part in parts:
        found.data_received(part, datatype)
    return found


def all_of(found: Lines) -> list[bytes]:
    """Return the lines that have come, after the end."""
    found.connection_lost(None)

    async def main() -> list[bytes]:
        read = []
        while (line := await found.next()) is not None:
            read.append(line)
        return read

    return asyncio.run(main())


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b"{" + b.replace(b"\n", b"")), max_size=8),
    st.data(),
)
def test_lines_are_the_same_however_they_are_cut(said: list[bytes], data: st.DataObject) -> None:
    """The pieces in which bytes arrive do not matter."""
    whole = b"".join(line + b"\n" for line in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    places = [0, *cuts, len(whole)]
    parts = [whole[a:b] for a, b in pairwise(places)]
    assert all_of(receiving(*parts)) == said


def test_a_line_without_its_end_is_none() -> None:
    """What was cut off is not taken for an answer."""
    assert all_of(receiving(b'{"a":1}\n{"b"')) == [b'{"a":1}']


def test_noise_ends_the_channel_at_its_first_byte() -> None:
    """Whoever does not begin with a brace is not the helper."""
    found = receiving(b"Welcome to kvm1!\n")
    assert found.channel.aborted
    assert found.noise
    assert "Welcome" in found.broken
    assert all_of(found) == []


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long line, many lines, much in all: each is the end."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    monkeypatch.setattr(lines, "LONGEST_SESSION", 1000)
    monkeypatch.setattr(lines, "MOST_LINES", 10)
    assert not receiving(b"{" * 100).broken
    assert "a line of more than" in receiving(b"{" * 101).broken
    assert receiving(*[b"{}\n"] * 11).broken == "it sends without end"
    assert receiving(*[b"e" * 100] * 11, datatype=1).broken == "it sends without end"
    late = receiving(b"{" * 101, b"{}\n")
    assert all_of(late) == []


def test_the_last_words_of_stderr_are_kept() -> None:
    """A traceback's end says more than its beginning."""
    found = receiving(b"x" * 100_000, b"\x1b[1mValueError: no\n", datatype=1)
    found.exit_status_received(1)
    assert found.said().startswith(" (exit status 1): ")
    assert found.said().endswith("\\x1b[1mValueError: no")
    assert len(found.said()) < 400


@given(st.text() | st.text(alphabet="\x00\x1b\x9b\u202e\ud800\n\t a", max_size=50))
def test_quoted_text_is_always_printable(text: str) -> None:
    """Whatever a host says, quoting it moves no cursor and stays short."""
    quoted = printable(text, 20)
    assert quoted.isprintable()
    assert len(quoted) <= 201


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=12,
    )
)
def test_good_answers_arrive_whole(value: Any) -> None:
    """What is printable is not touched; the rest is escaped, and parses to the same shape."""
    from fleet.host import wire

    found = parse(wire.dumps({"x": value}).encode(), "kvm1")["x"]
    assert texts_printable(found)
    if texts_printable(value):
        assert found == value


def texts_printable(value: Any) -> bool:
    """Whether no text in a value holds more than printable characters, lines and tabs."""
    if isinstance(value, str):
        return all(c.isprintable() or c in "\n\t" for c in value)
    if isinstance(value, dict):
        return all(texts_printable(each) for pair in value.items() for each in pair)
    return all(map(texts_printable, value)) if isinstance(value, list) else True


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(line: bytes) -> None:
    """Any line is an answer or a ProtocolError whose text is printable."""
    said = ""
    try:
        parse(line, "kvm1")
    except ProtocolError as error:
        said = str(error)
    assert said.isprintable()
